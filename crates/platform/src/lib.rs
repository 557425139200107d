//! The hardware a guest sees, as plain data.
//!
//! A [`Platform`] is everything that a firmware table, of whatever kind, has to say: where memory is, which processors
//! there are and how they are named, what the interrupt controller looks like, which devices sit at which address and
//! on which interrupt, and how the machine is switched off. It holds no behaviour and knows no table format:
//! `firmware-tables` turns it into bytes, the device models of `devices` put their [`DeviceNode`]s into it, and the
//! VMM programs KVM from the same values. So the three cannot contradict one another.
//!
//! Addresses are guest physical addresses (GPA), sizes are bytes, interrupts are global system interrupts (GSI) as
//! ACPI counts them (ACPI 6.5, 5.2.14).

pub mod aarch64;
mod device;
mod interrupts;
mod memory;
pub mod x86_64;

pub use device::{
    AcpiIdentity, AcpiObject, DeviceNode, DevicetreeChild, DevicetreeIdentity, EventSource, Interrupt,
    Property, Trigger, Window,
};
pub use interrupts::{InterruptController, IoApic, PrivateInterrupts};
pub use memory::{MemoryMap, Range, Region, RegionKind};
pub use ras_core::Arch;
use ras_core::{ErrorSource, RecordArea};

/// A processor of the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cpu {
    /// Position, from 0; also the ACPI processor UID and KVM's vCPU index.
    pub index: u32,
    /// The name the interrupt controller knows it by: the x2APIC id on x86_64, the MPIDR affinity on aarch64.
    pub hardware_id: u64,
}

/// How the guest switches the machine off and resets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PowerControl {
    /// The sleep and reset registers of a hardware-reduced ACPI machine (ACPI 6.5, 4.8.3.7 and 4.8.3.6), one byte each.
    AcpiRegisters {
        /// SLEEP_CONTROL_REG.
        sleep_control: Window,
        /// SLEEP_STATUS_REG.
        sleep_status: Window,
        /// RESET_REG.
        reset: Window,
        /// RESET_VALUE: what the guest writes to `reset`.
        reset_value: u8,
        /// SLP_TYP of the S5 state, as the `\_S5` package gives it (0 to 7).
        s5_sleep_type: u8,
    },
    /// PSCI calls by HVC (aarch64).
    PsciHvc,
}

/// The whole machine, as its guest sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Platform {
    /// Architecture of the guest.
    pub arch: Arch,
    /// Where memory is, and where it is not.
    pub memory: MemoryMap,
    /// The processors, in the order of their index.
    pub cpus: Vec<Cpu>,
    /// The interrupt controller.
    pub interrupts: InterruptController,
    /// The processors' own interrupts (aarch64).
    pub private_interrupts: Option<PrivateInterrupts>,
    /// Power-off and reset.
    pub power: PowerControl,
    /// Devices, in the order in which tables list them.
    pub devices: Vec<DeviceNode>,
    /// The name of the device that is the guest's first console.
    pub console: Option<&'static str>,
    /// Where the guest is told of memory errors; their records are in [`MemoryMap::records`]. Set by
    /// [`with_error_sources`](Self::with_error_sources).
    pub error_sources: Vec<ErrorSource>,
}

/// What a boot loader tells its kernel, where tables carry it (aarch64): the `/chosen` node of a devicetree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chosen {
    /// The kernel's command line.
    pub command_line: String,
    /// Where the initrd is.
    pub initrd: Option<Range>,
    /// Seed of the kernel's own address space layout; 0 is none.
    pub kaslr_seed: Option<u64>,
    /// Seed of the kernel's random number generator.
    pub rng_seed: Option<[u8; 64]>,
}

impl Platform {
    /// The same machine with error sources, and memory set apart for their records.
    #[must_use]
    pub fn with_error_sources(mut self, sources: Vec<ErrorSource>) -> Self {
        self.memory = self.memory.with_records(RecordArea::bytes_needed(sources.len()));
        self.error_sources = sources;
        self
    }

    /// The device that is the guest's first console.
    #[must_use]
    pub fn console_device(&self) -> Option<&DeviceNode> {
        self.devices.iter().find(|device| Some(device.name.as_str()) == self.console)
    }
}
