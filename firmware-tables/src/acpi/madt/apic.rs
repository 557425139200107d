//! Local APICs and I/O APICs.

use platform::{Cpu, IoApic, Platform};
use zerocopy::little_endian::{U16, U32};
use zerocopy::{Immutable, IntoBytes, Unaligned};

use super::{Fixed, MADT, PREFIX, Structure, push};
use crate::BuildError;
use crate::acpi::error_sources;

/// MADT flag PCAT_COMPAT (table 5.20): the machine has two 8259s, to be masked before the APICs are used.
const PCAT_COMPAT: u32 = 1;
/// Local APIC flag Enabled (table 5.23): the processor is ready for use.
const ENABLED: u32 = 1;
/// MPS INTI flags (table 5.26): polarity and trigger mode conform to the bus.
const CONFORMING: u16 = 0;
/// MPS INTI flags: a rising edge.
const EDGE_HIGH: u16 = 0b0101;
/// The local interrupt input (LINT) for NMIs, on every processor.
const NMI_LINT: u8 = 1;
/// The lowest APIC id with an x2APIC entry: in eight-bit fields, 255 means all processors, as an id and as a UID.
const FIRST_X2APIC: u32 = 255;
/// The 8254 timer's line on the ISA bus.
const TIMER_IRQ: u8 = 0;
/// The I/O APIC's pin that the timer is wired to.
const TIMER_PIN: u32 = 2;

/// The MADT without its header.
pub(super) fn body(platform: &Platform, local_base: u64, io_apic: IoApic) -> Result<Vec<u8>, BuildError> {
    let fixed = Fixed {
        local_apic: U32::new(low("local interrupt controller address", local_base)?),
        flags: U32::new(PCAT_COMPAT),
    };
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
            address: U32::new(low("I/O APIC address", io_apic.base)?),
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
    // On a hardware-reduced machine, Linux maps only ISA interrupts that a device lists or an override describes.
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

/// The kind of a processor's entry.
#[derive(PartialEq, Eq)]
enum Width {
    Apic,
    X2Apic,
}

/// Ids below 255 must have a Local APIC entry, even in x2APIC mode (5.2.12.12).
fn push_processor(body: &mut Vec<u8>, cpu: Cpu) -> Result<Width, BuildError> {
    let error = |limit| BuildError::ApicId { table: MADT, index: cpu.index, id: cpu.hardware_id, limit };
    let id = u32::try_from(cpu.hardware_id)
        .map_err(|_| error("an x2APIC id has at most 32 bits (ACPI 6.5, 5.2.12.12)"))?;
    match u8::try_from(id) {
        Ok(apic_id) if id < FIRST_X2APIC => {
            let processor_uid =
                u8::try_from(cpu.index).ok().filter(|uid| *uid != u8::MAX).ok_or_else(|| {
                    error("with an id below 255, the processor UID is at most 254 (ACPI 6.5, 5.2.12.2)")
                })?;
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

fn low(field: &'static str, value: u64) -> Result<u32, BuildError> {
    u32::try_from(value).map_err(|_| BuildError::FieldTooNarrow { table: MADT, field, value })
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

/// Interrupt Source Override (5.2.12.5, table 5.25): an ISA interrupt whose GSI, polarity or trigger differs.
#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct SourceOverride {
    /// 0: ISA.
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
