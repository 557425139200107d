//! The address map of an x86_64 machine, and its fixed parts.
//!
//! ```text
//!           0 .. 9_fc00        usable
//!      9_fc00 .. a_0000        reserved: the last KiB of base memory, where an MP floating pointer is looked for
//!      e_0000 .. 10_0000       reserved: firmware tables, where an RSDP is looked for (ACPI 6.5, 5.2.5.1); the reset
//!                              vector at its end
//!     10_0000 .. c000_0000     usable, as far as memory goes
//!   c000_0000 .. 1_0000_0000   the hole: devices, I/O APIC, local APICs
//! 1_0000_0000 ..               usable: what the hole displaced
//! ```

use crate::memory::{MemoryMap, Range, Region, RegionKind};
use crate::{Arch, Cpu, DeviceNode, InterruptController, IoApic, Platform, PowerControl, Window};

/// End of the base memory that a guest may use.
pub const EBDA_START: u64 = 0x9_fc00;
/// End of base memory.
pub const BASE_MEMORY_END: u64 = 0xa_0000;
/// Start of the area for firmware tables.
pub const TABLES_START: u64 = 0xe_0000;
/// The reset vector, as real mode knows it: where a PC that is told to start over jumps (f000:fff0).
pub const RESET_VECTOR: u64 = 0xf_fff0;
/// Start of extended memory.
pub const EXTENDED_MEMORY_START: u64 = 0x10_0000;
/// Start of the hole below 4 GiB.
pub const HOLE_START: u64 = 0xc000_0000;
/// End of the hole.
pub const HOLE_END: u64 = 0x1_0000_0000;

/// The page-aligned blocks in which virtio-mmio transports lie, one each.
pub const VIRTIO_MMIO: Range = Range { start: 0xd000_0000, len: 0x10_0000 };
/// Bytes of one virtio-mmio transport.
pub const VIRTIO_MMIO_STRIDE: u64 = 0x1000;
/// Generic Event Device: its selector, and after it the loopback register (see `devices::ged`).
pub const GED_BASE: u64 = 0xd010_0000;
/// Bytes of the Generic Event Device's registers.
pub const GED_LEN: u64 = 8;
/// I/O APIC, as KVM places it.
pub const IO_APIC_BASE: u64 = 0xfec0_0000;
/// Local APICs, as KVM places them.
pub const LOCAL_APIC_BASE: u64 = 0xfee0_0000;
/// Three pages that KVM uses for itself on Intel (KVM_SET_TSS_ADDR), told to the guest as reserved.
pub const KVM_TSS: Range = Range { start: 0xfffb_d000, len: 0x3000 };
/// One page that KVM uses for itself on Intel (KVM_SET_IDENTITY_MAP_ADDR).
pub const KVM_IDENTITY_MAP: Range = Range { start: 0xfffb_c000, len: 0x1000 };

/// GSI of the first serial port (ISA 4).
pub const SERIAL_GSI: u32 = 4;
/// First port of the first serial port.
pub const SERIAL_PORT: u16 = 0x3f8;
/// GSI of the real-time clock (ISA 8).
pub const RTC_GSI: u32 = 8;
/// First port of the real-time clock.
pub const RTC_PORT: u16 = 0x70;
/// GSI of the Generic Event Device.
pub const GED_GSI: u32 = 9;
/// GSI of an error source that has an interrupt of its own (ISA 13).
pub const ERROR_GSI: u32 = 13;
/// First GSI for virtio-mmio; the last is 23, the I/O APIC's last pin. 12 is left to the keyboard controller's mouse.
pub const VIRTIO_GSIS: &[u32] = &[5, 10, 11, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23];
/// Sleep control, sleep status and reset registers.
pub const POWER_PORT: u16 = 0x600;
/// What the guest writes to the reset register.
pub const RESET_VALUE: u8 = 0x01;
/// SLP_TYP of S5.
pub const S5_SLEEP_TYPE: u8 = 5;
/// Keyboard controller's data port.
pub const I8042_DATA_PORT: u16 = 0x60;
/// Keyboard controller's command port: 0xfe pulses the processor's reset line.
pub const I8042_COMMAND_PORT: u16 = 0x64;

