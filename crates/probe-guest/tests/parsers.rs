//! The guest's parsers, run on the host.

#[path = "../guest/acpi.rs"]
#[expect(dead_code, reason = "parts are for the guest only")]
mod acpi;
#[path = "../guest/aml.rs"]
mod aml;
#[path = "../guest/cmdline.rs"]
mod cmdline;
#[path = "../guest/dsdt.rs"]
mod dsdt;
#[path = "../guest/failure.rs"]
mod failure;
#[path = "../guest/format.rs"]
mod format;
#[path = "../guest/x86_64/madt.rs"]
mod madt;
#[path = "../guest/memory_map.rs"]
mod memory_map;
#[path = "../guest/x86_64/mptable.rs"]
#[expect(dead_code, reason = "parts are for the guest only")]
mod mptable;
#[path = "../guest/x86_64/topology.rs"]
mod topology;
#[path = "../guest/wire.rs"]
mod wire;

use aml::{Object, Objects, Value, elements};
use cmdline::{Access, Exit, Injection, Requests, Touch};
use dsdt::{Dsdt, EventDevice, Interrupt};
use failure::Failure;
use format::{Hex, Padded, Show, Sink, Text};
use memory_map::{Kind, MemoryMap};
use proptest::prelude::*;
use topology::IoApic;

struct Written(Vec<u8>);

impl Sink for Written {
    fn put(&mut self, byte: u8) {
        self.0.push(byte);
    }
}

fn shown(what: impl Show) -> String {
    let mut written = Written(Vec::new());
    what.show(&mut written);
    String::from_utf8(written.0).expect("the formatter writes ASCII")
}

#[test]
fn output_is_printable() {
    assert_eq!(shown(Text(b"a=\"b\" \\ \n\xff~")), r"a=\x22b\x22 \x5c \x0a\xff~");
    assert_eq!(shown(Failure::with("no table at", 0xe0)), "no table at 0xe0");
    assert_eq!(shown(Padded { value: 7, width: 2 }), "07");
}

proptest! {
    #[test]
    fn numbers_are_formatted_as_by_the_standard_library(value: u64, small: u32, width in 1usize..=20) {
        prop_assert_eq!(shown(value), value.to_string());
        prop_assert_eq!(shown(small), small.to_string());
        prop_assert_eq!(shown(small as usize), small.to_string());
        prop_assert_eq!(shown(Hex(value)), format!("{value:#x}"));
        prop_assert_eq!(shown(Padded { value, width }), format!("{value:0width$}"));
    }
}

#[test]
fn requests_are_whole_words() {
    let exit = |cmdline: &[u8]| Requests::parse(cmdline).exit;
    assert_eq!(Requests::parse(b""), Requests::NONE);
    assert_eq!(Requests::NONE.exit, Exit::PowerOff);
    assert_eq!(exit(b"console=ttyS0 probe.exit=reset"), Exit::Reset);
    assert_eq!(exit(b"xprobe.exit=reset probe.exit=resets"), Exit::PowerOff);
    assert_eq!(exit(b"probe.exit=hang\tprobe.exit=loop"), Exit::Loop);
    assert_eq!(exit(b"probe.exit=hang"), Exit::Hang);
    assert_eq!(exit(b"probe.exit=power-button"), Exit::PowerButton);
    #[cfg(target_arch = "x86_64")]
    assert_eq!(exit(b"probe.exit=i8042"), Exit::KeyboardController);
    #[cfg(target_arch = "x86_64")]
    assert_eq!(exit(b"probe.exit=triple-fault"), Exit::TripleFault);
    assert!(Requests::parse(b"probe.echo").echo);
}

