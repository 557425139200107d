//! Local APICs and I/O APICs.

use platform::{Cpu, IoApic, Platform};
use zerocopy::little_endian::{U16, U32};
use zerocopy::{Immutable, IntoBytes, Unaligned};

use super::{Fixed, PREFIX, Structure, push};
use crate::BuildError;
use crate::acpi::{NAME, error_sources};

/// MADT flag PCAT_COMPAT (table 5.20): there is a pair of 8259s, to be masked before the APICs are used.
const PCAT_COMPAT: u32 = 1;
/// Local APIC flag Enabled (table 5.23): the processor is ready for use.
const ENABLED: u32 = 1;
/// MPS INTI flags (table 5.26): polarity and trigger mode as is usual on the bus.
const CONFORMING: u16 = 0;
/// MPS INTI flags: a rising edge.
const EDGE_HIGH: u16 = 0b0101;
/// The local interrupt input that takes NMIs, on every processor.
const NMI_LINT: u8 = 1;
/// The first APIC id that takes an x2APIC entry. In eight bits 255 stands for all processors, as an id and as a UID.
const FIRST_X2APIC: u32 = 255;
/// The 8254 timer's line on the ISA bus.
const TIMER_IRQ: u8 = 0;
/// The I/O APIC's pin that the timer is wired to.
const TIMER_PIN: u32 = 2;

/// All that follows the MADT's header.
pub(super) fn body(platform: &Platform, local_base: u64, io_apic: IoApic) -> Result<Vec<u8>, BuildError> {
    let fixed = Fixed { local_apic: U32::new(low("local APIC", local_base)?), flags: U32::new(PCAT_COMPAT) };
    let mut body = fixed.as_bytes().to_vec();
    let mut wide_ids = false;
    for cpu in &platform.cpus {
        wide_ids |= push_processor(&mut body, *cpu)? == Width::X2Apic;
    }
    push(
        &mut body,
        IoApicEntry {
            id: io_apic.id,
            reserved: 0,
            address: U32::new(low("I/O APIC", io_apic.base)?),
            gsi_base: U32::new(io_apic.gsi_base),
        },
    );
    push(
        &mut body,
        SourceOverride {
            bus: 0,
            source: TIMER_IRQ,
            gsi: U32::new(io_apic.gsi_base + TIMER_PIN),
            flags: U16::new(CONFORMING),
        },
    );
    // Without an entry of its own, Linux maps no line of a hardware-reduced machine but those that devices list.
    for line in error_sources::isa_lines(&platform.error_sources) {
        let (gsi, flags) = (U32::new(line.into()), U16::new(EDGE_HIGH));
        push(&mut body, SourceOverride { bus: 0, source: line, gsi, flags });
    }
    push(&mut body, LocalApicNmi { processor_uid: u8::MAX, flags: U16::new(CONFORMING), lint: NMI_LINT });
    if wide_ids {
        push(
            &mut body,
            X2ApicNmi {
                flags: U16::new(CONFORMING),
                processor_uid: U32::new(u32::MAX),
                lint: NMI_LINT,
                reserved: [0; 3],
            },
        );
    }
    Ok(body)
}

/// Which kind of entry a processor has.
#[derive(PartialEq, Eq)]
enum Width {
    Apic,
    X2Apic,
}

/// Ids below 255 must have the narrow entry, also where the processor is in x2APIC mode (5.2.12.12).
fn push_processor(body: &mut Vec<u8>, cpu: Cpu) -> Result<Width, BuildError> {
    let error = |limit| BuildError::ApicId { tables: NAME, index: cpu.index, id: cpu.hardware_id, limit };
    let id = u32::try_from(cpu.hardware_id).map_err(|_| error("x2APIC ids have 32 bits"))?;
    match u8::try_from(id) {
        Ok(apic_id) if id < FIRST_X2APIC => {
            let processor_uid = u8::try_from(cpu.index)
                .ok()
                .filter(|uid| *uid != u8::MAX)
                .ok_or_else(|| error("below id 255 the index must be below 255 too"))?;
            push(body, LocalApic { processor_uid, apic_id, flags: U32::new(ENABLED) });
            Ok(Width::Apic)
        }
        _ => {
            push(
                body,
                X2Apic {
                    reserved: U16::ZERO,
                    x2apic_id: U32::new(id),
                    flags: U32::new(ENABLED),
                    processor_uid: U32::new(cpu.index),
                },
            );
            Ok(Width::X2Apic)
        }
    }
}

fn low(what: &'static str, gpa: u64) -> Result<u32, BuildError> {
    u32::try_from(gpa).map_err(|_| BuildError::AddressTooHigh { tables: NAME, what, gpa })
}

/// Processor Local APIC (5.2.12.2, table 5.22).
#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct LocalApic {
    processor_uid: u8,
    apic_id: u8,
    flags: U32,
}

impl Structure for LocalApic {
    const TYPE: u8 = 0;
}

const _: () = assert!(PREFIX + size_of::<LocalApic>() == 8);

/// I/O APIC (5.2.12.3, table 5.24).
#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct IoApicEntry {
    id: u8,
    reserved: u8,
    address: U32,
    gsi_base: U32,
}

impl Structure for IoApicEntry {
    const TYPE: u8 = 1;
}

const _: () = assert!(PREFIX + size_of::<IoApicEntry>() == 12);

/// Interrupt Source Override (5.2.12.5, table 5.25): an ISA line that is not on the pin of its own number.
#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct SourceOverride {
    /// 0 is ISA.
    bus: u8,
    source: u8,
    gsi: U32,
    flags: U16,
}

impl Structure for SourceOverride {
    const TYPE: u8 = 2;
}

const _: () = assert!(PREFIX + size_of::<SourceOverride>() == 10);

/// Local APIC NMI (5.2.12.7, table 5.28).
#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct LocalApicNmi {
    processor_uid: u8,
    flags: U16,
    lint: u8,
}

impl Structure for LocalApicNmi {
    const TYPE: u8 = 4;
}

const _: () = assert!(PREFIX + size_of::<LocalApicNmi>() == 6);

/// Processor Local x2APIC (5.2.12.12, table 5.34).
#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct X2Apic {
    reserved: U16,
    x2apic_id: U32,
    flags: U32,
    processor_uid: U32,
}

impl Structure for X2Apic {
    const TYPE: u8 = 9;
}

const _: () = assert!(PREFIX + size_of::<X2Apic>() == 16);

/// Local x2APIC NMI (5.2.12.13, table 5.35).
#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct X2ApicNmi {
    flags: U16,
    processor_uid: U32,
    lint: u8,
    reserved: [u8; 3],
}

impl Structure for X2ApicNmi {
    const TYPE: u8 = 10;
}

const _: () = assert!(PREFIX + size_of::<X2ApicNmi>() == 12);
