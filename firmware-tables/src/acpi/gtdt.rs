//! GTDT: the processors' timers.

use zerocopy::little_endian::{U32, U64};
use zerocopy::{Immutable, IntoBytes, Unaligned};

use super::{AcpiTable, Body, Context, version};
use crate::BuildError;

/// The machine does not have that register block.
const NONE: u64 = u64::MAX;
/// Timer flag Always-on Capability: the timer counts while its processor idles. Interrupt mode and polarity are clear:
/// level, active high.
const ALWAYS_ON: u32 = 1 << 2;

/// Generic Timer Description Table (ACPI 6.5, 5.2.25), on aarch64, without platform timers.
pub(super) const TABLE: AcpiTable =
    AcpiTable { signature: *b"GTDT", name: "gtdt", file_name: "gtdt.aml", body };

fn body(context: &Context<'_>) -> Result<Option<Body>, BuildError> {
    let Some(interrupts) = context.platform.private_interrupts else { return Ok(None) };
    let timer = |intid, flags| Timer { gsi: U32::new(intid), flags: U32::new(flags) };
    let timers = Timers {
        counter_control_base: U64::new(NONE),
        reserved: U32::ZERO,
        secure: timer(interrupts.secure_timer, 0),
        physical: timer(interrupts.physical_timer, ALWAYS_ON),
        virtual_timer: timer(interrupts.virtual_timer, ALWAYS_ON),
        hypervisor: timer(interrupts.hypervisor_timer, 0),
        counter_read_base: U64::new(NONE),
        platform_timer_count: U32::ZERO,
        platform_timer_offset: U32::ZERO,
        // Guests do not have EL2.
        virtual_hypervisor: timer(0, 0),
    };
    Ok(Some(Body { revision: version::GTDT, bytes: timers.as_bytes().to_vec() }))
}

/// The table without its header.
#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct Timers {
    counter_control_base: U64,
    reserved: U32,
    secure: Timer,
    physical: Timer,
    virtual_timer: Timer,
    hypervisor: Timer,
    counter_read_base: U64,
    platform_timer_count: U32,
    platform_timer_offset: U32,
    virtual_hypervisor: Timer,
}

const _: () = assert!(size_of::<Timers>() == 104 - 36);

/// The interrupt of a timer and its flags.
#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct Timer {
    gsi: U32,
    flags: U32,
}

const _: () = assert!(size_of::<Timer>() == 8);
