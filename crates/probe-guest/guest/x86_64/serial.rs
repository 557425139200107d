//! The console: a 16550 at port 0x3f8 (National Semiconductor PC16550D, 8.0).

use core::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};

use super::cpu::{port_in, port_out};
use crate::format::Sink;

/// Global system interrupt of the port, rising edge.
pub(crate) const GSI: u32 = 4;

const DATA: u16 = 0x3f8;
const INTERRUPT_ENABLE: u16 = DATA + 1;
const INTERRUPT_IDENTIFICATION: u16 = DATA + 2;
const LINE_CONTROL: u16 = DATA + 3;
const MODEM_CONTROL: u16 = DATA + 4;
const LINE_STATUS: u16 = DATA + 5;
const MODEM_STATUS: u16 = DATA + 6;

const ENABLE_RECEIVED: u8 = 1 << 0;
const ENABLE_TRANSMITTER_EMPTY: u8 = 1 << 1;
const STATUS_RECEIVED: u8 = 1 << 0;
const STATUS_TRANSMITTER_EMPTY: u8 = 1 << 5;
const EIGHT_BITS: u8 = 3;
/// DTR, RTS, and OUT2, which lets a PC's serial interrupt through.
const DTR_RTS_OUT2: u8 = 0x0b;

/// Whether a transmitter-empty interrupt was taken.
static TRANSMITTER_EMPTY: AtomicBool = AtomicBool::new(false);

/// What came in and nobody has read; one writer, the interrupt, and one reader.
static INPUT: [AtomicU8; 256] = [const { AtomicU8::new(0) }; 256];
static WRITTEN: AtomicUsize = AtomicUsize::new(0);
static READ: AtomicUsize = AtomicUsize::new(0);

/// Writes to the port, waiting for room: somebody who stops reading stops the guest.
pub(crate) struct Console;

impl Sink for Console {
    fn put(&mut self, byte: u8) {
        if byte == b'\n' {
            self.put(b'\r');
        }
        while port_in(LINE_STATUS) & STATUS_TRANSMITTER_EMPTY == 0 {
            super::cpu::pause();
        }
        port_out(DATA, byte);
    }
}

/// Sets the line up. The receive buffer keeps what is in it.
pub(crate) fn set_up() {
    port_out(INTERRUPT_ENABLE, 0);
    port_out(LINE_CONTROL, EIGHT_BITS);
    port_out(MODEM_CONTROL, DTR_RTS_OUT2);
}

/// Asks for an interrupt when the transmitter is empty, which it soon is.
pub(crate) fn ask_for_transmitter_empty() {
    port_out(INTERRUPT_ENABLE, ENABLE_TRANSMITTER_EMPTY);
}

pub(crate) fn transmitter_empty_came() -> bool {
    TRANSMITTER_EMPTY.load(Ordering::Relaxed)
}

/// Asks for interrupts when something comes in.
pub(crate) fn ask_for_input() {
    port_out(INTERRUPT_ENABLE, ENABLE_RECEIVED);
}

/// The next byte that came in.
pub(crate) fn input() -> Option<u8> {
    let read = READ.load(Ordering::Relaxed);
    if read == WRITTEN.load(Ordering::Acquire) {
        return None;
    }
    READ.store(read.wrapping_add(1), Ordering::Release);
    INPUT.get(read % INPUT.len()).map(|slot| slot.load(Ordering::Relaxed))
}

/// Serves the port until it asks for nothing more.
pub(crate) fn interrupt() {
    loop {
        // The low four bits; bit 0 is clear while an interrupt is pending.
        match port_in(INTERRUPT_IDENTIFICATION) & 0xf {
            0x2 => {
                port_out(INTERRUPT_ENABLE, 0);
                TRANSMITTER_EMPTY.store(true, Ordering::Relaxed);
            }
            0x4 | 0xc => {
                while port_in(LINE_STATUS) & STATUS_RECEIVED != 0 {
                    keep(port_in(DATA));
                }
            }
            0x6 => _ = port_in(LINE_STATUS),
            0x0 => _ = port_in(MODEM_STATUS),
            _ => return,
        }
    }
}

/// Keeps a byte that came in; one for which there is no room is lost.
fn keep(byte: u8) {
    let written = WRITTEN.load(Ordering::Relaxed);
    if written.wrapping_sub(READ.load(Ordering::Acquire)) < INPUT.len()
        && let Some(slot) = INPUT.get(written % INPUT.len())
    {
        slot.store(byte, Ordering::Relaxed);
        WRITTEN.store(written.wrapping_add(1), Ordering::Release);
    }
}