/// The least memory that the map has room for.
pub const MIN_MEMORY: u64 = 2 << 20;

/// The memory map of a machine with `size` bytes of RAM, a multiple of 4 KiB and at least [`MIN_MEMORY`].
///
/// RAM is contiguous below the hole: what a PC shows at a_0000 to d_ffff is RAM too, and no region tells the guest of it.
#[must_use]
pub fn memory_map(size: u64) -> MemoryMap {
    let size = size.max(MIN_MEMORY);
    let low_end = size.min(HOLE_START);
    let mut ram = vec![Range::between(0, low_end)];
    let region = |start, end, kind| Region { range: Range::between(start, end), kind };
    let mut regions = vec![
        region(0, EBDA_START, RegionKind::Usable),
        region(EBDA_START, BASE_MEMORY_END, RegionKind::Reserved),
        region(TABLES_START, EXTENDED_MEMORY_START, RegionKind::Reserved),
        region(EXTENDED_MEMORY_START, low_end, RegionKind::Usable),
        Region { range: KVM_IDENTITY_MAP, kind: RegionKind::Reserved },
        Region { range: KVM_TSS, kind: RegionKind::Reserved },
    ];
    if size > HOLE_START {
        let high = Range { start: HOLE_END, len: size - HOLE_START };
        ram.push(high);
        regions.push(Region { range: high, kind: RegionKind::Usable });
    }
    MemoryMap { ram, regions, tables: Range::between(TABLES_START, RESET_VECTOR), records: None }
}

/// The machine with its fixed parts and the given devices.
#[must_use]
pub fn platform(
    vcpus: u32,
    memory: u64,
    devices: Vec<DeviceNode>,
    console: Option<&'static str>,
) -> Platform {
    Platform {
        arch: Arch::X86_64,
        memory: memory_map(memory),
        cpus: (0..vcpus).map(|index| Cpu { index, hardware_id: u64::from(index) }).collect(),
        interrupts: InterruptController::Apic {
            local_base: LOCAL_APIC_BASE,
            // An id of its own where the eight bits allow it: an MP table wants ids to be unique.
            io_apic: IoApic { id: u8::try_from(vcpus).unwrap_or(0), base: IO_APIC_BASE, gsi_base: 0 },
        },
        private_interrupts: None,
        power: PowerControl::AcpiRegisters {
            sleep_control: Window::Ports { base: POWER_PORT, len: 1 },
            sleep_status: Window::Ports { base: POWER_PORT + 1, len: 1 },
            reset: Window::Ports { base: POWER_PORT + 2, len: 1 },
            reset_value: RESET_VALUE,
            s5_sleep_type: S5_SLEEP_TYPE,
        },
        devices,
        console,
        error_sources: vec![],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_beyond_the_hole_goes_above_4_gib() {
        let map = memory_map(6 << 30);
        assert_eq!(map.ram.last(), Some(&Range { start: 4 << 30, len: 3 << 30 }));
        assert_eq!(map.ram[0].end(), HOLE_START);
        assert_eq!(map.ram_size(), 6 << 30);
    }

    #[test]
    fn regions_ascend_and_do_not_overlap() {
        for size in [MIN_MEMORY, 64 << 20, HOLE_START, HOLE_START + 4096, 512 << 30] {
            let map = memory_map(size);
            for pair in map.regions.windows(2) {
                assert!(pair[0].range.end() <= pair[1].range.start, "{pair:x?}");
            }
            for pair in map.ram.windows(2) {
                assert!(pair[0].end() < pair[1].start, "{pair:x?}");
            }
            assert!(map.is_ram(map.tables));
        }
    }
}
