//! The Multiple APIC Description Table's structures for the GIC (ACPI 6.5, 5.2.12).

use super::topology::{Interface, Topology, Window};
use crate::acpi::{self, Header, Lead};
use crate::failure::Failure;
use crate::wire::{read_at, wire};

/// Bytes before the structures: the header, the local APIC address and flags (table 5.19).
const FIXED: usize = <Header as crate::wire::Field>::SIZE + 8;

wire! {
    /// GIC CPU Interface, type 0xb (table 5.37), without fields of later revisions.
    struct Gicc: 76 {
        _lead: Lead,
        _reserved: u16,
        _interface: u32,
        _uid: u32,
        flags: u32,
        _parking_version: u32,
        _performance_interrupt: u32,
        _parked_address: u64,
        interface_base: u64,
        _virtual_base: u64,
        _hypervisor_base: u64,
        _maintenance_interrupt: u32,
        redistributor: u64,
        mpidr: u64,
    }
}

wire! {
    /// GIC Distributor, type 0xc (table 5.39).
    struct Gicd: 24 {
        _lead: Lead,
        _reserved: u16,
        _id: u32,
        base: u64,
        _interrupt_base: u32,
        version: u8,
        _reserved_2: [u8; 3],
    }
}

wire! {
    /// GIC Redistributor, type 0xe (table 5.42).
    struct Gicr: 16 {
        _lead: Lead,
        _reserved: u16,
        base: u64,
        len: u32,
    }
}

const ENABLED: u32 = 1 << 0;
/// Bytes of a redistributor that is listed in a GICC structure.
const REDISTRIBUTOR_LEN: u64 = 0x2_0000;

/// Reads a table, which includes its header.
pub(crate) fn read(table: &[u8]) -> Result<Topology, Failure> {
    let mut topology = Topology::new();
    let mut version = 0;
    let mut interface = 0;
    if table.len() < FIXED {
        return Err(Failure::new("MADT: too short"));
    }
    for structure in acpi::structures(table, FIXED) {
        let (kind, entry) = structure?;
        let broken = acpi::broken_structure(table, entry);
        match kind {
            0xb => {
                let gicc = read_at::<Gicc>(entry, 0).ok_or(broken)?;
                if gicc.flags & ENABLED != 0 {
                    topology.add_processor(gicc.mpidr)?;
                    interface = gicc.interface_base;
                    if gicc.redistributor != 0 {
                        let (start, len) = (gicc.redistributor, REDISTRIBUTOR_LEN);
                        let end = start.checked_add(len).ok_or(broken)?;
                        topology.add_redistributors(Window { start, end })?;
                    }
                }
            }
            0xc => {
                let gicd = read_at::<Gicd>(entry, 0).ok_or(broken)?;
                topology.distributor = gicd.base;
                version = gicd.version;
            }
            0xe => {
                let gicr = read_at::<Gicr>(entry, 0).ok_or(broken)?;
                let end = gicr.base.checked_add(u64::from(gicr.len)).ok_or(broken)?;
                topology.add_redistributors(Window { start: gicr.base, end })?;
            }
            _ => {}
        }
    }
    topology.interface = match version {
        3 | 4 => Interface::SystemRegisters,
        1 | 2 => Interface::Memory(interface),
        _ => return Err(Failure::with("MADT: GIC version", u64::from(version))),
    };
    Ok(topology)
}
