//! The MP table, read as a kernel reads it: by a search for its signature below 1 MiB. The reader shares no code with the
//! builder.
#![cfg(feature = "mptable")]

#[path = "machine/x86_64.rs"]
mod machine;
mod oem;

use firmware_tables::{BuildError, EntryPoint, GuestTables, TableSet};
use machine::{default_machine, machine};
use oem::OEM;
use platform::{Arch, Chosen, Interrupt, Platform, Range, Trigger};

#[test]
fn a_search_leads_to_the_description_of_the_machine() {
    let built = build(&default_machine()).unwrap();
    let read = read(&built);
    assert_eq!(read.processors, [(0, 0b11), (1, 0b01)], "ids and flags: both enabled, one to boot");
    assert_eq!(read.buses, [(0, "ISA   ".to_owned())]);
    assert_eq!(read.io_apics, [(2, 0xfec0_0000)]);
    assert_eq!(read.local_apic, 0xfee0_0000);
    assert_eq!(read.local_interrupts, [(3, 0xff, 0), (1, 0xff, 1)], "ExtINT on LINT0, NMI on LINT1");

    let wires: Vec<(u8, u8)> = read.interrupts.iter().map(|wire| (wire.line, wire.pin)).collect();
    let isa = (0..16).filter(|line| *line != 2);
    assert_eq!(wires, isa.map(|line| (line, if line == 0 { 2 } else { line })).collect::<Vec<_>>());
    assert!(read.interrupts.iter().all(|wire| wire.io_apic == 2));
    let explicit: Vec<u8> =
        read.interrupts.iter().filter(|wire| wire.flags == 0b0101).map(|wire| wire.line).collect();
    assert_eq!(explicit, [4, 5, 8, 9], "the devices' lines: edge, high");
    assert_eq!(read.interrupts.iter().filter(|wire| wire.flags == 0).count(), 11);
}

#[test]
fn only_used_interrupts_from_16_on_have_an_entry() {
    let mut machine = machine(1, 1 << 30, 7);
    machine.devices[4].interrupts = vec![Interrupt { gsi: 23, trigger: Trigger::Level }];
    let read = read(&build(&machine).unwrap());
    let beyond: Vec<_> = read
        .interrupts
        .iter()
        .filter(|wire| wire.line > 15)
        .map(|wire| (wire.line, wire.pin, wire.flags))
        .collect();
    assert_eq!(beyond, [(16, 16, 0b0101), (17, 17, 0b0101), (23, 23, 0b1101)]);
}

#[test]
fn at_most_255_processors_are_described() {
    for vcpus in [1, 2, 8, 254, 255] {
        let read = read(&build(&machine(vcpus, 1 << 30, 1)).unwrap());
        let ids: Vec<u32> = read.processors.iter().map(|(id, _)| u32::from(*id)).collect();
        assert_eq!(ids, (0..vcpus).collect::<Vec<_>>());
        assert_eq!(read.processors.iter().filter(|(_, flags)| flags & 2 != 0).count(), 1, "one boots");
    }
    let error = build(&machine(256, 1 << 30, 1)).unwrap_err();
    assert_eq!(error, BuildError::TooManyCpus { table: "MP configuration table", cpus: 256, limit: 255 });
}

#[test]
fn what_cannot_be_described_is_an_error_that_names_it() {
    type Change = fn(&mut Platform);
    let cases: &[(Change, &str)] = &[
        (|m| m.arch = Arch::Aarch64, "mptable tables: not defined for aarch64 machines"),
        (
            |m| m.cpus[1].hardware_id = 255,
            "MP configuration table: processor 1: APIC id 255: at most 254 (MultiProcessor Specification 1.4, 4.3.1)",
        ),
        (
            |m| m.devices[0].interrupts[0].gsi = 24,
            "mptable tables: device `serial0`: interrupt 24: the I/O APIC has pins 0 to 23",
        ),
        (
            |m| m.devices[0].interrupts[0].gsi = 2,
            "mptable tables: device `serial0`: interrupt 2: GSI 0 and 2 are reserved for the timer",
        ),
        (
            |m| m.memory.tables = Range { start: 0xe_0000, len: 0x1_0040 },
            "mptable tables: 300 bytes do not fit into the 64 bytes at 0xf0000",
        ),
        (
            |m| m.memory.tables = Range { start: 1 << 32, len: 0x1000 },
            "MP floating pointer: physical address pointer: 0x100000040 does not fit into 32 bits",
        ),
    ];
    for (change, message) in cases {
        let mut machine = default_machine();
        change(&mut machine);
        assert_eq!(build(&machine).unwrap_err().to_string(), *message);
    }
}

