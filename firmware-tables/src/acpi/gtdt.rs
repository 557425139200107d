//! GTDT: the processors' timers.

use platform::PrivateInterrupts;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{Immutable, IntoBytes, Unaligned};

use super::header;

/// No such block of registers.
const NONE: u64 = u64::MAX;
/// Timer flag: the timer counts on while its processor idles. Interrupt mode and polarity are clear: level, active high.
const ALWAYS_ON: u32 = 1 << 2;

/// Generic Timer Description Table, revision 2 (ACPI 6.3, 5.2.24): the next one adds the virtual timer of EL2, which
/// guests do not have.
pub(super) fn bytes(interrupts: PrivateInterrupts) -> Vec<u8> {
    let timer = |intid, flags| Timer { gsi: U32::new(intid), flags: U32::new(flags) };
    let body = Body {
        counter_control_base: U64::new(NONE),
        reserved: U32::ZERO,
        secure: timer(interrupts.secure_timer, 0),
        physical: timer(interrupts.physical_timer, ALWAYS_ON),
        virtual_timer: timer(interrupts.virtual_timer, ALWAYS_ON),
        hypervisor: timer(interrupts.hypervisor_timer, 0),
        counter_read_base: U64::new(NONE),
        platform_timer_count: U32::ZERO,
        platform_timer_offset: U32::ZERO,
    };
    header::table(*b"GTDT", 2, body.as_bytes())
}

/// The table behind its header.
#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct Body {
    counter_control_base: U64,
    reserved: U32,
    secure: Timer,
    physical: Timer,
    virtual_timer: Timer,
    hypervisor: Timer,
    counter_read_base: U64,
    platform_timer_count: U32,
    platform_timer_offset: U32,
}

const _: () = assert!(size_of::<Body>() == 96 - 36);

/// An interrupt and its flags.
#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct Timer {
    gsi: U32,
    flags: U32,
}

const _: () = assert!(size_of::<Timer>() == 8);
