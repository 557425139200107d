//! The address map of an aarch64 machine, and its fixed parts.
//!
//! [`Layout::REFERENCE`]:
//!
//! ```text
//!   800_0000 .. 801_0000     GIC distributor (GICv2: its CPU interface at 802_0000)
//!   808_0000 .. 80a_0000     Interrupt Translation Service, if a device sends MSIs
//!   900_0000                 PL011 serial port
//!   901_0000                 PL031 real-time clock
//!   903_0000                 Generic Event Device
//!   904_0000                 error injection
//!   905_0000                 store for error records
//!   a00_0000 .. a10_0000     virtio-mmio transports, one page each
//!  1000_0000 .. 1400_0000    GIC redistributors, 128 KiB for each of up to 512 processors
//!  4000_0000 .. 400f_0000    RAM: tables that the guest reads once (ACPI, EFI), ACPI reclaimable
//!  400f_0000 .. 4010_0000    RAM, reserved: the generation id
//!  4010_0000 .. 4020_0000    RAM, usable: the devicetree
//!  4020_0000 ..              RAM, usable: kernel and initrd
//! ```
//!
//! Interrupts are INTIDs: SPI n is INTID 32 + n, PPI n is INTID 16 + n.

use crate::memory::{MemoryMap, Range, Region, RegionKind};
use crate::{
    Arch, Cpu, DeviceNode, FixedClock, InterruptController, Platform, PowerControl, PrivateInterrupts,
};

/// Addresses and interrupts of an aarch64 machine.
///
/// Fields are independent: nothing checks that a changed one does not overlap another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Frames of a GICv3 distributor: 64 KiB.
    pub gic_distributor: Range,
    /// Registers of a GICv2 distributor: 4 KiB.
    pub gicv2_distributor: Range,
    /// GICv2 CPU interface: 8 KiB.
    pub gicv2_cpu_interface: Range,
    /// Frames of the Interrupt Translation Service: 128 KiB.
    pub gic_its: Range,
    /// GPA of the first GICv3 redistributor; each processor has [`GIC_REDISTRIBUTOR_LEN`] bytes.
    pub gic_redistributors: u64,
    /// GPA of the serial port: one page.
    pub serial_base: u64,
    /// INTID of the serial port.
    pub serial_intid: u32,
    /// GPA of the real-time clock: one page.
    pub rtc_base: u64,
    /// INTID of the real-time clock.
    pub rtc_intid: u32,
    /// INTID of the power button (devicetree).
    pub power_button_intid: u32,
    /// GPA of the Generic Event Device.
    pub ged_base: u64,
    /// INTID of the Generic Event Device.
    pub ged_intid: u32,
    /// GPA of the registers of a store for error records: one page, in a block of 64 KiB of its own.
    pub error_serialization_base: u64,
    /// GPA of the registers of error injection: one page, in a block of 64 KiB of its own.
    pub error_injection_base: u64,
    /// INTID of an error source that has its own interrupt (devicetree).
    pub error_intid: u32,
    /// INTID of the generation id (devicetree).
    pub generation_intid: u32,
    /// virtio-mmio transports, one page each.
    pub virtio_mmio: Range,
    /// INTID of the first virtio-mmio transport; each further transport has the next INTID.
    pub virtio_first_intid: u32,
    /// The processors' private interrupts, including that of a PMU.
    pub private_interrupts: PrivateInterrupts,
    /// The clock of the peripheral bus.
    pub apb_clock: FixedClock,
    /// GPA of RAM. A multiple of 2 MiB.
    pub ram_start: u64,
    /// Length in bytes, from the start of RAM, of the area for tables. A multiple of 64 KiB.
    pub tables_len: u64,
    /// The block of the generation id, in RAM behind the tables. A multiple of 64 KiB, so that a kernel with 64 KiB pages maps nothing
    /// else with it.
    pub generation_id: Range,
    /// The area for the devicetree, in RAM behind the generation id. Linux allows at most 2 MiB
    /// (`Documentation/arch/arm64/booting.rst`).
    pub devicetree: Range,
    /// The lowest GPA of a kernel image, behind the devicetree. A multiple of 2 MiB.
    pub kernel_start: u64,
}

impl Layout {
    /// The reference layout; see the [module documentation](self).
    pub const REFERENCE: Layout = Layout {
        gic_distributor: Range { start: 0x800_0000, len: 0x1_0000 },
        gicv2_distributor: Range { start: 0x800_0000, len: 0x1000 },
        gicv2_cpu_interface: Range { start: 0x802_0000, len: 0x2000 },
        gic_its: Range { start: 0x808_0000, len: 0x2_0000 },
        gic_redistributors: 0x1000_0000,
        serial_base: 0x900_0000,
        serial_intid: 33,
        rtc_base: 0x901_0000,
        rtc_intid: 34,
        power_button_intid: 35,
        ged_base: 0x903_0000,
        ged_intid: 36,
        error_serialization_base: 0x905_0000,
        error_injection_base: 0x904_0000,
        error_intid: 37,
        generation_intid: 38,
        virtio_mmio: Range { start: 0xa00_0000, len: 0x10_0000 },
        virtio_first_intid: 48,
        // As Arm's Base System Architecture numbers them (DEN0094C, table 3).
        private_interrupts: PrivateInterrupts {
            secure_timer: 29,
            physical_timer: 30,
            virtual_timer: 27,
            hypervisor_timer: 26,
            performance_monitors: Some(23),
        },
        apb_clock: FixedClock { name: "apb-pclk", hz: 24_000_000 },
        ram_start: 0x4000_0000,
        tables_len: 0xf_0000,
        generation_id: Range { start: 0x400f_0000, len: 0x1_0000 },
        devicetree: Range { start: 0x4010_0000, len: 0x10_0000 },
        kernel_start: 0x4020_0000,
    };
}