fn build(machine: &Platform) -> Result<GuestTables, BuildError> {
    firmware_tables::build(TableSet::MpTable, machine, &Chosen::default(), &OEM)
}

#[derive(Default)]
struct MpConfiguration {
    local_apic: u32,
    processors: Vec<(u8, u8)>,
    buses: Vec<(u8, String)>,
    io_apics: Vec<(u8, u32)>,
    interrupts: Vec<Wire>,
    local_interrupts: Vec<(u8, u8, u8)>,
}

struct Wire {
    flags: u16,
    line: u8,
    io_apic: u8,
    pin: u8,
}

fn read(built: &GuestTables) -> MpConfiguration {
    let mut memory = vec![0; 1 << 20];
    for table in &built.tables {
        let start = usize::try_from(table.gpa).unwrap();
        memory[start..start + table.bytes.len()].copy_from_slice(&table.bytes);
    }
    let pointer = (0xf_0000..0x10_0000)
        .step_by(16)
        .find(|at| memory[*at..].starts_with(b"_MP_") && sum(&memory[*at..*at + 16]) == 0)
        .expect("a floating pointer");
    assert_eq!(built.entry, EntryPoint::MpFloatingPointer { gpa: pointer as u64 });
    assert_eq!(memory[pointer + 8..pointer + 10], [1, 4], "16 bytes, version 1.4");
    assert_eq!(memory[pointer + 11..pointer + 16], [0; 5], "no default configuration, virtual wire mode");

    let table = &memory[u32_at(&memory, pointer + 4) as usize..];
    assert!(table.starts_with(b"PCMP"));
    let len = usize::from(u16_at(table, 4));
    assert_eq!((table[6], sum(&table[..len])), (4, 0));
    assert_eq!(&table[8..28], b"GHEST   GHEST VMM   ");

    let mut found = MpConfiguration { local_apic: u32_at(table, 36), ..Default::default() };
    let mut rest = &table[44..len];
    let mut last_type = 0;
    for _ in 0..u16_at(table, 34) {
        let (entry, tail) = rest.split_at(if rest[0] == 0 { 20 } else { 8 });
        assert!(entry[0] >= last_type, "entries ascend by type");
        last_type = entry[0];
        match entry[0] {
            0 => {
                assert_eq!(entry[2], 0x14, "KVM's local APIC");
                found.processors.push((entry[1], entry[3]));
            }
            1 => found.buses.push((entry[1], String::from_utf8(entry[2..8].to_vec()).unwrap())),
            2 => {
                assert_eq!(entry[2..4], [0x11, 1], "KVM's I/O APIC, usable");
                found.io_apics.push((entry[1], u32_at(entry, 4)));
            }
            3 => {
                assert_eq!((entry[1], entry[4]), (0, 0), "INT, from the ISA bus");
                found.interrupts.push(Wire {
                    flags: u16_at(entry, 2),
                    line: entry[5],
                    io_apic: entry[6],
                    pin: entry[7],
                });
            }
            4 => found.local_interrupts.push((entry[1], entry[6], entry[7])),
            other => panic!("entry of type {other}"),
        }
        rest = tail;
    }
    assert!(rest.is_empty(), "bytes after the last entry");
    found
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().unwrap())
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}
