//! The address map of an x86_64 machine, and its fixed parts.
//!
//! [`Layout::REFERENCE`]:
//!
//! ```text
//!           0 .. 9_fc00        usable
//!      9_fc00 .. a_0000        reserved: the last KiB of base memory, where guests search for an MP floating pointer
//!      d_f000 .. e_0000        reserved: the generation id
//!      e_0000 .. 10_0000       reserved: firmware tables, where guests search for an RSDP (ACPI 6.5, 5.2.5.1); the reset
//!                              vector at its end
//!     10_0000 .. c000_0000     usable, up to the end of RAM
//!   c000_0000 .. 1_0000_0000   the hole: devices, I/O APIC, local APICs
//! 1_0000_0000 ..               usable: the RAM that the hole displaces
//! ```

use crate::memory::{MemoryMap, Range, Region, RegionKind};
use crate::{Arch, Cpu, DeviceNode, InterruptController, IoApic, Platform, PowerControl, Window};

/// Addresses and interrupts of an x86_64 machine that a PC does not fix.
///
/// Fields are independent: nothing checks that a changed one does not overlap another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// End of the usable base memory (the start of the EBDA), below [`BASE_MEMORY_END`].
    pub ebda_start: u64,
    /// The page of the generation id, in RAM below the tables. Guests search this part of a PC's memory for the ROMs of adapters, and
    /// use none of it as memory.
    pub generation_id: Range,
    /// Start of the area for firmware tables, below [`RESET_VECTOR`], where it ends. Guests search for an RSDP from
    /// e_0000 and for an MP floating pointer from f_0000 on.
    pub tables_start: u64,
    /// Start of the hole below [`HOLE_END`]: no RAM, registers only.
    pub hole_start: u64,
    /// virtio-mmio transports, one page each.
    pub virtio_mmio: Range,
    /// GSIs of the virtio-mmio transports, in their order.
    pub virtio_gsis: &'static [u32],
    /// GPA of the Generic Event Device.
    pub ged_base: u64,
    /// GSI of the Generic Event Device.
    pub ged_gsi: u32,
    /// GPA of the registers of a store for error records: one page.
    pub error_serialization_base: u64,
    /// GPA of the registers of error injection: one page.
    pub error_injection_base: u64,
    /// GPA of the I/O APIC. KVM's irqchip: fec0_0000.
    pub io_apic_base: u64,
    /// GPA of the local APICs. KVM's irqchip: fee0_0000.
    pub local_apic_base: u64,
    /// Three pages that KVM uses on Intel hosts (KVM_SET_TSS_ADDR), reserved in the memory map.
    pub kvm_tss: Range,
    /// One page that KVM uses on Intel hosts (KVM_SET_IDENTITY_MAP_ADDR), reserved in the memory map, directly below
    /// [`kvm_tss`](Self::kvm_tss).
    pub kvm_identity_map: Range,
    /// First port of the serial port.
    pub serial_port: u16,
    /// GSI of the serial port.
    pub serial_gsi: u32,
    /// First port of the real-time clock.
    pub rtc_port: u16,
    /// GSI of the real-time clock.
    pub rtc_gsi: u32,
    /// GSI of an error source that has its own interrupt: an ISA line (1, 3 to 15).
    pub error_gsi: u32,
    /// Port of the sleep control register; the sleep status and reset registers follow, one byte each.
    pub power_port: u16,
    /// RESET_VALUE: the value that the guest writes to the reset register.
    pub reset_value: u8,
    /// SLP_TYP of the S5 state (0 to 7).
    pub s5_sleep_type: u8,
    /// Data port of the keyboard controller; the command port is four ports above.
    pub i8042_data_port: u16,
}

impl Layout {
    /// The reference layout; see the [module documentation](self).
    pub const REFERENCE: Layout = Layout {
        ebda_start: 0x9_fc00,
        generation_id: Range { start: 0xd_f000, len: 0x1000 },
        tables_start: 0xe_0000,
        hole_start: 0xc000_0000,
        virtio_mmio: Range { start: 0xd000_0000, len: 0x10_0000 },
        // The last is the I/O APIC's last pin. 12 is the keyboard controller's mouse on a PC: not used.
        virtio_gsis: &[5, 10, 11, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23],
        ged_base: 0xd010_0000,
        ged_gsi: 9,
        error_serialization_base: 0xd010_2000,
        error_injection_base: 0xd010_1000,
        io_apic_base: 0xfec0_0000,
        local_apic_base: 0xfee0_0000,
        kvm_tss: Range { start: 0xfffb_d000, len: 0x3000 },
        kvm_identity_map: Range { start: 0xfffb_c000, len: 0x1000 },
        serial_port: 0x3f8,
        serial_gsi: 4,
        rtc_port: 0x70,
        rtc_gsi: 8,
        error_gsi: 13,
        power_port: 0x600,
        reset_value: 0x01,
        s5_sleep_type: 5,
        i8042_data_port: 0x60,
    };
}

