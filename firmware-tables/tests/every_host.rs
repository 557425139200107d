//! The same machine gives the same bytes on every host: those in `tests/golden/bytes.txt`, as address, length and CRC-32.
//! After an intended change, update the file:
//!
//! ```text
//! UPDATE_GOLDEN=1 cargo test -p ghest-firmware-tables --test every_host
//! ```
#![cfg(all(feature = "acpi", feature = "devicetree", feature = "mptable"))]

#[path = "machine/aarch64.rs"]
mod aarch64;
mod oem;
#[path = "machine/x86_64.rs"]
mod x86_64;

use std::fmt::Write;

use firmware_tables::TABLE_SETS;
use oem::OEM;

#[test]
fn tables_are_the_same_on_every_host() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/bytes.txt");
    let machines = [
        x86_64::default_machine(),
        x86_64::machine(255, 1 << 30, 13),
        x86_64::default_machine().with_error_sources(x86_64::error_sources()),
        x86_64::default_machine().with_error_injection(x86_64::error_injection),
        x86_64::default_machine().with_boot_record().with_error_serialization(x86_64::error_serialization()),
        aarch64::default_machine(),
        aarch64::machine(512, aarch64::ALL, 64),
        aarch64::default_machine().with_error_sources(aarch64::error_sources()),
        aarch64::default_machine().with_error_injection(aarch64::error_injection),
        aarch64::default_machine()
            .with_boot_record()
            .with_error_serialization(aarch64::error_serialization()),
        aarch64::default_machine().with_error_sources(aarch64::own_source()),
    ];
    let mut found = String::new();
    for machine in &machines {
        for &set in TABLE_SETS {
            let Ok(built) = firmware_tables::build(set, machine, &aarch64::chosen(), &OEM) else { continue };
            let (cpus, sources) = (machine.cpus.len(), machine.error_sources.len());
            let injection = if machine.error_injection.is_some() { ", error injection" } else { "" };
            let (arch, set) = (machine.arch, built.set);
            writeln!(found, "{arch} with {cpus} vCPUs and {sources} error sources{injection}, {set}")
                .unwrap();
            for table in &built.tables {
                let (name, gpa, len) = (table.file_name, table.gpa, table.bytes.len());
                writeln!(found, "  {name:28}{gpa:#10x}{len:7} {:08x}", crc32(&table.bytes)).unwrap();
            }
        }
    }
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(path, &found).unwrap();
    }
    assert_eq!(std::fs::read_to_string(path).unwrap(), found);
}

/// CRC-32 of IEEE 802.3.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(
            crc ^ u32::from(*byte),
            |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 },
        )
    })
}
