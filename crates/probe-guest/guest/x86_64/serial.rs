//! The console: a 16550 at port 0x3f8 (National Semiconductor PC16550D, 8.0).

use core::sync::atomic::{AtomicBool, Ordering};

use super::cpu::{port_in, port_out};
use crate::format::Sink;
use crate::queue::Queue;

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

static TRANSMIT_INTERRUPT_TAKEN: AtomicBool = AtomicBool::new(false);

static INPUT: Queue = Queue::new();

/// Writes to the port. Blocks while the transmitter is full.
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

/// Initialises the port. The receive buffer is preserved.
pub(crate) fn set_up() {
    port_out(INTERRUPT_ENABLE, 0);
    port_out(LINE_CONTROL, EIGHT_BITS);
    port_out(MODEM_CONTROL, DTR_RTS_OUT2);
}

/// Enables the transmitter-empty interrupt.
pub(crate) fn enable_transmit_interrupt() {
    port_out(INTERRUPT_ENABLE, ENABLE_TRANSMITTER_EMPTY);
}

/// Whether a transmitter-empty interrupt was taken.
pub(crate) fn transmit_interrupt_taken() -> bool {
    TRANSMIT_INTERRUPT_TAKEN.load(Ordering::Relaxed)
}

/// The next received byte. Call with interrupts off. If `None`, the next byte raises an interrupt.
pub(crate) fn input() -> Option<u8> {
    if let Some(byte) = INPUT.pop() {
        return Some(byte);
    }
    // The handler disables the interrupt when the queue is full. Some ports raise no interrupt for bytes received before it is
    // enabled again, so these are fetched here.
    port_out(INTERRUPT_ENABLE, ENABLE_RECEIVED);
    fetch();
    INPUT.pop()
}

/// Handles all pending interrupts of the port.
pub(crate) fn interrupt() {
    loop {
        // The low four bits; bit 0 is clear while an interrupt is pending.
        match port_in(INTERRUPT_IDENTIFICATION) & 0xf {
            0x2 => {
                port_out(INTERRUPT_ENABLE, 0);
                TRANSMIT_INTERRUPT_TAKEN.store(true, Ordering::Relaxed);
            }
            0x4 | 0xc => fetch(),
            0x6 => _ = port_in(LINE_STATUS),
            0x0 => _ = port_in(MODEM_STATUS),
            _ => return,
        }
    }
}

/// Moves received bytes to the queue until it is full. Others stay in the port, which stops the sender.
fn fetch() {
    while port_in(LINE_STATUS) & STATUS_RECEIVED != 0 {
        if INPUT.is_full() {
            port_out(INTERRUPT_ENABLE, 0);
            return;
        }
        INPUT.push(port_in(DATA));
    }
}