/// Bytes of one processor's GICv3 redistributor: an RD and an SGI frame of 64 KiB each (Arm IHI 0069).
pub const GIC_REDISTRIBUTOR_LEN: u64 = 0x2_0000;

/// [`Layout::gic_distributor`] of the reference layout.
pub const GIC_DISTRIBUTOR: Range = Layout::REFERENCE.gic_distributor;
/// [`Layout::gicv2_cpu_interface`] of the reference layout.
pub const GICV2_CPU_INTERFACE: Range = Layout::REFERENCE.gicv2_cpu_interface;
/// [`Layout::gic_redistributors`] of the reference layout.
pub const GIC_REDISTRIBUTORS: u64 = Layout::REFERENCE.gic_redistributors;
/// [`Layout::serial_base`] of the reference layout.
pub const SERIAL_BASE: u64 = Layout::REFERENCE.serial_base;
/// [`Layout::serial_intid`] of the reference layout.
pub const SERIAL_INTID: u32 = Layout::REFERENCE.serial_intid;
/// [`Layout::rtc_base`] of the reference layout.
pub const RTC_BASE: u64 = Layout::REFERENCE.rtc_base;
/// [`Layout::rtc_intid`] of the reference layout.
pub const RTC_INTID: u32 = Layout::REFERENCE.rtc_intid;
/// [`Layout::power_button_intid`] of the reference layout.
pub const POWER_BUTTON_INTID: u32 = Layout::REFERENCE.power_button_intid;
/// [`Layout::ged_base`] of the reference layout.
pub const GED_BASE: u64 = Layout::REFERENCE.ged_base;
/// [`Layout::ged_intid`] of the reference layout.
pub const GED_INTID: u32 = Layout::REFERENCE.ged_intid;
/// [`Layout::error_serialization_base`] of the reference layout.
pub const ERROR_SERIALIZATION_BASE: u64 = Layout::REFERENCE.error_serialization_base;
/// [`Layout::error_injection_base`] of the reference layout.
pub const ERROR_INJECTION_BASE: u64 = Layout::REFERENCE.error_injection_base;
/// [`Layout::error_intid`] of the reference layout.
pub const ERROR_INTID: u32 = Layout::REFERENCE.error_intid;
/// [`Layout::generation_intid`] of the reference layout.
pub const GENERATION_INTID: u32 = Layout::REFERENCE.generation_intid;
/// [`Layout::virtio_mmio`] of the reference layout.
pub const VIRTIO_MMIO: Range = Layout::REFERENCE.virtio_mmio;
/// [`Layout::virtio_first_intid`] of the reference layout.
pub const VIRTIO_FIRST_INTID: u32 = Layout::REFERENCE.virtio_first_intid;
/// The name of [`Layout::apb_clock`] of the reference layout.
pub const APB_CLOCK: &str = Layout::REFERENCE.apb_clock.name;
/// The frequency in Hz of [`Layout::apb_clock`] of the reference layout.
pub const APB_CLOCK_HZ: u32 = Layout::REFERENCE.apb_clock.hz;
/// [`Layout::ram_start`] of the reference layout.
pub const RAM_START: u64 = Layout::REFERENCE.ram_start;
/// [`Layout::tables_len`] of the reference layout.
pub const TABLES_LEN: u64 = Layout::REFERENCE.tables_len;
/// [`Layout::generation_id`] of the reference layout.
pub const GENERATION_ID: Range = Layout::REFERENCE.generation_id;
/// [`Layout::kernel_start`] of the reference layout.
pub const KERNEL_START: u64 = Layout::REFERENCE.kernel_start;

/// What a host's GIC and processors support beyond what every machine has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// Version of the GIC: 2 or 3.
    pub gic: u8,
    /// Whether processors have performance monitors (PMUv3).
    pub performance_monitors: bool,
}

impl Default for Features {
    /// What most hosts support. Used for tables that are built without a host.
    fn default() -> Self {
        Features { gic: 3, performance_monitors: true }
    }
}

