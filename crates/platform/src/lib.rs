//! The hardware that a guest sees, as plain data.
//!
//! A [`Platform`] holds everything that firmware tables of any kind describe: the memory map, the processors and their
//! ids, the interrupt controller, the devices with their addresses and interrupts, and how the machine is powered off.
//! It has no behaviour and depends on no table format. `firmware-tables` encodes it, device models contribute their
//! [`DeviceNode`]s, and the VMM programs the hypervisor from the same values, so the three cannot contradict each other.
//!
//! Addresses are guest physical addresses (GPA), sizes are bytes, interrupts are global system interrupts (GSI) as
//! ACPI numbers them (ACPI 6.5, 5.2.14).
//!
//! The address map is a parameter: [`x86_64::Layout`] and [`aarch64::Layout`], each with a reference layout.
//!
//! ```
//! use platform::{DeviceNode, DeviceRole, Trigger, x86_64};
//!
//! let layout = x86_64::Layout { serial_gsi: 3, ..x86_64::Layout::REFERENCE };
//! let serial = DeviceNode::new("serial0")
//!     .ports(layout.serial_port, 8)
//!     .interrupt(layout.serial_gsi, Trigger::Edge)
//!     .role(DeviceRole::Ns16550);
//! let machine = x86_64::platform(&layout, 2, 512 << 20, vec![serial], Some("serial0"));
//! assert_eq!(machine.memory.ram_size(), 512 << 20);
//! ```

pub mod aarch64;
mod device;
mod error_injection;
mod error_serialization;
mod interrupts;
mod memory;
pub mod x86_64;

pub use device::{
    AcpiIdentity, AcpiObject, DeviceNode, DeviceRole, DevicetreeChild, DevicetreeIdentity, EventSource,
    Interrupt, Property, Trigger, Window,
};
pub use error_injection::ErrorInjection;
pub use error_serialization::ErrorSerialization;
pub use interrupts::{InterruptController, IoApic, PrivateInterrupts};
pub use memory::{MemoryMap, RECORD_REGION_LEN, Range, Region, RegionKind};
pub use ras_core::Arch;
use ras_core::{ErrorSource, RecordArea};

/// A processor of the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cpu {
    /// Index, from 0; also the ACPI processor UID and KVM's vCPU id.
    pub index: u32,
    /// Its id at the interrupt controller: the x2APIC id on x86_64, the MPIDR affinity on aarch64.
    pub hardware_id: u64,
}

/// A clock of constant frequency that devices refer to by name in a devicetree (Linux, `clock/fixed-clock.yaml`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FixedClock {
    /// Node name, and the name in [`Property::Devices`].
    pub name: &'static str,
    /// Frequency in Hz.
    pub hz: u32,
}

/// How the guest powers the machine off and resets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PowerControl {
    /// The sleep and reset registers of a hardware-reduced ACPI machine (ACPI 6.5, 4.8.3.7 and 4.8.3.6), one byte each.
    AcpiRegisters {
        /// SLEEP_CONTROL_REG.
        sleep_control: Window,
        /// SLEEP_STATUS_REG.
        sleep_status: Window,
        /// RESET_REG.
        reset: Window,
        /// RESET_VALUE: the value that the guest writes to `reset`.
        reset_value: u8,
        /// SLP_TYP of the S5 state in the `\_S5` package (0 to 7).
        s5_sleep_type: u8,
    },
    /// PSCI calls by HVC (aarch64).
    PsciHvc,
}

