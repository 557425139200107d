//! ACPI tables with the interrupt of one device: the architected timer and the console.

use crate::acpi::{GenericAddress, Header};
use crate::dsdt::Interrupt;
use crate::failure::Failure;
use crate::wire::{read_at, wire};

wire! {
    /// Generic Timer Description Table (ACPI 6.5, 5.2.25), up to the virtual timer.
    struct Gtdt: 72 {
        _header: Header,
        _counter: u64,
        _reserved: u32,
        _secure_timer: [u8; 8],
        _physical_timer: [u8; 8],
        virtual_timer: u32,
        virtual_timer_flags: u32,
    }
}

wire! {
    /// Serial Port Console Redirection Table (Microsoft, revision 2), up to the interrupt.
    struct Spcr: 58 {
        _header: Header,
        kind: u8,
        _reserved: [u8; 3],
        base: GenericAddress,
        _interrupt_type: u8,
        _irq: u8,
        gsi: u32,
    }
}

/// Edge-triggered, in the flags of a timer.
const EDGE: u32 = 1 << 0;
/// Active low, likewise.
const ACTIVE_LOW: u32 = 1 << 1;

/// The virtual timer's interrupt.
pub(crate) fn virtual_timer(gtdt: &[u8]) -> Result<Interrupt, Failure> {
    let gtdt = read_at::<Gtdt>(gtdt, 0).ok_or(Failure::new("GTDT: too short"))?;
    let flags = gtdt.virtual_timer_flags;
    Ok(Interrupt { gsi: gtdt.virtual_timer, level: flags & EDGE == 0, active_low: flags & ACTIVE_LOW != 0 })
}

/// Address and interrupt of the console: a PL011 (3) or an SBSA generic UART (0xe).
pub(crate) fn console(spcr: &[u8]) -> Result<(u64, Interrupt), Failure> {
    let spcr = read_at::<Spcr>(spcr, 0).ok_or(Failure::new("SPCR: too short"))?;
    if !matches!(spcr.kind, 3 | 0xe) {
        return Err(Failure::with("SPCR: interface type", u64::from(spcr.kind)));
    }
    Ok((spcr.base.address, Interrupt { gsi: spcr.gsi, level: true, active_low: false }))
}