/// The memory map of a machine with `size` bytes of RAM, a multiple of 4 KiB that reaches beyond [`Layout::generation_id`].
///
/// # Panics
/// Panics if RAM of that size ends at or below the end of the generation id.
#[must_use]
pub fn memory_map(layout: &Layout, size: u64) -> MemoryMap {
    let ram = Range { start: layout.ram_start, len: size };
    let tables = Range { start: layout.ram_start, len: layout.tables_len };
    MemoryMap {
        ram: vec![ram],
        regions: vec![
            Region { range: tables, kind: RegionKind::AcpiReclaim },
            Region { range: layout.generation_id, kind: RegionKind::Reserved },
            Region { range: Range::between(layout.generation_id.end(), ram.end()), kind: RegionKind::Usable },
        ],
        tables,
        devicetree: Some(layout.devicetree),
        records: None,
        boot_record: None,
        error_log: None,
    }
}

/// The MPIDR affinity (Aff0 to Aff2) that KVM gives to the vCPU with this id: 16 vCPUs per cluster, as required by
/// the target list of a GICv3 SGI.
#[must_use]
pub const fn mpidr(index: u32) -> u64 {
    let index = index as u64;
    (index & 0xf) | ((index >> 4) & 0xff) << 8 | ((index >> 12) & 0xff) << 16
}

/// A machine with the fixed parts of `layout` and these devices; `memory` is the size of RAM in bytes.
///
/// It has an ITS if the GIC is a GICv3 and a device sends message-signalled interrupts.
///
/// # Panics
/// Panics if RAM of that size ends at or below the end of the generation id.
#[must_use]
pub fn platform(
    layout: &Layout,
    vcpus: u32,
    memory: u64,
    features: Features,
    devices: Vec<DeviceNode>,
    console: Option<&'static str>,
) -> Platform {
    let interrupts = if features.gic == 2 {
        InterruptController::Gicv2 {
            distributor: layout.gicv2_distributor,
            cpu_interface: layout.gicv2_cpu_interface,
        }
    } else {
        InterruptController::Gicv3 {
            distributor: layout.gic_distributor,
            redistributors: Range {
                start: layout.gic_redistributors,
                len: GIC_REDISTRIBUTOR_LEN * u64::from(vcpus.max(1)),
            },
            its: devices.iter().any(|device| device.msi).then_some(layout.gic_its),
        }
    };
    let mut private_interrupts = layout.private_interrupts;
    if !features.performance_monitors {
        private_interrupts.performance_monitors = None;
    }
    Platform {
        arch: Arch::Aarch64,
        memory: memory_map(layout, memory),
        cpus: (0..vcpus).map(|index| Cpu { index, hardware_id: mpidr(index) }).collect(),
        interrupts,
        private_interrupts: Some(private_interrupts),
        power: PowerControl::PsciHvc,
        devices,
        clocks: vec![layout.apb_clock],
        console,
        error_sources: vec![],
        error_injection: None,
        error_serialization: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAYOUT: Layout = Layout::REFERENCE;

    #[test]
    fn affinities_are_distinct_with_sixteen_per_cluster() {
        assert_eq!([0, 15, 16, 255, 256, 511].map(mpidr), [0, 0xf, 0x100, 0xf0f, 0x1000, 0x1f0f]);
    }

    #[test]
    fn redistributors_of_512_processors_end_below_ram() {
        let platform = platform(&LAYOUT, 512, 1 << 30, Features::default(), vec![], None);
        let InterruptController::Gicv3 { redistributors, .. } = platform.interrupts else {
            panic!("a GICv3")
        };
        assert!(redistributors.end() <= LAYOUT.ram_start);
    }

    #[test]
    fn registers_of_the_reference_layout_do_not_overlap() {
        let page = |start| Range { start, len: 0x1000 };
        let registers = [
            LAYOUT.gic_distributor,
            LAYOUT.gicv2_cpu_interface,
            LAYOUT.gic_its,
            page(LAYOUT.serial_base),
            page(LAYOUT.rtc_base),
            page(LAYOUT.ged_base),
            page(LAYOUT.error_injection_base),
            page(LAYOUT.error_serialization_base),
            LAYOUT.virtio_mmio,
            page(LAYOUT.gic_redistributors),
            page(LAYOUT.ram_start),
        ];
        assert!(registers.windows(2).all(|pair| pair[0].end() <= pair[1].start), "{registers:x?}");
        assert_eq!(LAYOUT.ram_start + LAYOUT.tables_len, LAYOUT.generation_id.start);
        assert_eq!(LAYOUT.generation_id.end(), LAYOUT.devicetree.start);
        assert_eq!(LAYOUT.devicetree.end(), LAYOUT.kernel_start);
    }

    #[test]
    fn a_machine_has_an_its_only_if_a_device_sends_msis() {
        let its = |gic, devices| {
            let features = Features { gic, performance_monitors: true };
            match platform(&LAYOUT, 1, 1 << 30, features, devices, None).interrupts {
                InterruptController::Gicv3 { its, .. } => its,
                _ => None,
            }
        };
        let sender = || vec![DeviceNode::new("line"), DeviceNode::new("sender").msi()];
        assert_eq!(its(3, vec![DeviceNode::new("line")]), None);
        assert_eq!(its(3, sender()), Some(LAYOUT.gic_its));
        assert_eq!(its(2, sender()), None);
    }
}
