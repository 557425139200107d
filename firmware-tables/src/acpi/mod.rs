//! ACPI 6.5 for a hardware-reduced machine.

mod device;
mod dsdt;
mod fadt;
mod header;
mod madt;
mod resources;
mod spcr;
mod validate;
mod xsdt;

use acpi_tables::Aml;
use acpi_tables::rsdp::Rsdp;
use platform::{Arch, Platform};

use crate::area::Area;
use crate::{BuildError, EntryPoint, GuestTables, Table, TableSet};

/// The name of this table set.
const NAME: &str = "acpi";

/// ACPI 6.5: RSDP, XSDT, FADT, MADT, SPCR where there is a console, DSDT.
///
/// The RSDP lies at the start of the table area, where also a guest that scans for it looks first.
#[derive(Clone, Copy, Debug)]
pub struct Acpi;

impl TableSet for Acpi {
    fn name(&self) -> &'static str {
        NAME
    }

    fn build(&self, platform: &Platform) -> Result<GuestTables, BuildError> {
        if platform.arch != Arch::X86_64 {
            return Err(BuildError::WrongArch { tables: NAME, arch: platform.arch });
        }
        let mut area = Area::new(platform.memory.tables, platform.memory.tables.start);
        let mut place = |name, file_name, bytes: Vec<u8>| {
            let gpa = area.claim(bytes.len());
            Table { name, file_name, gpa, bytes }
        };

        // The pointer is first in memory and last to be known.
        let mut rsdp = place("rsdp", "rsdp.bin", vec![0; Rsdp::len()]);
        let dsdt = place("dsdt", "dsdt.aml", dsdt::bytes(platform)?);
        let listed: Vec<Table> = [
            Some(place("facp", "facp.aml", fadt::bytes(platform, dsdt.gpa)?)),
            Some(place("apic", "apic.aml", madt::bytes(platform)?)),
            spcr::bytes(platform).map(|bytes| place("spcr", "spcr.aml", bytes)),
        ]
        .into_iter()
        .flatten()
        .collect();
        let xsdt = place("xsdt", "xsdt.aml", xsdt::bytes(listed.iter().map(|table| table.gpa)));
        rsdp.bytes.clear();
        Rsdp::new(header::OEM_ID, xsdt.gpa).to_aml_bytes(&mut rsdp.bytes);
        area.close(NAME)?;

        let entry = EntryPoint::Rsdp { gpa: rsdp.gpa };
        let tables = [rsdp, dsdt].into_iter().chain(listed).chain([xsdt]).collect();
        Ok(GuestTables { kind: NAME, tables, entry })
    }
}