#[test]
fn requests_about_errors_have_numbers() {
    let requests = Requests::parse(
        b"probe.touch=0x2001000 probe.store=4096 probe.fetch=0xABCdef probe.touch-on=1 probe.timeout=20 probe.await-errors=0x10",
    );
    let touch = |access, gpa| Touch { access, gpa };
    assert_eq!(
        requests.touches().copied().collect::<Vec<_>>(),
        [touch(Access::Load, 0x200_1000), touch(Access::Store, 4096), touch(Access::Fetch, 0xab_cdef)]
    );
    assert_eq!((requests.touch_on, requests.timeout_ms, requests.await_errors), (1, 20, 16));

    let injection = |words: &str| Requests::parse(words.as_bytes()).injection().copied();
    let expected = |error_type, is_triggered| Some(Injection { gpa: 0x1000, error_type, is_triggered });
    assert_eq!(injection("probe.inject=0x1000"), expected(0x10, true));
    assert_eq!(injection("probe.inject-only=0x1000 probe.inject-type=0x20"), expected(0x20, false));
    assert_eq!(injection("probe.inject-type=0x20"), None);

    for word in [
        "probe.touch",
        "probe.touch=",
        "probe.touch=0x",
        "probe.touch=-1",
        "probe.touch=1f",
        "probe.touch=0x1g",
        "probe.touch=0x10000000000000000",
        "probe.touch=18446744073709551616",
        "probe.timeout=4294967296",
        "probe.touchy=1",
    ] {
        assert_eq!(Requests::parse(word.as_bytes()), Requests::NONE, "{word}");
    }
    let last = Requests::parse(b"probe.touch=18446744073709551615 probe.touch=0xffffffffffffffff");
    assert!(last.touches().all(|touch| touch.gpa == u64::MAX));
    let many = "probe.touch=8 ".repeat(9);
    assert_eq!(Requests::parse(many.as_bytes()).touches().count(), 8, "and no more");
}

#[test]
fn a_memory_map_is_bounded_and_summed_up() -> Result<(), Failure> {
    let mut map = MemoryMap::new();
    map.push(0, 0x9_fc00, Kind::from_e820(1))?;
    map.push(0x10_0000, 0, Kind::Usable)?;
    map.push(0xe_0000, 0x2_0000, Kind::from_e820(2))?;
    map.push(0x10_0000, 0x100_0000, Kind::from_e820(1))?;
    let kinds: Vec<_> = map.iter().map(|region| region.kind.name()).collect();
    assert_eq!(kinds, ["usable", "reserved", "usable"]);
    assert_eq!(map.total_usable(), 0x9_fc00 + 0x100_0000);
    assert!(map.knows(0xe_0000, 0x10_0000) && !map.knows(0xe_0000, 0x10_0001));
    assert!(!map.knows(0xd_ffff, 0xe_0010));
    assert_eq!(
        [3, 4, 5, 6, 0].map(Kind::from_e820).map(Kind::name),
        ["acpi", "nvs", "unusable", "reserved", "reserved"]
    );
    assert!(map.push(u64::MAX, 2, Kind::Usable).is_err(), "wraps");
    while map.iter().count() < 128 {
        map.push(1 << 40, 1, Kind::Reserved)?;
    }
    assert!(map.push(1 << 40, 1, Kind::Reserved).is_err(), "full");
    Ok(())
}

/// Sets the byte at `checksum` so that the sum of all bytes is zero.
fn summed(mut bytes: Vec<u8>, checksum: usize) -> Vec<u8> {
    bytes[checksum] = bytes[checksum].wrapping_sub(wire::sum(&bytes));
    bytes
}

#[test]
fn both_checksums_of_an_rsdp_must_be_valid() {
    let mut first = b"RSD PTR \0OEMOEM\x02".to_vec();
    first.extend(0x1234u32.to_le_bytes());
    let mut rsdp = summed(first, 8);
    rsdp.extend(36u32.to_le_bytes());
    rsdp.extend(0x1_0000_5678u64.to_le_bytes());
    rsdp.extend([0; 4]);
    let rsdp = summed(rsdp, 32);
    assert_eq!(acpi::read_rsdp(&rsdp), Ok(acpi::Root { address: 0x1_0000_5678, width: 8 }));

    for (at, why) in [(20, "RSDP: length"), (24, "RSDP: extended checksum bad"), (10, "RSDP: checksum bad")] {
        let mut broken = rsdp.clone();
        broken[at] ^= 0x80;
        assert_eq!(acpi::read_rsdp(&broken).map_err(|failure| failure.what), Err(why));
    }
    let mut area = vec![0; 64];
    area.extend(&rsdp);
    assert_eq!(acpi::find_rsdp(&area), Some(64));
    assert_eq!(acpi::find_rsdp(&area[1..]), None, "not on a paragraph");

    let mut old = rsdp.clone();
    old[15] = 0;
    assert_eq!(
        acpi::read_rsdp(&summed(old[..20].to_vec(), 8)).map(|root| root.width),
        Err(Failure::new("RSDP: too short"))
    );
    let old = summed(old, 8);
    let old = [&summed(old[..20].to_vec(), 8)[..], &old[20..]].concat();
    assert_eq!(acpi::read_rsdp(&old), Ok(acpi::Root { address: 0x1234, width: 4 }));
}

