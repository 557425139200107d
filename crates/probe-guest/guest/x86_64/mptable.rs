//! Intel MultiProcessor tables (MultiProcessor Specification 1.4, chapter 4).

use super::topology::{IoApic, Topology};
use crate::failure::Failure;
use crate::wire::{Field, read_at, sum, wire};

wire! {
    /// MP Floating Pointer Structure (4.1, table 4-1).
    struct FloatingPointer: 16 {
        _signature: [u8; 4],
        configuration: u32,
        _length: u8,
        _revision: u8,
        _checksum: u8,
        _features: [u8; 5],
    }
}

wire! {
    /// MP Configuration Table Header (4.2, table 4-2).
    struct Header: 44 {
        signature: [u8; 4],
        length: u16,
        _revision: u8,
        _checksum: u8,
        _oem: [u8; 8],
        _product: [u8; 12],
        _oem_table: u32,
        _oem_table_length: u16,
        entries: u16,
        local_apic: u32,
        _extended_length: u16,
        _extended_checksum: u8,
        _reserved: u8,
    }
}

wire! {
    /// Processor Entry, type 0 (4.3.1, table 4-4).
    struct Processor: 20 {
        _kind: u8,
        apic_id: u8,
        _version: u8,
        flags: u8,
        _signature: u32,
        _features: u32,
        _reserved: [u8; 8],
    }
}

wire! {
    /// I/O APIC Entry, type 2 (4.3.3, table 4-8).
    struct IoApicEntry: 8 {
        _kind: u8,
        _id: u8,
        _version: u8,
        flags: u8,
        address: u32,
    }
}

/// Bit 0 of a processor's and an I/O APIC's flags.
const ENABLED: u8 = 1 << 0;

/// Bytes of the configuration table's header.
pub(crate) const HEADER_LEN: u32 = Header::SIZE as u32;

/// Offset of the floating pointer in `area`, on a 16-byte boundary.
pub(crate) fn find_floating_pointer(area: &[u8]) -> Option<usize> {
    let index = area.chunks_exact(16).position(|paragraph| paragraph.first_chunk() == Some(b"_MP_"))?;
    Some(16 * index)
}

/// Checks a floating pointer. Returns the address of the configuration table.
pub(crate) fn read_floating_pointer(bytes: &[u8]) -> Result<u64, Failure> {
    let pointer = read_at::<FloatingPointer>(bytes, 0).ok_or(Failure::new("MP pointer: too short"))?;
    if bytes.get(..FloatingPointer::SIZE).map(sum) != Some(0) {
        return Err(Failure::new("MP pointer: checksum bad"));
    }
    match pointer.configuration {
        0 => Err(Failure::new("MP pointer: no configuration table")),
        address => Ok(u64::from(address)),
    }
}

/// Length of the configuration table, from its header.
pub(crate) fn table_len(header: &[u8]) -> Result<u32, Failure> {
    let header = read_at::<Header>(header, 0).ok_or(Failure::new("MP table: too short"))?;
    if header.signature != *b"PCMP" {
        return Err(Failure::new("MP table: wrong signature"));
    }
    if usize::from(header.length) < Header::SIZE {
        return Err(Failure::with("MP table: length", u64::from(header.length)));
    }
    Ok(u32::from(header.length))
}

/// Reads a configuration table, which includes its header.
pub(crate) fn read(table: &[u8]) -> Result<Topology, Failure> {
    let header = read_at::<Header>(table, 0).ok_or(Failure::new("MP table: too short"))?;
    let mut topology = Topology::new(u64::from(header.local_apic));
    let mut gsi_base = 0;
    let mut rest = table.get(Header::SIZE..).unwrap_or_default();
    for _ in 0..header.entries {
        let broken = Failure::with("MP table: broken entry at offset", (table.len() - rest.len()) as u64);
        let kind = *rest.first().ok_or(broken)?;
        let len = match kind {
            0 => Processor::SIZE,
            1..=4 => IoApicEntry::SIZE,
            _ => return Err(broken),
        };
        let (entry, after) = rest.split_at_checked(len).ok_or(broken)?;
        rest = after;
        match kind {
            0 => {
                let processor = read_at::<Processor>(entry, 0).ok_or(broken)?;
                if processor.flags & ENABLED != 0 {
                    topology.add_processor(u32::from(processor.apic_id))?;
                }
            }
            2 => {
                let io_apic = read_at::<IoApicEntry>(entry, 0).ok_or(broken)?;
                if io_apic.flags & ENABLED != 0 {
                    // The specification does not number interrupts across I/O APICs. Assumed: 24 pins each, in table order.
                    topology.add_io_apic(IoApic { base: io_apic.address, gsi_base })?;
                    gsi_base += 24;
                }
            }
            _ => {}
        }
    }
    if !rest.is_empty() {
        return Err(Failure::with("MP table: unexpected bytes after its entries:", rest.len() as u64));
    }
    Ok(topology)
}
