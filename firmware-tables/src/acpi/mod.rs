//! ACPI tables of a hardware-reduced machine, all of one [version].
//!
//! An ACPI table is a file with an [`AcpiTable`]; `LISTED` names those that the XSDT points at.

mod bert;
mod console;
mod dbg2;
mod device;
mod dsdt;
mod einj;
mod error_sources;
mod erst;
mod fadt;
mod gtdt;
mod header;
mod hest;
mod instruction;
mod madt;
mod osc;
mod pptt;
mod resources;
mod spcr;
mod validate;
mod version;
mod xsdt;

use acpi_tables::Aml;
use acpi_tables::rsdp::Rsdp;
use platform::{Arch, Chosen, InterruptController, Platform};
use ras_core::RecordArea;

use crate::area::Area;
use crate::efi::HandOver;
use crate::fdt::Node;
use crate::{BuildError, EntryPoint, GuestTables, OemInfo, Table, TableSet, chosen, records};
use console::Port;

/// The tables that the XSDT points at, in the order of their addresses. Guests expect the FADT first.
const LISTED: &[AcpiTable] = &[
    fadt::TABLE,
    madt::TABLE,
    gtdt::TABLE,
    pptt::TABLE,
    spcr::TABLE,
    dbg2::TABLE,
    hest::TABLE,
    einj::TABLE,
    bert::TABLE,
    erst::TABLE,
];

/// This table set.
const SET: TableSet = TableSet::Acpi;

/// ACPI tables and, on aarch64, the EFI tables and the devicetree that lead to them.
///
/// The RSDP is at the start of the table area, where a guest that searches for it looks first.
pub(crate) fn build(
    platform: &Platform,
    chosen: &Chosen,
    oem: &OemInfo<'_>,
) -> Result<GuestTables, BuildError> {
    check_interrupt_controller(platform)?;
    let record_area = error_sources::record_area(platform)?;
    let mut area = Area::new(platform.memory.tables, platform.memory.tables.start);
    let (rsdp, mut tables) = describe(platform, record_area.as_ref(), &mut area, oem)?;
    let entry = match platform.arch {
        Arch::X86_64 => {
            area.close(SET)?;
            EntryPoint::Rsdp { gpa: rsdp }
        }
        Arch::Aarch64 => {
            let hand_over = HandOver::new(platform, &mut area, rsdp, oem)?;
            area.close(SET)?;
            let root = chosen_only(chosen, &hand_over);
            let devicetree = chosen::table(SET, platform, &root)?;
            let gpa = devicetree.gpa;
            tables.extend(hand_over.tables);
            tables.push(devicetree);
            EntryPoint::Devicetree { gpa }
        }
    };
    tables.extend(record_area.as_ref().map(records::table));
    tables.extend(einj::trigger_table(platform));
    tables.sort_by_key(|table| table.gpa);
    let error_device = error_sources::has_error_device(platform);
    Ok(GuestTables { set: SET, tables, entry, record_area, error_device })
}

/// A table with the standard header: its name, and the function that encodes what follows the header.
struct AcpiTable {
    signature: [u8; 4],
    name: &'static str,
    file_name: &'static str,
    /// Returns `None` if the machine does not have the table.
    body: fn(&Context<'_>) -> Result<Option<Body>, BuildError>,
}

/// A table without its header.
struct Body {
    revision: u8,
    bytes: Vec<u8>,
}

/// What tables are encoded from.
struct Context<'a> {
    platform: &'a Platform,
    record_area: Option<&'a RecordArea>,
    /// The console's serial port. `None` if the console is not one that SPCR can describe.
    console: Option<Port<'a>>,
    /// GPA of the DSDT.
    dsdt: u64,
    oem: &'a OemInfo<'a>,
}

/// ACPI tables in the order of their addresses, and the address of the RSDP.
fn describe(
    platform: &Platform,
    record_area: Option<&RecordArea>,
    area: &mut Area,
    oem: &OemInfo<'_>,
) -> Result<(u64, Vec<Table>), BuildError> {
    // The RSDP has the lowest address and is encoded last, when the XSDT's address is known.
    let rsdp_gpa = area.claim(Rsdp::len());
    let mut context = Context { platform, record_area, console: Port::of(platform), dsdt: 0, oem };
    let mut tables = Vec::new();
    let mut place = |table: &AcpiTable, body: Body| {
        let bytes = header::table(table.signature, &body, oem);
        let gpa = area.claim(bytes.len());
        tables.push(Table { name: table.name, file_name: table.file_name, gpa, bytes });
        gpa
    };
    if let Some(body) = (dsdt::TABLE.body)(&context)? {
        context.dsdt = place(&dsdt::TABLE, body);
    }
    let mut addresses = Vec::new();
    for table in LISTED {
        if let Some(body) = (table.body)(&context)? {
            addresses.push(place(table, body));
        }
    }
    let xsdt_gpa = place(&xsdt::TABLE, xsdt::body(&addresses));

    let mut bytes = Vec::with_capacity(Rsdp::len());
    Rsdp::new(oem.oem_id, xsdt_gpa).to_aml_bytes(&mut bytes);
    tables.insert(0, Table { name: "rsdp", file_name: "rsdp.bin", gpa: rsdp_gpa, bytes });
    Ok((rsdp_gpa, tables))
}

/// Returns an error if the machine has the interrupt controller of another architecture.
fn check_interrupt_controller(platform: &Platform) -> Result<(), BuildError> {
    let arch = match platform.interrupts {
        InterruptController::Apic { .. } => Arch::X86_64,
        InterruptController::Gicv2 { .. } | InterruptController::Gicv3 { .. } => Arch::Aarch64,
    };
    if platform.arch != arch {
        return Err(BuildError::InterruptController { set: SET, arch: platform.arch });
    }
    Ok(())
}

/// The devicetree of a machine with ACPI: Linux disables ACPI if it finds any node besides `/chosen`.
fn chosen_only(chosen: &Chosen, hand_over: &HandOver) -> Node {
    Node::root().cell_counts(2, 2).child(hand_over.announce(chosen::node(chosen)))
}