#[test]
fn root_tables_hold_addresses() {
    let mut table = vec![0; 36];
    table.extend(0x1_0000_0001u64.to_le_bytes());
    table.extend(2u64.to_le_bytes());
    assert_eq!(acpi::root_entries(&table, 8).collect::<Vec<_>>(), [0x1_0000_0001, 2]);
    assert_eq!(acpi::root_entries(&table, 4).collect::<Vec<_>>(), [1, 1, 2, 0]);
    assert_eq!(acpi::root_entries(&table[..20], 8).count(), 0);
}

/// A MADT with these structures after its fixed part.
fn madt(structures: &[&[u8]]) -> Vec<u8> {
    let mut table = vec![0; 36];
    table.extend(0xfee0_0000u32.to_le_bytes());
    table.extend([0; 4]);
    table.extend(structures.concat());
    table
}

#[test]
fn a_madt_lists_enabled_processors() -> Result<(), Failure> {
    let topology = madt::read(&madt(&[
        &[0, 8, 0, 0, 1, 0, 0, 0],
        &[0, 8, 1, 1, 0, 0, 0, 0],
        &[9, 16, 0, 0, 0x2c, 1, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0],
        &[1, 12, 3, 0, 0, 0, 0xc0, 0xfe, 16, 0, 0, 0],
        &[2, 10, 0, 0, 2, 0, 0, 0, 0, 0],
        &[5, 12, 0, 0, 0, 0, 0, 0xfd, 0, 0, 0, 0],
    ]))?;
    assert_eq!(topology.apic_ids(), [0, 300]);
    assert!(topology.needs_x2apic());
    assert_eq!(topology.local_apic, 0xfd00_0000);
    assert_eq!(topology.io_apics().collect::<Vec<_>>(), [&IoApic { base: 0xfec0_0000, gsi_base: 16 }]);

    for broken in [&[0, 0][..], &[0, 1], &[0], &[0, 8, 0], &[0, 7, 0, 0, 1, 0, 0]] {
        assert_eq!(
            madt::read(&madt(&[broken])).err(),
            Some(Failure::with("MADT: broken structure at offset", 44))
        );
    }
    Ok(())
}

#[test]
fn an_mp_table_lists_enabled_processors() -> Result<(), Failure> {
    let mut table = b"PCMP\0\0\x04\0".to_vec();
    table.extend([b' '; 20]);
    table.extend([0; 6]);
    table.extend(3u16.to_le_bytes());
    table.extend(0xfee0_0000u32.to_le_bytes());
    table.extend([0; 4]);
    for (id, flags) in [(0, 3), (7, 0)] {
        table.extend([0, id, 0x14, flags]);
        table.extend([0; 16]);
    }
    table.extend([2, 8, 0x11, 1, 0, 0, 0xc0, 0xfe]);
    table[4] = u8::try_from(table.len()).expect("a short table");
    assert_eq!(mptable::table_len(&table), Ok(44 + 2 * 20 + 8));
    let topology = mptable::read(&table)?;
    assert_eq!(topology.apic_ids(), [0]);
    assert!(!topology.needs_x2apic());
    assert_eq!(topology.io_apics().collect::<Vec<_>>(), [&IoApic { base: 0xfec0_0000, gsi_base: 0 }]);
    assert!(mptable::read(&table[..table.len() - 1]).is_err(), "cut off");
    table.push(0);
    assert!(mptable::read(&table).is_err(), "longer than its entries");

    let pointer = summed(b"_MP_\x10\x00\x0e\x00\x01\x04\0\0\0\0\0\0".to_vec(), 10);
    assert_eq!(mptable::read_floating_pointer(&pointer), Ok(0xe_0010));
    assert_eq!(mptable::find_floating_pointer(&[&[0; 16], &pointer[..]].concat()), Some(16));
    assert!(mptable::read_floating_pointer(&[&pointer[..15], &[1]].concat()).is_err(), "checksum");
    Ok(())
}

