//! Sections of every type as bytes, from the tables of UEFI 2.10, CXL 3.1 and DEN0085: independent of the structures of `ras_core`.
//! Every validation bit is set, so each byte has a meaning.

use proptest::prelude::*;
use ras_core::Guid;

use crate::cper_bytes::{self as cper, put};

/// A type and the bytes of a section.
pub(crate) type SectionBytes = (Guid, Vec<u8>);

pub(crate) fn guid(text: &str) -> Guid {
    Guid::parse(text).expect("a GUID")
}

/// Types whose sections have a fixed length: it, and the number of their validation bits.
const FIXED: [(&str, usize, u32); 8] = [
    // Generic processor.
    ("9876ccad-47b4-4bdb-b65e-16f193c4f3db", 192, 13),
    // Memory, and memory 2.
    ("a5bc1114-6f64-4ede-b863-3e83ed7c83b1", 80, 22),
    ("61ec04fc-48e6-d813-25c9-8daa44750b12", 96, 22),
    // PCIe, PCI bus.
    ("d995e954-bbc1-430f-ad91-b44dcb3c6f35", 208, 8),
    ("c5753963-3b84-4095-bf78-eddad3f9c9dd", 72, 9),
    // DMAr: generic, VT-d, IOMMU. They have no validation bits.
    ("5b51fef7-c79d-4434-8f1b-aa62de3e2c64", 32, 0),
    ("71761d37-32b2-45cd-a7d0-b0fedd93e8cf", 144, 0),
    ("036f84e1-7f37-428c-a79e-575fdfaa84ec", 144, 0),
];

/// CXL events: offsets of the validity flags in the event record, and their number.
const EVENTS: [(&str, Option<(usize, u32)>); 8] = [
    ("fbcd0a77-c260-417f-85a9-088b1621eba6", Some((43, 5))),
    ("601dcbb3-9c06-4eab-b8af-4e9bfb5c9624", Some((43, 11))),
    ("fe927475-dd59-4339-a586-79bab113b774", Some((51, 2))),
    ("e71f3a40-2d29-4092-8a39-4d1c966c7c65", Some((36, 10))),
    ("77cf9271-9c02-470b-9fe4-bc7b75f2da97", None),
    ("40d26425-3396-4c4d-a5da-3d47263af425", None),
    ("8dc44363-0c96-4710-b7bf-04bb99534c3f", None),
    ("ca95afa7-f183-4018-8c2f-95268e101a2a", None),
];

fn random(len: usize) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), len)
}

fn up_to(len: usize) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..=len)
}

/// Sets the lowest bits of the number at `offset`.
fn validate(bytes: &mut [u8], offset: usize, bits: u32) {
    for bit in 0..bits {
        bytes[offset + bit as usize / 8] |= 1 << (bit % 8);
    }
}

fn set(bytes: &mut [u8], offset: usize, len: usize, value: u64) {
    bytes[offset..offset + len].copy_from_slice(&value.to_le_bytes()[..len]);
}

fn fixed() -> impl Strategy<Value = SectionBytes> {
    prop::sample::select(&FIXED[..]).prop_flat_map(|(kind, len, bits)| {
        random(len).prop_map(move |mut bytes| {
            validate(&mut bytes, 0, bits);
            (guid(kind), bytes)
        })
    })
}

/// A memory error section of UEFI 2.1, which ends behind the error's type.
fn short_memory() -> impl Strategy<Value = SectionBytes> {
    random(73).prop_map(|mut bytes| {
        validate(&mut bytes, 0, 22);
        (cper::MEMORY, bytes)
    })
}

fn arm() -> impl Strategy<Value = SectionBytes> {
    let info = random(32).prop_map(|mut info| {
        info[1] = 32;
        validate(&mut info, 2, 5);
        info
    });
    // The lengths of AArch64's general and EL1 registers are among them.
    let registers = prop_oneof![up_to(40), random(256), random(136)];
    let context = (random(8), 0..10_u8, registers).prop_map(|(mut context, kind, registers)| {
        set(&mut context, 2, 2, kind.into());
        set(&mut context, 4, 4, registers.len() as u64);
        [context, registers].concat()
    });
    let (infos, contexts) = (prop::collection::vec(info, 1..4), prop::collection::vec(context, 0..3));
    (random(40), infos, contexts, up_to(8)).prop_map(|(mut bytes, infos, contexts, vendor)| {
        validate(&mut bytes, 0, 3);
        // Vendor-specific data: bit 3.
        bytes[0] = bytes[0] & !8 | u8::from(!vendor.is_empty()) << 3;
        set(&mut bytes, 4, 2, infos.len() as u64);
        set(&mut bytes, 6, 2, contexts.len() as u64);
        bytes.extend(infos.concat());
        bytes.extend(contexts.concat());
        bytes.extend(vendor);
        let len = bytes.len() as u64;
        set(&mut bytes, 8, 4, len);
        (cper::ARM, bytes)
    })
}

