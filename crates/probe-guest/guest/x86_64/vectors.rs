//! Interrupt vectors of the guest.

pub(crate) const TIMER: u8 = 0x40;
pub(crate) const SERIAL: u8 = 0x41;
pub(crate) const EVENT_DEVICE: u8 = 0x42;
pub(crate) const WAKE: u8 = 0x43;
/// The vector of the first error source with an interrupt of its own; further ones follow.
pub(crate) const FIRST_ERROR: u8 = 0x50;
pub(crate) const SPURIOUS: u8 = 0xff;
