//! Builds the tables of an x86_64 machine of two processors in every language that knows it, and lists them; writes them to
//! a directory where one is given.
//!
//! ```text
//! cargo run -p firmware-tables --example two_cpus [DIRECTORY]
//! ```

use std::error::Error;
use std::path::PathBuf;

use platform::{AcpiIdentity, Chosen, DeviceNode, Interrupt, Trigger, Window, x86_64};

fn main() -> Result<(), Box<dyn Error>> {
    let directory = std::env::args_os().nth(1).map(PathBuf::from);
    let serial = DeviceNode {
        name: "serial0".into(),
        windows: vec![Window::Ports { base: x86_64::SERIAL_PORT, len: 8 }],
        interrupts: vec![Interrupt { gsi: x86_64::SERIAL_GSI, trigger: Trigger::Edge }],
        acpi: Some(AcpiIdentity { name: "COM1", hid: "PNP0501", uid: 0, objects: Vec::new() }),
        devicetree: None,
    };
    let machine = x86_64::platform(2, 512 << 20, vec![serial], Some("serial0"));

    for set in firmware_tables::TABLE_SETS {
        let built = match set.build(&machine, &Chosen::default()) {
            Ok(built) => built,
            Err(error) => {
                println!("{}: {error}", set.name());
                continue;
            }
        };
        println!("{}: reading starts at {:#x}", built.kind, built.entry.gpa());
        for table in &built.tables {
            println!("  {:<8} {:#x}  {:>5} bytes", table.name, table.gpa, table.bytes.len());
            if let Some(directory) = &directory {
                std::fs::write(directory.join(table.file_name), &table.bytes)?;
            }
        }
    }
    Ok(())
}
