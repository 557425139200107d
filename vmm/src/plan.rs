//! What a profile asks for and what its guest is told, before anything boots.

use firmware_tables::GuestTables;
use machine_profile::{Asynchronous, Firmware, Kernel, Machine, Synchronous};
use platform::aarch64::Features;
use platform::{Arch, Chosen, Platform};
use serde::Serialize;

use crate::describe::{self, DescribeError};

/// The plan of a machine.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Plan {
    /// Name of the machine.
    pub machine: String,
    /// Architecture.
    pub architecture: &'static str,
    /// vCPUs.
    pub vcpus: u32,
    /// Bytes of memory.
    pub memory: u64,
    /// What is booted.
    pub kernel: String,
    /// The language of the tables.
    pub firmware: &'static str,
    /// Every table.
    pub tables: Vec<PlannedTable>,
    /// What was asked for each kind of memory error.
    pub asked: Asked,
}

/// A table that the guest gets.
#[derive(Clone, Debug, Serialize)]
pub struct PlannedTable {
    /// Its name.
    pub name: &'static str,
    /// Its address.
    pub gpa: u64,
    /// Its length in bytes.
    pub len: usize,
}

/// The answers to memory errors that the profile asks for, as its words.
#[derive(Clone, Debug, Serialize)]
pub struct Asked {
    /// `ras.synchronous`.
    pub synchronous: &'static str,
    /// `ras.asynchronous`.
    pub asynchronous: &'static str,
}

impl Plan {
    /// Plans a machine for a host that offers this. Nothing is asked of the host here.
    ///
    /// # Errors
    /// Where the machine can not be described.
    pub fn of(machine: &Machine, offered: Features) -> Result<(Plan, Platform, GuestTables), DescribeError> {
        let platform = describe::platform(machine, offered)?;
        let chosen = Chosen { command_line: describe::command_line(machine, &platform), ..Default::default() };
        let tables = describe::tables(machine, &platform, &chosen)?;
        let plan = Plan {
            machine: machine.name.clone(),
            architecture: machine.arch.name(),
            vcpus: machine.vcpus,
            memory: machine.memory.size,
            kernel: match &machine.boot.kernel {
                Kernel::BuiltinProbe => "builtin:probe".into(),
                Kernel::File(path) => path.display().to_string(),
            },
            firmware: describe::firmware_name(machine.firmware),
            tables: tables
                .tables
                .iter()
                .map(|table| PlannedTable { name: table.name, gpa: table.gpa, len: table.bytes.len() })
                .collect(),
            asked: Asked {
                synchronous: synchronous_word(machine.ras.synchronous),
                asynchronous: asynchronous_word(machine.ras.asynchronous),
            },
        };
        Ok((plan, platform, tables))
    }
}

/// Why a guest of that architecture gets those tables, for a person.
#[must_use]
pub fn firmware_reason(arch: Arch, firmware: Firmware) -> &'static str {
    match (arch, firmware) {
        (_, Firmware::Acpi) => "the profile says acpi: the only tables that can carry error records",
        (Arch::Aarch64, _) => "the profile says devicetree: it has no place for error records",
        (Arch::X86_64, _) => "the profile says mptable: it has no place for error records",
    }
}

const fn synchronous_word(answer: Synchronous) -> &'static str {
    match answer {
        Synchronous::Auto => "auto",
        Synchronous::Sea => "sea",
        Synchronous::Sei => "sei",
        Synchronous::Nmi => "nmi",
        Synchronous::Mce => "mce",
        Synchronous::Abort => "abort",
        Synchronous::Serror => "serror",
        Synchronous::Stop => "stop",
    }
}

const fn asynchronous_word(answer: Asynchronous) -> &'static str {
    match answer {
        Asynchronous::Auto => "auto",
        Asynchronous::Polled => "polled",
        Asynchronous::Gsiv => "gsiv",
        Asynchronous::Gpio => "gpio",
        Asynchronous::External => "external",
        Asynchronous::Mce => "mce",
        Asynchronous::Ignore => "ignore",
        Asynchronous::Stop => "stop",
    }
}
