//! The address map of an aarch64 machine, and its fixed parts.
//!
//! ```text
//!   800_0000 .. 801_0000     GIC distributor (GICv2: its processors' interface at 802_0000)
//!   808_0000 .. 80a_0000     interrupt translation service
//!   900_0000                 PL011 serial port
//!   901_0000                 PL031 clock
//!   903_0000                 Generic Event Device
//!   a00_0000 .. a10_0000     virtio-mmio transports, one page each
//!  1000_0000 .. 1400_0000    GIC redistributors, 128 KiB for each of up to 512 processors
//!  4000_0000 .. 4010_0000    RAM: tables that the guest reads once (ACPI, EFI), ACPI reclaimable
//!  4010_0000 .. 4020_0000    RAM, usable: the devicetree
//!  4020_0000 ..              RAM, usable: kernel and initrd
//! ```
//!
//! SPIs are given as INTIDs: SPI n is INTID 32 + n.

use crate::memory::{MemoryMap, Range, Region, RegionKind};
use crate::{Arch, Cpu, DeviceNode, InterruptController, Platform, PowerControl, PrivateInterrupts};

/// GIC distributor.
pub const GIC_DISTRIBUTOR: Range = Range { start: 0x800_0000, len: 0x1_0000 };
/// GICv2 processors' interface.
pub const GICV2_CPU_INTERFACE: Range = Range { start: 0x802_0000, len: 0x2000 };
/// GICv2 distributor: the registers end after 4 KiB.
pub const GICV2_DISTRIBUTOR: Range = Range { start: 0x800_0000, len: 0x1000 };
/// Interrupt translation service.
pub const GIC_ITS: Range = Range { start: 0x808_0000, len: 0x2_0000 };
/// GICv3 redistributors begin here.
pub const GIC_REDISTRIBUTORS: u64 = 0x1000_0000;
/// Bytes of one processor's redistributor.
pub const GIC_REDISTRIBUTOR_LEN: u64 = 0x2_0000;

/// Serial port.
pub const SERIAL_BASE: u64 = 0x900_0000;
/// INTID of the serial port.
pub const SERIAL_INTID: u32 = 33;
/// Clock.
pub const RTC_BASE: u64 = 0x901_0000;
/// INTID of the clock.
pub const RTC_INTID: u32 = 34;
/// INTID of the power button (devicetree).
pub const POWER_BUTTON_INTID: u32 = 35;
/// Generic Event Device.
pub const GED_BASE: u64 = 0x903_0000;
/// INTID of the Generic Event Device.
pub const GED_INTID: u32 = 36;
/// INTID of an error source that has an interrupt of its own (devicetree).
pub const ERROR_INTID: u32 = 37;
/// virtio-mmio transports, one page each.
pub const VIRTIO_MMIO: Range = Range { start: 0xa00_0000, len: 0x10_0000 };
/// INTID of the first virtio-mmio transport; each next one has the next.
pub const VIRTIO_FIRST_INTID: u32 = 48;

/// The name by which devices refer to the clock of the peripheral bus: a node that every devicetree has for them.
pub const APB_CLOCK: &str = "apb-pclk";
/// Its frequency in Hz.
pub const APB_CLOCK_HZ: u32 = 24_000_000;

/// Start of RAM.
pub const RAM_START: u64 = 0x4000_0000;
/// Bytes, from the start of RAM, of the area for tables.
pub const TABLES_LEN: u64 = 0x10_0000;
/// Where the devicetree is.
pub const DEVICETREE: u64 = RAM_START + TABLES_LEN;
/// Most bytes of a devicetree.
pub const DEVICETREE_MAX: u64 = 0x10_0000;
/// Where the kernel may begin.
pub const KERNEL_START: u64 = RAM_START + 0x20_0000;

/// The private interrupts, as Arm's Base System Architecture numbers them (DEN0094C, table 3).
const PRIVATE_INTERRUPTS: PrivateInterrupts = PrivateInterrupts {
    secure_timer: 29,
    physical_timer: 30,
    virtual_timer: 27,
    hypervisor_timer: 26,
    performance_monitors: None,
};
/// INTID of the performance monitors.
pub const PMU_INTID: u32 = 23;

/// What this host's GIC and processors offer beyond what every machine has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// Version of the GIC: 3, or 2.
    pub gic: u8,
    /// Whether there is an interrupt translation service (GICv3 only).
    pub its: bool,
    /// Whether processors have performance monitors.
    pub performance_monitors: bool,
}

impl Default for Features {
    /// What most hosts offer: tables that are built without a host assume it.
    fn default() -> Self {
        Features { gic: 3, its: true, performance_monitors: true }
    }
}

/// The memory map of a machine with `size` bytes of RAM.
#[must_use]
pub fn memory_map(size: u64) -> MemoryMap {
    let ram = Range { start: RAM_START, len: size };
    let tables = Range { start: RAM_START, len: TABLES_LEN };
    MemoryMap {
        ram: vec![ram],
        regions: vec![
            Region { range: tables, kind: RegionKind::AcpiReclaim },
            Region { range: Range::between(tables.end(), ram.end()), kind: RegionKind::Usable },
        ],
        tables,
        records: None,
    }
}

/// The MPIDR affinity (Aff0 to Aff2) that KVM gives to a vCPU: sixteen to a cluster, as a GICv3 can address them.
#[must_use]
pub const fn mpidr(index: u32) -> u64 {
    let index = index as u64;
    (index & 0xf) | ((index >> 4) & 0xff) << 8 | ((index >> 12) & 0xff) << 16
}

/// The machine with its fixed parts and the given devices.
#[must_use]
pub fn platform(
    vcpus: u32,
    memory: u64,
    features: Features,
    devices: Vec<DeviceNode>,
    console: Option<&'static str>,
) -> Platform {
    let interrupts = if features.gic == 2 {
        InterruptController::Gicv2 { distributor: GICV2_DISTRIBUTOR, cpu_interface: GICV2_CPU_INTERFACE }
    } else {
        InterruptController::Gicv3 {
            distributor: GIC_DISTRIBUTOR,
            redistributors: Range {
                start: GIC_REDISTRIBUTORS,
                len: GIC_REDISTRIBUTOR_LEN * u64::from(vcpus.max(1)),
            },
            its: features.its.then_some(GIC_ITS),
        }
    };
    Platform {
        arch: Arch::Aarch64,
        memory: memory_map(memory),
        cpus: (0..vcpus).map(|index| Cpu { index, hardware_id: mpidr(index) }).collect(),
        interrupts,
        private_interrupts: Some(PrivateInterrupts {
            performance_monitors: features.performance_monitors.then_some(PMU_INTID),
            ..PRIVATE_INTERRUPTS
        }),
        power: PowerControl::PsciHvc,
        devices,
        console,
        error_sources: vec![],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn affinities_are_distinct_and_sixteen_to_a_cluster() {
        assert_eq!([0, 15, 16, 255, 256, 511].map(mpidr), [0, 0xf, 0x100, 0xf0f, 0x1000, 0x1f0f]);
    }

    #[test]
    fn redistributors_of_512_processors_end_below_ram() {
        let features = Features { gic: 3, its: true, performance_monitors: true };
        let platform = platform(512, 1 << 30, features, vec![], None);
        let InterruptController::Gicv3 { redistributors, .. } = platform.interrupts else {
            panic!("a GICv3")
        };
        assert!(redistributors.end() <= RAM_START);
    }
}