fn x86() -> impl Strategy<Value = SectionBytes> {
    const CHECKS: [&str; 5] = [
        "a55701f5-e3ef-43de-ac72-249b573fad2c",
        "fc06b535-5e1f-4562-9f25-0a3b9adb63c3",
        "1cf3f8b3-c5b1-49a2-aa59-5eef92ffa63c",
        "48ab7f57-dc34-4f6c-a7d3-b0b5b0a74314",
        "00112233-4455-6677-8899-aabbccddeeff",
    ];
    let info = (random(64), prop::sample::select(&CHECKS[..])).prop_map(|(mut info, kind)| {
        info[..16].copy_from_slice(guid(kind).bytes());
        validate(&mut info, 16, 5);
        info
    });
    let registers = prop_oneof![up_to(40), random(92), random(244)];
    let context = (random(16), 0..8_u8, registers).prop_map(|(mut context, kind, registers)| {
        set(&mut context, 0, 2, kind.into());
        set(&mut context, 2, 2, registers.len() as u64);
        [context, registers].concat()
    });
    let (infos, contexts) = (prop::collection::vec(info, 0..4), prop::collection::vec(context, 0..3));
    (random(64), infos, contexts, any::<u64>()).prop_map(|(mut bytes, infos, contexts, validation)| {
        let counts = (infos.len() << 2 | contexts.len() << 8) as u64;
        set(&mut bytes, 0, 8, validation & !0x3fff | 3 | counts);
        bytes.extend(infos.concat());
        bytes.extend(contexts.concat());
        (guid("dc3ea0b0-a144-4797-b95b-53fa242b6e1d"), bytes)
    })
}

fn firmware() -> impl Strategy<Value = SectionBytes> {
    (random(32), up_to(20), 0..5_u8).prop_map(|(mut bytes, record, revision)| {
        bytes[1] = revision;
        bytes.extend(record);
        (guid("81212a96-09ed-4996-9471-8d729c8e69ed"), bytes)
    })
}

fn pci_device() -> impl Strategy<Value = SectionBytes> {
    (random(40), 1..4_usize, 0..4_usize, random(16 * 8)).prop_map(|(mut bytes, memory, io, pairs)| {
        validate(&mut bytes, 0, 5);
        set(&mut bytes, 32, 4, memory as u64);
        set(&mut bytes, 36, 4, io as u64);
        bytes.extend(&pairs[..16 * (memory + io)]);
        (guid("eb5e4685-ca66-4769-b6a2-26068b001326"), bytes)
    })
}

fn ccix() -> impl Strategy<Value = SectionBytes> {
    (random(16), random(5)).prop_map(|(mut bytes, log)| {
        set(&mut bytes, 0, 4, 21);
        validate(&mut bytes, 4, 3);
        bytes.extend(log);
        (guid("91335ef6-ebfb-4478-a6a6-88b728cf75d7"), bytes)
    })
}

fn cxl_protocol() -> impl Strategy<Value = SectionBytes> {
    let logs = prop_oneof![random(88), prop::collection::vec(any::<u8>(), 1..100)];
    (random(116), 0..12_u8, prop::collection::vec(any::<u8>(), 1..64), logs).prop_map(
        |(mut bytes, agent, dvsec, log)| {
            validate(&mut bytes, 0, 7);
            bytes[8] = agent;
            set(&mut bytes, 108, 2, dvsec.len() as u64);
            set(&mut bytes, 110, 2, log.len() as u64);
            bytes.extend(dvsec);
            bytes.extend(log);
            (guid("80b9efb4-52b5-4de3-a777-68784b771048"), bytes)
        },
    )
}

fn cxl_event() -> impl Strategy<Value = SectionBytes> {
    let log = prop_oneof![4 => random(112), 1 => prop::collection::vec(any::<u8>(), 1..130)];
    (prop::sample::select(&EVENTS[..]), random(32), log).prop_map(|((kind, validity), mut bytes, mut log)| {
        if let (Some((offset, bits)), 112) = (validity, log.len()) {
            validate(&mut log, offset, bits);
        }
        set(&mut bytes, 0, 4, 32 + log.len() as u64);
        validate(&mut bytes, 4, 3);
        bytes.extend(log);
        (guid(kind), bytes)
    })
}

