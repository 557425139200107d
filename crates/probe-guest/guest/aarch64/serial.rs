//! The console: a PL011 (Arm DDI 0183G, 3.3) at 0x9000000.

use core::sync::atomic::{AtomicBool, Ordering};

use super::cpu;
use crate::dsdt::Interrupt;
use crate::format::Sink;
use crate::physical::Register;
use crate::queue::Queue;

/// Where it always is.
pub(crate) const BASE: u64 = 0x900_0000;
/// Its interrupt, where no table says another.
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
/// Less has come in than the FIFO waits for, but nothing more.
const RECEIVE_TIMEOUT: u32 = 1 << 6;

/// Whether a transmit interrupt was taken.
static TRANSMITTED_CAME: AtomicBool = AtomicBool::new(false);

static INPUT: Queue = Queue::new();

/// Writes to the port, waiting for room: somebody who stops reading stops the guest.
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

/// Sets the line up. The receive buffer keeps what is in it.
pub(crate) fn set_up() {
    register(INTERRUPT_MASK).write(0);
    register(LINE_CONTROL).write(EIGHT_BITS_AND_FIFOS);
    register(CONTROL).write(ENABLE);
}

/// Asks for an interrupt when there is room to transmit, which the report so far has made.
pub(crate) fn ask_for_transmitted() {
    register(INTERRUPT_MASK).write(TRANSMITTED);
}

pub(crate) fn transmitted_came() -> bool {
    TRANSMITTED_CAME.load(Ordering::Relaxed)
}

/// The next byte that came in, with interrupts off. Where there is none, the next one raises an interrupt.
pub(crate) fn input() -> Option<u8> {
    if let Some(byte) = INPUT.take() {
        return Some(byte);
    }
    // Again, since the handler stops asking when it has no room.
    register(INTERRUPT_MASK).write(RECEIVED | RECEIVE_TIMEOUT);
    fetch();
    INPUT.take()
}

/// Serves what the port asks for.
pub(crate) fn interrupt() {
    let asked = register(MASKED_INTERRUPTS).read();
    register(INTERRUPT_CLEAR).write(asked);
    if asked & TRANSMITTED != 0 {
        register(INTERRUPT_MASK).write(0);
        TRANSMITTED_CAME.store(true, Ordering::Relaxed);
    }
    if asked & (RECEIVED | RECEIVE_TIMEOUT) != 0 {
        fetch();
    }
}

/// Takes from the port what there is room for. The rest stays there, which holds up whoever sends it.
fn fetch() {
    while register(FLAGS).read() & RECEIVE_EMPTY == 0 {
        if INPUT.is_full() {
            register(INTERRUPT_MASK).write(0);
            return;
        }
        INPUT.keep(register(DATA).read() as u8);
    }
}

fn register(offset: u64) -> Register {
    // SAFETY: by the contract of the built-in guest, a PL011 lies there; devices are mapped from the start.
    unsafe { Register::at(BASE + offset) }
}
