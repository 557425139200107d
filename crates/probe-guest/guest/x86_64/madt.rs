//! The Multiple APIC Description Table (ACPI 6.5, 5.2.12).

use super::topology::{IoApic, Topology};
use crate::acpi::{self, Header, Lead};
use crate::failure::Failure;
use crate::wire::{Field, read_at, wire};

wire! {
    /// What follows the header (table 5.19).
    struct Madt: 8 {
        local_apic: u32,
        _flags: u32,
    }
}

wire! {
    /// Processor Local APIC, type 0 (table 5.22).
    struct LocalApic: 8 {
        _lead: Lead,
        _uid: u8,
        id: u8,
        flags: u32,
    }
}

wire! {
    /// I/O APIC, type 1 (table 5.24).
    struct IoApicEntry: 12 {
        _lead: Lead,
        _id: u8,
        _reserved: u8,
        address: u32,
        gsi_base: u32,
    }
}

wire! {
    /// Local APIC Address Override, type 5 (table 5.29).
    struct LocalApicAddress: 12 {
        _lead: Lead,
        _reserved: u16,
        address: u64,
    }
}

wire! {
    /// Processor Local x2APIC, type 9 (table 5.34).
    struct LocalX2Apic: 16 {
        _lead: Lead,
        _reserved: u16,
        id: u32,
        flags: u32,
        _uid: u32,
    }
}

const ENABLED: u32 = 1 << 0;

/// Reads a table, which includes its header.
pub(crate) fn read(table: &[u8]) -> Result<Topology, Failure> {
    let fixed = read_at::<Madt>(table, Header::SIZE).ok_or(Failure::new("MADT: too short"))?;
    let mut topology = Topology::new(u64::from(fixed.local_apic));
    for structure in acpi::structures(table, Header::SIZE + Madt::SIZE) {
        let (kind, entry) = structure?;
        let broken = acpi::broken_structure(table, entry);
        match kind {
            0 => {
                let entry = read_at::<LocalApic>(entry, 0).ok_or(broken)?;
                if entry.flags & ENABLED != 0 {
                    topology.add_processor(u32::from(entry.id))?;
                }
            }
            1 => {
                let entry = read_at::<IoApicEntry>(entry, 0).ok_or(broken)?;
                topology.add_io_apic(IoApic { base: entry.address, gsi_base: entry.gsi_base })?;
            }
            5 => topology.local_apic = read_at::<LocalApicAddress>(entry, 0).ok_or(broken)?.address,
            9 => {
                let entry = read_at::<LocalX2Apic>(entry, 0).ok_or(broken)?;
                if entry.flags & ENABLED != 0 {
                    topology.add_processor(entry.id)?;
                }
            }
            _ => {}
        }
    }
    Ok(topology)
}