fn arm_ras() -> impl Strategy<Value = SectionBytes> {
    let context = (random(16), 0..3_usize, random(48)).prop_map(|(mut context, registers, values)| {
        set(&mut context, 0, 4, 16 + 16 * registers as u64);
        set(&mut context, 6, 2, registers as u64);
        context.extend(&values[..16 * registers]);
        context
    });
    let auxiliary = (random(16), prop::collection::vec(context, 0..3), 0..3_usize, random(72)).prop_map(
        |(mut bytes, contexts, values, pairs)| {
            set(&mut bytes, 2, 2, contexts.len() as u64);
            set(&mut bytes, 12, 2, values as u64);
            bytes.extend(contexts.concat());
            let offset = bytes.len() as u64;
            set(&mut bytes, 8, 4, offset);
            bytes.extend(&pairs[..24 * values]);
            let len = bytes.len() as u64;
            set(&mut bytes, 4, 4, len);
            bytes
        },
    );
    (random(80), 0..3_usize, random(72 * 3), 0..5_u8, prop::option::of(auxiliary)).prop_map(
        |(mut bytes, errors, records, format, auxiliary)| {
            set(&mut bytes, 8, 4, errors as u64);
            set(&mut bytes, 12, 2, 80);
            let behind = 80 + 72 * errors as u64;
            set(&mut bytes, 14, 2, if auxiliary.is_some() { behind } else { 0 });
            bytes[17] = format;
            bytes.extend(&records[..72 * errors]);
            bytes.extend(auxiliary.unwrap_or_default());
            (guid("bf32d4d5-b427-4025-8495-8a9e5d4030e4"), bytes)
        },
    )
}

fn unknown() -> impl Strategy<Value = SectionBytes> {
    let kinds = prop_oneof![any::<[u8; 16]>().prop_map(Guid::from_bytes), Just(cper::IPF)];
    (kinds, up_to(100))
}

/// A section of any type. Each byte of it has a meaning.
pub(crate) fn any_type() -> impl Strategy<Value = SectionBytes> {
    prop_oneof![
        8 => fixed(),
        1 => short_memory(),
        2 => arm(),
        2 => x86(),
        1 => firmware(),
        1 => pci_device(),
        1 => ccix(),
        2 => cxl_protocol(),
        4 => cxl_event(),
        2 => arm_ras(),
        1 => unknown(),
    ]
}

/// An entry of a status block, with or without a timestamp.
pub(crate) fn entry() -> impl Strategy<Value = Vec<u8>> {
    (any_type(), random(64), random(8), any::<bool>(), up_to(3)).prop_map(
        |((kind, section), mut header, time, has_time, behind)| {
            // Bytes behind a section without a length of its own belong to it.
            let behind = if FIXED.iter().any(|(fixed, ..)| guid(fixed) == kind) { behind } else { vec![] };
            header[..16].copy_from_slice(kind.bytes());
            header[20..22].copy_from_slice(if has_time { &[0, 3] } else { &[1, 2] });
            header[22] |= 7;
            set(&mut header, 24, 4, (section.len() + behind.len()) as u64);
            [header, if has_time { time } else { vec![] }, section, behind].concat()
        },
    )
}

/// A status block with entries, with or without raw data.
pub(crate) fn block() -> impl Strategy<Value = Vec<u8>> {
    let raw_data = (up_to(5), up_to(20));
    (prop::collection::vec(entry(), 1..4), any::<u32>(), 0..4_u32, raw_data).prop_map(
        |(entries, status, severity, (gap, raw_data))| {
            let entries = entries.concat();
            let end = 20 + entries.len() as u64;
            let offset = if raw_data.is_empty() { 0 } else { end + gap.len() as u64 };
            let mut bytes = Vec::new();
            put(&mut bytes, &[(4, (status | 1).into()), (4, offset), (4, raw_data.len() as u64)]);
            put(&mut bytes, &[(4, entries.len() as u64), (4, severity.into())]);
            bytes.extend(entries);
            if !raw_data.is_empty() {
                bytes.extend(gap);
            }
            bytes.extend(raw_data);
            bytes
        },
    )
}

/// A record whose sections follow one another.
pub(crate) fn record() -> impl Strategy<Value = Vec<u8>> {
    let section = (any_type(), random(72), up_to(3));
    let sections = prop::collection::vec(section, 0..4);
    (random(128), sections, up_to(5)).prop_map(|(mut header, sections, behind)| {
        header[..4].copy_from_slice(b"CPER");
        set(&mut header, 6, 4, 0xffff_ffff);
        set(&mut header, 10, 2, sections.len() as u64);
        validate(&mut header, 16, 3);
        let (mut descriptors, mut bodies) = (Vec::new(), Vec::new());
        let start = 128 + 72 * sections.len();
        for ((kind, body), mut descriptor, gap) in sections {
            bodies.extend(gap);
            set(&mut descriptor, 0, 4, (start + bodies.len()) as u64);
            set(&mut descriptor, 4, 4, body.len() as u64);
            validate(&mut descriptor, 10, 2);
            descriptor[16..32].copy_from_slice(kind.bytes());
            descriptors.extend(descriptor);
            bodies.extend(body);
        }
        let mut record = [header, descriptors, bodies, behind].concat();
        let len = record.len() as u64;
        set(&mut record, 20, 4, len);
        record
    })
}
