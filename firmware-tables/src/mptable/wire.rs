//! The structures of the Intel MultiProcessor Specification, version 1.4 (May 1997).

use zerocopy::little_endian::{U16, U32};
use zerocopy::{Immutable, IntoBytes, Unaligned};

/// Specification revision 1.4.
pub(super) const REVISION_1_4: u8 = 4;

/// Version of KVM's local APICs (integrated). Guests compare it with the version register.
const LOCAL_APIC_VERSION: u8 = 0x14;
/// Version of KVM's I/O APIC.
const IO_APIC_VERSION: u8 = 0x11;

/// MP floating pointer structure (4.1, table 4-1).
#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct FloatingPointer {
    pub(super) signature: [u8; 4],
    pub(super) table: U32,
    /// Length of this structure, in units of 16 bytes.
    pub(super) paragraphs: u8,
    pub(super) revision: u8,
    pub(super) checksum: u8,
    /// Feature byte 1.
    pub(super) default_configuration: u8,
    /// Feature bytes 2 to 5. Bit 7 of the first, IMCRP, is clear: virtual wire mode.
    pub(super) features: [u8; 4],
}

const _: () = assert!(size_of::<FloatingPointer>() == 16);

/// MP configuration table header (4.2, table 4-2).
#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct Header {
    pub(super) signature: [u8; 4],
    pub(super) length: U16,
    pub(super) revision: u8,
    pub(super) checksum: u8,
    pub(super) oem_id: [u8; 8],
    pub(super) product_id: [u8; 12],
    pub(super) oem_table: U32,
    pub(super) oem_table_len: U16,
    pub(super) entry_count: U16,
    pub(super) local_apic: U32,
    pub(super) extended_len: U16,
    pub(super) extended_checksum: u8,
    pub(super) reserved: u8,
}

const _: () = assert!(size_of::<Header>() == 44);

/// Processor entry (4.3.1, table 4-4).
#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct Processor {
    entry_type: u8,
    apic_id: u8,
    apic_version: u8,
    flags: u8,
    signature: U32,
    features: U32,
    reserved: [U32; 2],
}

const _: () = assert!(size_of::<Processor>() == 20);

impl Processor {
    pub(super) fn new(apic_id: u8, boot: bool) -> Self {
        const ENABLED: u8 = 1 << 0;
        const BOOT: u8 = 1 << 1;
        /// Family 6 (table 4-5). Guests use CPUID instead.
        const FAMILY_6: u32 = 0x600;
        /// FPU, MCE, CX8, APIC: all of table 4-6, present in every 64-bit processor.
        const FEATURES: u32 = 1 << 0 | 1 << 7 | 1 << 8 | 1 << 9;
        Processor {
            entry_type: 0,
            apic_id,
            apic_version: LOCAL_APIC_VERSION,
            flags: if boot { ENABLED | BOOT } else { ENABLED },
            signature: U32::new(FAMILY_6),
            features: U32::new(FEATURES),
            reserved: [U32::ZERO; 2],
        }
    }
}

/// Bus entry (4.3.2, table 4-7).
#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct Bus {
    entry_type: u8,
    id: u8,
    bus_type: [u8; 6],
}

const _: () = assert!(size_of::<Bus>() == 8);

impl Bus {
    /// `bus_type`: one of the strings of table 4-8.
    pub(super) fn new(id: u8, bus_type: [u8; 6]) -> Self {
        Bus { entry_type: 1, id, bus_type }
    }
}

/// I/O APIC entry (4.3.3, table 4-9).
#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct IoApic {
    entry_type: u8,
    id: u8,
    version: u8,
    flags: u8,
    address: U32,
}

const _: () = assert!(size_of::<IoApic>() == 8);

impl IoApic {
    pub(super) fn new(id: u8, address: u32) -> Self {
        const ENABLED: u8 = 1;
        IoApic { entry_type: 2, id, version: IO_APIC_VERSION, flags: ENABLED, address: U32::new(address) }
    }
}

/// Interrupt flags (table 4-10): conform to the bus.
pub(super) const CONFORMING: u16 = 0;
/// Interrupt flags: active high, edge-triggered.
pub(super) const EDGE_HIGH: u16 = 0b01 << 2 | 0b01;
/// Interrupt flags: active high, level-triggered.
pub(super) const LEVEL_HIGH: u16 = 0b11 << 2 | 0b01;

/// Interrupt type (table 4-11): the I/O APIC provides the vector.
const INT: u8 = 0;
/// Interrupt type: non-maskable.
pub(super) const NMI: u8 = 1;
/// Interrupt type: an 8259 provides the vector.
pub(super) const EXT_INT: u8 = 3;

/// I/O and local interrupt assignment entries, of the same shape (4.3.4, table 4-10; 4.3.5, table 4-12).
#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct InterruptAssignment {
    entry_type: u8,
    interrupt_type: u8,
    flags: U16,
    source_bus: u8,
    source_line: u8,
    destination_apic: u8,
    destination_pin: u8,
}

const _: () = assert!(size_of::<InterruptAssignment>() == 8);

impl InterruptAssignment {
    /// From an interrupt of a bus to a pin of an I/O APIC.
    pub(super) fn io(flags: u16, bus: u8, line: u8, io_apic: u8, pin: u8) -> Self {
        InterruptAssignment {
            entry_type: 3,
            interrupt_type: INT,
            flags: U16::new(flags),
            source_bus: bus,
            source_line: line,
            destination_apic: io_apic,
            destination_pin: pin,
        }
    }

    /// To the LINT input of local APICs.
    pub(super) fn local(interrupt_type: u8, bus: u8, local_apic: u8, lint: u8) -> Self {
        InterruptAssignment {
            entry_type: 4,
            interrupt_type,
            flags: U16::new(CONFORMING),
            source_bus: bus,
            source_line: 0,
            destination_apic: local_apic,
            destination_pin: lint,
        }
    }
}
