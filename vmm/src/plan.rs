//! What a profile requests, what the tables describe to its guest, and how memory errors are reported, before anything boots.

use firmware_tables::GuestTables;
use machine_profile::{Machine, TableSet};
use platform::aarch64::{self, Features};
use platform::{Arch, Chosen, Platform, x86_64};
use ras_core::RecordArea;
use ras_core::abilities::HostAbilities;
use ras_core::plan::{Plan, TablesView, sources_wanted};
use rustix::system::sysinfo;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::board::{self, profile_devices};
use crate::describe::{self, DescribeError};
use crate::ras::inject::from_guest::{InjectableError, error_types};
use crate::ras::request;

/// Everything that is decided before a machine is made.
#[derive(Clone, Debug)]
pub struct Blueprint {
    /// The plan, for users.
    pub report: PlanReport,
    /// The hardware.
    pub platform: Platform,
    /// The layout of the error records, as the tables that it was planned from contain it.
    pub record_area: Option<RecordArea>,
    /// How memory errors are handled.
    pub ras: Plan,
    /// The host that it was planned for.
    pub host: HostAbilities,
}

/// The plan of a machine, for users: the JSON of `ghest plan --json`.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct PlanReport {
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
    /// The table set.
    pub firmware: &'static str,
    /// Why the guest gets this table set.
    pub because: &'static str,
    /// Every table.
    pub tables: Vec<PlannedTable>,
    /// How memory errors are handled.
    #[schemars(with = "Map<String, Value>")]
    pub ras: Plan,
    /// Errors that the guest can inject into its own memory (EINJ). Empty if it can inject none.
    pub injection: Vec<InjectableError>,
    /// What the user should know about this machine on this host, beside memory errors.
    pub notes: Vec<String>,
}

/// A table that the guest gets.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct PlannedTable {
    /// Its name.
    pub name: &'static str,
    /// Its address.
    pub gpa: u64,
    /// Its length in bytes.
    pub len: usize,
}

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The machine cannot be described.
    #[error(transparent)]
    Describe(#[from] DescribeError),
    /// Memory errors cannot be handled as the profile requests.
    #[error(transparent)]
    Refused(#[from] ras_core::plan::PlanError),
}

/// The hardware of a machine, with the error sources of its profile's responses on such a host.
///
/// # Errors
/// Returns an error if the devices of the profile have no place in the machine, or if the host has fewer address bits than the
/// machine needs.
pub fn platform(
    machine: &Machine,
    offered: Features,
    host: &HostAbilities,
) -> Result<Platform, DescribeError> {
    // The interrupt of a source that has one of its own.
    let own_gsi = match machine.arch {
        Arch::X86_64 => x86_64::ERROR_GSI,
        Arch::Aarch64 => aarch64::ERROR_INTID,
    };
    let sources = sources_wanted(&request::of(machine), host, Some(own_gsi)).collect();
    let platform = describe::platform(machine, offered)?;
    describe::check_addresses(&platform, host.address_bits)?;
    let platform = platform.with_error_sources(sources);
    let platform = if machine.ras.boot_record { platform.with_boot_record() } else { platform };
    Ok(match machine.ras.persistent_store {
        Some(_) => platform.with_error_serialization(board::error_serialization(machine.arch)),
        None => platform,
    })
}

/// The hardware of a machine and its tables, without those parts of the tables that depend on the place of an initrd.
///
/// # Errors
/// Returns an error if the machine cannot be described.
pub fn platform_and_tables(
    machine: &Machine,
    offered: Features,
    host: &HostAbilities,
) -> Result<(Platform, GuestTables), DescribeError> {
    let platform = platform(machine, offered, host)?;
    let command_line = profile_devices::command_line(machine).map_err(DescribeError::Devices)?.text;
    let chosen = Chosen { command_line, ..Default::default() };
    let tables = describe::tables(machine, &platform, &chosen)?;
    Ok((platform, tables))
}

impl Blueprint {
    /// Plans a machine that is not booted, for a host with these features and abilities. The host is not queried here.
    ///
    /// # Errors
    /// Returns an error if the machine cannot be described, or if its profile requires what the host does not support.
    pub fn of(machine: &Machine, offered: Features, host: HostAbilities) -> Result<Self, PlanError> {
        let (platform, tables) = platform_and_tables(machine, offered, &host)?;
        Blueprint::new(machine, platform, &tables, host)
    }

    /// Plans a machine from the tables that its guest gets.
    ///
    /// # Errors
    /// Returns an error if the profile requires what tables or host do not support.
    pub fn new(
        machine: &Machine,
        platform: Platform,
        tables: &GuestTables,
        host: HostAbilities,
    ) -> Result<Self, PlanError> {
        let request = request::of(machine);
        let view = TablesView {
            set: request.tables,
            record_area: tables.record_area.as_ref(),
            error_device: tables.error_device,
        };
        let ras = ras_core::plan::plan(&request, &host, &view)?;
        let report = PlanReport {
            machine: machine.name.clone(),
            architecture: machine.arch.name(),
            vcpus: machine.vcpus,
            memory: machine.memory.size,
            kernel: machine.boot.kernel.to_string(),
            firmware: machine.firmware.name(),
            because: firmware_reason(machine.arch, machine.firmware),
            tables: tables
                .tables
                .iter()
                .map(|table| PlannedTable { name: table.name, gpa: table.gpa, len: table.bytes.len() })
                .collect(),
            injection: injectable(machine, &ras),
            ras: ras.clone(),
            notes: Vec::new(),
        };
        Ok(Blueprint { report, platform, record_area: tables.record_area.clone(), ras, host })
    }
}

/// The errors that the guest can inject.
fn injectable(machine: &Machine, plan: &Plan) -> Vec<InjectableError> {
    let types = if machine.ras.injection { error_types(plan) } else { Vec::new() };
    types.into_iter().map(InjectableError::from).collect()
}

/// A note if the machine has more memory than this host. Overcommitted memory is legitimate: a guest may never touch most of it.
#[must_use]
pub fn memory_note(machine: &Machine) -> Option<String> {
    let host = sysinfo();
    let host = host.totalram.checked_mul(host.mem_unit.into())?;
    overcommit_note(machine.memory.size, host)
}

fn overcommit_note(guest: u64, host: u64) -> Option<String> {
    (guest > host).then(|| {
        format!(
            "the guest has {} MiB of memory and this host {} MiB: if the guest touches more than the host can spare, the \
             host's kernel ends ghest (OOM killer)",
            guest >> 20,
            host >> 20
        )
    })
}

/// Why a guest of that architecture gets those tables, for users.
const fn firmware_reason(arch: Arch, firmware: TableSet) -> &'static str {
    match (arch, firmware) {
        (_, TableSet::Acpi) => "the profile says acpi: the tables that carry error records for every kernel",
        (Arch::Aarch64, _) => {
            "the profile says devicetree: it carries error records only for a kernel that has a driver for arm,ras-cper"
        }
        (Arch::X86_64, _) => "the profile says mptable: it has no place for error records",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_guest_larger_than_the_host_has_a_note() {
        assert_eq!(overcommit_note(24 << 30, 24 << 30), None);
        let note = overcommit_note(1 << 40, 24 << 30).expect("a note");
        assert!(note.starts_with("the guest has 1048576 MiB of memory and this host 24576 MiB: "), "{note}");
    }
}