/// End of base memory on a PC.
pub const BASE_MEMORY_END: u64 = 0xa_0000;
/// The reset vector in real mode (f000:fff0).
pub const RESET_VECTOR: u64 = 0xf_fff0;
/// Start of extended memory.
pub const EXTENDED_MEMORY_START: u64 = 0x10_0000;
/// End of the hole below 4 GiB.
pub const HOLE_END: u64 = 0x1_0000_0000;
/// The minimum size of RAM in bytes.
pub const MIN_MEMORY: u64 = 2 << 20;
/// Bytes of one virtio-mmio transport's page.
pub const VIRTIO_MMIO_STRIDE: u64 = 0x1000;

/// [`Layout::generation_id`] of the reference layout.
pub const GENERATION_ID: Range = Layout::REFERENCE.generation_id;
/// [`Layout::tables_start`] of the reference layout.
pub const TABLES_START: u64 = Layout::REFERENCE.tables_start;
/// [`Layout::virtio_mmio`] of the reference layout.
pub const VIRTIO_MMIO: Range = Layout::REFERENCE.virtio_mmio;
/// [`Layout::virtio_gsis`] of the reference layout.
pub const VIRTIO_GSIS: &[u32] = Layout::REFERENCE.virtio_gsis;
/// [`Layout::ged_base`] of the reference layout.
pub const GED_BASE: u64 = Layout::REFERENCE.ged_base;
/// [`Layout::ged_gsi`] of the reference layout.
pub const GED_GSI: u32 = Layout::REFERENCE.ged_gsi;
/// [`Layout::error_serialization_base`] of the reference layout.
pub const ERROR_SERIALIZATION_BASE: u64 = Layout::REFERENCE.error_serialization_base;
/// [`Layout::error_injection_base`] of the reference layout.
pub const ERROR_INJECTION_BASE: u64 = Layout::REFERENCE.error_injection_base;
/// [`Layout::kvm_tss`] of the reference layout.
pub const KVM_TSS: Range = Layout::REFERENCE.kvm_tss;
/// [`Layout::kvm_identity_map`] of the reference layout.
pub const KVM_IDENTITY_MAP: Range = Layout::REFERENCE.kvm_identity_map;
/// [`Layout::serial_port`] of the reference layout.
pub const SERIAL_PORT: u16 = Layout::REFERENCE.serial_port;
/// [`Layout::serial_gsi`] of the reference layout.
pub const SERIAL_GSI: u32 = Layout::REFERENCE.serial_gsi;
/// [`Layout::rtc_port`] of the reference layout.
pub const RTC_PORT: u16 = Layout::REFERENCE.rtc_port;
/// [`Layout::rtc_gsi`] of the reference layout.
pub const RTC_GSI: u32 = Layout::REFERENCE.rtc_gsi;
/// [`Layout::error_gsi`] of the reference layout.
pub const ERROR_GSI: u32 = Layout::REFERENCE.error_gsi;
/// [`Layout::power_port`] of the reference layout.
pub const POWER_PORT: u16 = Layout::REFERENCE.power_port;
/// [`Layout::reset_value`] of the reference layout.
pub const RESET_VALUE: u8 = Layout::REFERENCE.reset_value;
/// [`Layout::s5_sleep_type`] of the reference layout.
pub const S5_SLEEP_TYPE: u8 = Layout::REFERENCE.s5_sleep_type;
/// [`Layout::i8042_data_port`] of the reference layout.
pub const I8042_DATA_PORT: u16 = Layout::REFERENCE.i8042_data_port;

