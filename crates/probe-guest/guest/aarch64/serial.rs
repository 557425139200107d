//! The console: a PL011 (Arm DDI 0183G, 3.3) at 0x9000000.

use core::sync::atomic::{AtomicBool, Ordering};

use super::cpu;
use crate::dsdt::Interrupt;
use crate::format::Sink;
use crate::physical::Register;
use crate::queue::Queue;

/// Its fixed address.
pub(crate) const BASE: u64 = 0x900_0000;
/// Its interrupt, unless a table lists another one.
pub(crate) const INTERRUPT: Interrupt = Interrupt { gsi: 33, level: true, active_low: false };

const DATA: u64 = 0x00;
const FLAGS: u64 = 0x18;
const LINE_CONTROL: u64 = 0x2c;
const CONTROL: u64 = 0x30;
const INTERRUPT_MASK: u64 = 0x38;
const MASKED_INTERRUPTS: u64 = 0x40;
const INTERRUPT_CLEAR: u64 = 0x44;

const RECEIVE_EMPTY: u32 = 1 << 4;
const TRANSMIT_FULL: u32 = 1 << 5;
const EIGHT_BITS_AND_FIFOS: u32 = 3 << 5 | 1 << 4;
/// Receiver, transmitter, all.
const ENABLE: u32 = 1 << 9 | 1 << 8 | 1 << 0;
const RECEIVED: u32 = 1 << 4;
const TRANSMITTED: u32 = 1 << 5;
/// Bytes are below the FIFO's trigger level and no more arrive.
const RECEIVE_TIMEOUT: u32 = 1 << 6;

static TRANSMIT_INTERRUPT_TAKEN: AtomicBool = AtomicBool::new(false);

static INPUT: Queue = Queue::new();

/// Writes to the port. Blocks while the transmitter is full.
pub(crate) struct Console;

impl Sink for Console {
    fn put(&mut self, byte: u8) {
        if byte == b'\n' {
            self.put(b'\r');
        }
        while register(FLAGS).read() & TRANSMIT_FULL != 0 {
            cpu::pause();
        }
        register(DATA).write(u32::from(byte));
    }
}

/// Initialises the port. The receive buffer is preserved.
pub(crate) fn set_up() {
    register(INTERRUPT_MASK).write(0);
    register(LINE_CONTROL).write(EIGHT_BITS_AND_FIFOS);
    register(CONTROL).write(ENABLE);
}

/// Enables the transmit interrupt. It is pending once the FIFO has drained to its trigger level, as it has after earlier output.
pub(crate) fn enable_transmit_interrupt() {
    register(INTERRUPT_MASK).write(TRANSMITTED);
}

/// Whether a transmit interrupt was taken.
pub(crate) fn transmit_interrupt_taken() -> bool {
    TRANSMIT_INTERRUPT_TAKEN.load(Ordering::Relaxed)
}

/// The next received byte. Call with interrupts off. If `None`, the next byte raises an interrupt.
pub(crate) fn input() -> Option<u8> {
    if let Some(byte) = INPUT.pop() {
        return Some(byte);
    }
    // The handler disables the interrupt when the queue is full.
    register(INTERRUPT_MASK).write(RECEIVED | RECEIVE_TIMEOUT);
    fetch();
    INPUT.pop()
}

/// Handles all pending interrupts of the port.
pub(crate) fn interrupt() {
    let pending = register(MASKED_INTERRUPTS).read();
    register(INTERRUPT_CLEAR).write(pending);
    if pending & TRANSMITTED != 0 {
        register(INTERRUPT_MASK).write(0);
        TRANSMIT_INTERRUPT_TAKEN.store(true, Ordering::Relaxed);
    }
    if pending & (RECEIVED | RECEIVE_TIMEOUT) != 0 {
        fetch();
    }
}

/// Moves received bytes to the queue until it is full. Others stay in the port, which stops the sender.
fn fetch() {
    while register(FLAGS).read() & RECEIVE_EMPTY == 0 {
        if INPUT.is_full() {
            register(INTERRUPT_MASK).write(0);
            return;
        }
        INPUT.push(register(DATA).read() as u8);
    }
}

fn register(offset: u64) -> Register {
    // SAFETY: the built-in guest requires a PL011 there; devices are mapped from the start.
    unsafe { Register::at(BASE + offset) }
}
