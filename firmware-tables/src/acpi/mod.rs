//! ACPI 6.5 for a hardware-reduced machine.

mod console;
mod dbg2;
mod device;
mod dsdt;
mod error_sources;
mod fadt;
mod gtdt;
mod header;
mod hest;
mod madt;
mod osc;
mod pptt;
mod resources;
mod spcr;
mod validate;
mod xsdt;

use acpi_tables::Aml;
use acpi_tables::rsdp::Rsdp;
use platform::{Arch, Chosen, InterruptController, Platform};
use ras_core::RecordArea;

use crate::area::Area;
use crate::efi::HandOver;
use crate::fdt::Node;
use crate::{BuildError, EntryPoint, GuestTables, Table, TableSet, chosen, records};
use console::{Kind, Port};

/// The name of this table set.
const NAME: &str = "acpi";

/// ACPI 6.5: RSDP, XSDT, FADT, MADT, SPCR where there is a console, HEST where there are error sources, DSDT; on aarch64 also GTDT, PPTT, DBG2 and the EFI
/// tables that lead to the RSDP.
///
/// The RSDP lies at the start of the table area, where also a guest that scans for it looks first.
#[derive(Clone, Copy, Debug)]
pub struct Acpi;

impl TableSet for Acpi {
    fn name(&self) -> &'static str {
        NAME
    }

    fn build(&self, platform: &Platform, chosen: &Chosen) -> Result<GuestTables, BuildError> {
        check_interrupts(platform)?;
        let record_area = error_sources::record_area(platform)?;
        let mut area = Area::new(platform.memory.tables, platform.memory.tables.start);
        let Described { rsdp, mut tables } = describe(platform, record_area.as_ref(), &mut area)?;
        let entry = match platform.arch {
            Arch::X86_64 => {
                area.close(NAME)?;
                EntryPoint::Rsdp { gpa: rsdp }
            }
            Arch::Aarch64 => {
                let hand_over = HandOver::new(NAME, platform, &mut area, rsdp)?;
                area.close(NAME)?;
                let root = chosen_only(chosen, &hand_over);
                let devicetree = chosen::table(NAME, platform, &root)?;
                let gpa = devicetree.gpa;
                tables.extend(hand_over.tables);
                tables.push(devicetree);
                EntryPoint::Devicetree { gpa }
            }
        };
        tables.extend(record_area.as_ref().map(records::table));
        tables.sort_by_key(|table| table.gpa);
        Ok(GuestTables { kind: NAME, tables, entry, record_area })
    }
}

/// Every architecture has interrupt controllers of its own.
fn check_interrupts(platform: &Platform) -> Result<(), BuildError> {
    let arch = match platform.interrupts {
        InterruptController::Apic { .. } => Arch::X86_64,
        InterruptController::Gicv2 { .. } | InterruptController::Gicv3 { .. } => Arch::Aarch64,
    };
    if platform.arch != arch {
        return Err(BuildError::InterruptController { tables: NAME, arch: platform.arch });
    }
    Ok(())
}

/// ACPI's own tables, in the order of their address.
struct Described {
    /// The address of the RSDP.
    rsdp: u64,
    tables: Vec<Table>,
}

fn describe(
    platform: &Platform,
    record_area: Option<&RecordArea>,
    area: &mut Area,
) -> Result<Described, BuildError> {
    let mut place = |name, file_name, bytes: Vec<u8>| {
        let gpa = area.claim(bytes.len());
        Table { name, file_name, gpa, bytes }
    };

    // The pointer is first in memory and last to be known.
    let mut rsdp = place("rsdp", "rsdp.bin", vec![0; Rsdp::len()]);
    let dsdt = place("dsdt", "dsdt.aml", dsdt::bytes(platform)?);
    let port = Port::of(platform);
    let debug_port = port.as_ref().filter(|port| port.kind == Kind::Pl011);
    let listed: Vec<Table> = [
        Some(place("facp", "facp.aml", fadt::bytes(platform, dsdt.gpa)?)),
        Some(place("apic", "apic.aml", madt::bytes(platform)?)),
        platform.private_interrupts.map(|interrupts| place("gtdt", "gtdt.aml", gtdt::bytes(interrupts))),
        (platform.arch == Arch::Aarch64).then(|| place("pptt", "pptt.aml", pptt::bytes(&platform.cpus))),
        port.as_ref().map(|port| place("spcr", "spcr.aml", spcr::bytes(port))),
        debug_port.map(|port| place("dbg2", "dbg2.aml", dbg2::bytes(port))),
        record_area.map(|records| place("hest", "hest.aml", hest::bytes(records))),
    ]
    .into_iter()
    .flatten()
    .collect();
    let xsdt = place("xsdt", "xsdt.aml", xsdt::bytes(listed.iter().map(|table| table.gpa)));
    rsdp.bytes.clear();
    Rsdp::new(header::OEM_ID, xsdt.gpa).to_aml_bytes(&mut rsdp.bytes);

    let gpa = rsdp.gpa;
    let tables = [rsdp, dsdt].into_iter().chain(listed).chain([xsdt]).collect();
    Ok(Described { rsdp: gpa, tables })
}

/// The devicetree that goes with ACPI: a kernel that finds any other node in it turns ACPI off.
fn chosen_only(chosen: &Chosen, hand_over: &HandOver) -> Node {
    Node::root().cell_counts(2, 2).child(hand_over.announce(chosen::node(chosen)))
}