/// The memory map of a machine with `size` bytes of RAM, a multiple of 4 KiB and at least [`MIN_MEMORY`].
///
/// RAM is contiguous below the hole: a_0000 to d_ffff is RAM too, but except for the generation id in no region of the memory map.
///
/// # Panics
/// Panics if addresses of `layout` are not in the order that their documentation gives.
#[must_use]
pub fn memory_map(layout: &Layout, size: u64) -> MemoryMap {
    let size = size.max(MIN_MEMORY);
    let low_end = size.min(layout.hole_start);
    let mut ram = vec![Range::between(0, low_end)];
    let region = |start, end, kind| Region { range: Range::between(start, end), kind };
    let mut regions = vec![
        region(0, layout.ebda_start, RegionKind::Usable),
        region(layout.ebda_start, BASE_MEMORY_END, RegionKind::Reserved),
        Region { range: layout.generation_id, kind: RegionKind::Reserved },
        region(layout.tables_start, EXTENDED_MEMORY_START, RegionKind::Reserved),
        region(EXTENDED_MEMORY_START, low_end, RegionKind::Usable),
        Region { range: layout.kvm_identity_map, kind: RegionKind::Reserved },
        Region { range: layout.kvm_tss, kind: RegionKind::Reserved },
    ];
    if size > layout.hole_start {
        let high = Range { start: HOLE_END, len: size - layout.hole_start };
        ram.push(high);
        regions.push(Region { range: high, kind: RegionKind::Usable });
    }
    MemoryMap {
        ram,
        regions,
        tables: Range::between(layout.tables_start, RESET_VECTOR),
        devicetree: None,
        records: None,
        boot_record: None,
        error_log: None,
    }
}

/// A machine with the fixed parts of `layout` and these devices; `memory` is the size of RAM in bytes.
///
/// # Panics
/// Panics if addresses of `layout` are not in the order that their documentation gives.
#[must_use]
pub fn platform(
    layout: &Layout,
    vcpus: u32,
    memory: u64,
    devices: Vec<DeviceNode>,
    console: Option<&'static str>,
) -> Platform {
    let power_register = |offset| Window::Ports { base: layout.power_port + offset, len: 1 };
    Platform {
        arch: Arch::X86_64,
        memory: memory_map(layout, memory),
        cpus: (0..vcpus).map(|index| Cpu { index, hardware_id: u64::from(index) }).collect(),
        interrupts: InterruptController::Apic {
            local_base: layout.local_apic_base,
            // A unique id if it fits into eight bits: an MP table requires ids to be unique.
            io_apic: IoApic { id: u8::try_from(vcpus).unwrap_or(0), base: layout.io_apic_base, gsi_base: 0 },
        },
        private_interrupts: None,
        power: PowerControl::AcpiRegisters {
            sleep_control: power_register(0),
            sleep_status: power_register(1),
            reset: power_register(2),
            reset_value: layout.reset_value,
            s5_sleep_type: layout.s5_sleep_type,
        },
        devices,
        clocks: vec![],
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
    fn memory_beyond_the_hole_is_above_4_gib() {
        let map = memory_map(&LAYOUT, 6 << 30);
        assert_eq!(map.ram.last(), Some(&Range { start: 4 << 30, len: 3 << 30 }));
        assert_eq!(map.ram[0].end(), LAYOUT.hole_start);
        assert_eq!(map.ram_size(), 6 << 30);
    }

    #[test]
    fn regions_ascend_and_do_not_overlap() {
        for size in [MIN_MEMORY, 64 << 20, LAYOUT.hole_start, LAYOUT.hole_start + 4096, 512 << 30] {
            let map = memory_map(&LAYOUT, size);
            for pair in map.regions.windows(2) {
                assert!(pair[0].range.end() <= pair[1].range.start, "{pair:x?}");
            }
            for pair in map.ram.windows(2) {
                assert!(pair[0].end() < pair[1].start, "{pair:x?}");
            }
            assert!(map.is_ram(map.tables));
        }
    }

    #[test]
    fn registers_of_the_reference_layout_are_in_the_hole_and_do_not_overlap() {
        let page = |start| Range { start, len: 0x1000 };
        let registers = [
            LAYOUT.virtio_mmio,
            page(LAYOUT.ged_base),
            page(LAYOUT.error_injection_base),
            page(LAYOUT.error_serialization_base),
            page(LAYOUT.io_apic_base),
            page(LAYOUT.local_apic_base),
            LAYOUT.kvm_identity_map,
            LAYOUT.kvm_tss,
        ];
        assert!(registers.windows(2).all(|pair| pair[0].end() <= pair[1].start), "{registers:x?}");
        assert!(registers[0].start >= LAYOUT.hole_start && registers[7].end() <= HOLE_END);
    }

    #[test]
    fn a_layout_moves_what_it_names() {
        let layout = Layout { hole_start: 0x8000_0000, power_port: 0x700, ..LAYOUT };
        let machine = platform(&layout, 1, 3 << 30, vec![], None);
        assert_eq!(machine.memory.ram[0].end(), 2 << 30);
        let PowerControl::AcpiRegisters { reset, .. } = machine.power else { panic!("ACPI registers") };
        assert_eq!(reset, Window::Ports { base: 0x702, len: 1 });
    }
}