#[test]
fn an_event_device_is_found() {
    // Device (GED) { Name (_HID, "ACPI0013"), Name (_CRS, interrupt 9), OperationRegion (R, SystemMemory, 0xd0100000, 8) }
    let interrupt = [0x89, 6, 0, 0b0011, 1, 9, 0, 0, 0, 0x79, 0];
    let mut inside = b"GED_\x08_HID\x0dACPI0013\0\x08_CRS\x11\x0e\x0a\x0b".to_vec();
    inside.extend(interrupt);
    inside.extend(b"\x5b\x80REGS\0\x0c\0\0\x10\xd0\x0a\x08");
    let mut block = b"\x08\\_S5_\x12\x06\x02\x0a\x05\x0a\x05\x5b\x82".to_vec();
    // A package length of two bytes counts itself.
    let len = inside.len() + 2;
    block.extend([0x40 | (len & 0xf) as u8, (len >> 4) as u8]);
    block.extend(inside);
    assert_eq!(
        Dsdt::read(&block),
        Ok(Dsdt {
            ged: Some(EventDevice {
                interrupt: Interrupt { gsi: 9, level: false, active_low: false },
                selector: 0xd010_0000,
            }),
            has_rtc: false,
            s5_sleep_type: Some(5),
        })
    );
    for cut in 1..block.len() {
        // Cut within an object, the walk ends with an error; between objects, there is less to find.
        if let Ok(found) = Dsdt::read(&block[..cut]) {
            assert_eq!(found.ged, None, "{cut}");
        }
    }
}

#[test]
fn an_object_of_unknown_length_is_an_error() {
    // Store (One, FOO_), at the level of declarations.
    assert_eq!(Dsdt::read(b"\xa3\x70\x01FOO_"), Err(Failure::with("DSDT: unknown encoding at offset", 1)));
}

/// Bytes that often resemble AML.
fn nearly_aml() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        any::<u8>().prop_map(|byte| vec![byte]),
        (0u8..0x40).prop_map(|byte| vec![byte]),
        prop::sample::select(vec![
            &b"\x5b\x82"[..],
            b"\x5b\x80",
            b"\x10",
            b"\x14",
            b"\x08",
            b"_HID",
            b"\\_S5_",
            b"\x12",
            b"\x11",
            b"\xa0",
            b"\x0d",
            b"\x2f\x02",
            b"\x5b\x83",
            b"\x0aA",
            b"\x0e",
            b"_CRS",
            b"\x89\x06\x00",
        ])
        .prop_map(<[u8]>::to_vec),
    ];
    prop::collection::vec(piece, 0..200).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn a_walk_through_any_bytes_ends(block in nearly_aml()) {
        let mut devices = 0usize;
        let mut objects = 0;
        for object in Objects::of(&block) {
            objects += 1;
            match object {
                Ok(Object::Device(_)) => devices += 1,
                Ok(Object::EndOfDevice) => {
                    prop_assert!(devices > 0, "an end without a beginning");
                    devices -= 1;
                }
                Ok(Object::Name(_, Value::Package(package))) => {
                    prop_assert!(elements(package).count() <= package.len());
                }
                Ok(_) => {}
                Err(error) => prop_assert!(error.at < block.len()),
            }
        }
        // Each object takes a byte at least, and each device has one end.
        prop_assert!(objects <= 2 * block.len());
        let _ = Dsdt::read(&block);
    }
}