/// The machine as its guest sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Platform {
    /// Architecture of the guest.
    pub arch: Arch,
    /// RAM and the memory map.
    pub memory: MemoryMap,
    /// The processors, in the order of their index.
    pub cpus: Vec<Cpu>,
    /// The interrupt controller.
    pub interrupts: InterruptController,
    /// The processors' private interrupts. `None` on x86_64.
    pub private_interrupts: Option<PrivateInterrupts>,
    /// Power-off and reset.
    pub power: PowerControl,
    /// Devices, in the order in which tables list them.
    pub devices: Vec<DeviceNode>,
    /// Clocks that devices refer to in a devicetree.
    pub clocks: Vec<FixedClock>,
    /// The name of the device that is the guest's console. `None` if the guest has no console.
    pub console: Option<&'static str>,
    /// The error sources; their records are in [`MemoryMap::records`]. Set by
    /// [`with_error_sources`](Self::with_error_sources).
    pub error_sources: Vec<ErrorSource>,
    /// How the guest injects errors. `None` if it cannot. Set by [`with_error_injection`](Self::with_error_injection).
    pub error_injection: Option<ErrorInjection>,
    /// The registers of a store for error records; records pass through [`MemoryMap::error_log`]. `None` if the machine has none. Set by
    /// [`with_error_serialization`](Self::with_error_serialization).
    pub error_serialization: Option<ErrorSerialization>,
}

/// Boot parameters that tables carry on aarch64: the `/chosen` node of a devicetree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chosen {
    /// The kernel's command line.
    pub command_line: String,
    /// The initrd. `None` if there is none.
    pub initrd: Option<Range>,
    /// Seed for the kernel's address space layout randomization (`kaslr-seed`). Linux ignores 0.
    pub kaslr_seed: Option<u64>,
    /// Seed for the kernel's random number generator (`rng-seed`).
    pub rng_seed: Option<[u8; 64]>,
}

impl Platform {
    /// The machine with these error sources, and memory reserved for their records.
    ///
    /// [`MemoryMap::records`] stays `None` if the memory is too small; building tables then fails.
    #[must_use]
    pub fn with_error_sources(mut self, sources: Vec<ErrorSource>) -> Self {
        self.memory = self.memory.with_records(RecordArea::bytes_needed(sources.len()));
        self.error_sources = sources;
        self
    }

    /// The machine with error injection, as `describe` places it in a block of memory that is reserved for it.
    ///
    /// [`error_injection`](Self::error_injection) stays `None` if the memory is too small.
    #[must_use]
    pub fn with_error_injection(mut self, describe: impl FnOnce(Range) -> ErrorInjection) -> Self {
        self.error_injection = self.memory.reserve(memory::BLOCK, RegionKind::Reserved).map(describe);
        self
    }

    /// The machine with a store for error records behind these registers. [`MemoryMap::error_log`] stays `None` if the memory is too small;
    /// building tables then fails.
    #[must_use]
    pub fn with_error_serialization(mut self, registers: ErrorSerialization) -> Self {
        self.memory = self.memory.with_error_log();
        self.error_serialization = Some(registers);
        self
    }

    /// The machine as a guest may use it whose memory has poisoned pages: these ranges are unusable. On aarch64 in whole blocks of 64 KiB,
    /// because a kernel with such pages maps nothing smaller. Comes after everything that reserves memory.
    #[must_use]
    pub fn with_unusable(mut self, poisoned: &[Range]) -> Self {
        let granule = match self.arch {
            Arch::X86_64 => memory::PAGE,
            Arch::Aarch64 => memory::BLOCK,
        };
        self.memory = self.memory.with_unusable(poisoned, granule);
        self
    }

    /// The machine with a boot error region. [`MemoryMap::boot_record`] stays `None` if the memory is too small.
    #[must_use]
    pub fn with_boot_record(mut self) -> Self {
        self.memory = self.memory.with_boot_record();
        self
    }

    /// The device that is the guest's console. `None` if the guest has no console or no device has that name.
    #[must_use]
    pub fn console_device(&self) -> Option<&DeviceNode> {
        self.devices.iter().find(|device| Some(device.name.as_str()) == self.console)
    }
}

/// A platform is built on one thread and read on others.
const _: () = {
    const fn crosses_threads<T: Send + Sync>() {}
    crosses_threads::<Platform>();
    crosses_threads::<Chosen>();
    crosses_threads::<DeviceNode>();
    crosses_threads::<x86_64::Layout>();
    crosses_threads::<aarch64::Layout>();
};

/// Compiles the example of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
