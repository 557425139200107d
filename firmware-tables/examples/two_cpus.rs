//! Builds the tables of an x86_64 machine with two processors by every table set, lists them, and writes them to a directory
//! if one is given.
//!
//! ```text
//! cargo run -p ghest-firmware-tables --example two_cpus [DIRECTORY]
//! ```

use std::error::Error;
use std::path::PathBuf;

use firmware_tables::{OemInfo, TABLE_SETS, build};
use platform::{AcpiIdentity, Chosen, DeviceNode, DeviceRole, Trigger, x86_64};

/// The vendor of the machine.
const OEM: OemInfo<'static> = OemInfo {
    oem_id: *b"ACME  ",
    oem_table_id: *b"ACMEVM  ",
    oem_revision: 1,
    creator_id: *b"ACME",
    creator_revision: 1,
    hypervisor_vendor: *b"ACMEVMM\0",
    firmware_vendor: "Acme",
    firmware_revision: 1,
    model: "acme,vm",
    compatible: &["linux,dummy-virt"],
    mp_oem_id: *b"ACME    ",
    mp_product_id: *b"ACME VM     ",
};

fn main() -> Result<(), Box<dyn Error>> {
    let directory = std::env::args_os().nth(1).map(PathBuf::from);
    let layout = x86_64::Layout::REFERENCE;
    let serial = DeviceNode::new("serial0")
        .ports(layout.serial_port, 8)
        .interrupt(layout.serial_gsi, Trigger::Edge)
        .role(DeviceRole::Ns16550)
        .acpi(AcpiIdentity::new("COM1", "PNP0501"));
    let machine = x86_64::platform(&layout, 2, 512 << 20, vec![serial], Some("serial0"));

    for &set in TABLE_SETS {
        let built = match build(set, &machine, &Chosen::default(), &OEM) {
            Ok(built) => built,
            Err(error) => {
                println!("{error}");
                continue;
            }
        };
        println!("{}: the guest starts to read at {:#x}", built.set, built.entry.gpa());
        for table in &built.tables {
            println!("  {:<8} {:#x}  {:>5} bytes", table.name, table.gpa, table.bytes.len());
            if let Some(directory) = &directory {
                std::fs::write(directory.join(table.file_name), &table.bytes)?;
            }
        }
    }
    Ok(())
}
