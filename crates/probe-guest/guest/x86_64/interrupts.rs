//! Exceptions and interrupts.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::{cpu, local_apic, machine_check, processors, serial};
use crate::errors::{self, accessor, records};
use crate::event_device;
use crate::failure::Failure;
use crate::format::{Hex, Show, Sink};
use crate::hest::Notification;
use crate::report::{fail, say};

/// Vectors of the interrupts that the guest asks for.
pub(crate) const TIMER: u8 = 0x40;
pub(crate) const SERIAL: u8 = 0x41;
pub(crate) const EVENT_DEVICE: u8 = 0x42;
pub(crate) const WAKE: u8 = 0x43;
/// Vectors of error sources that have an interrupt of their own begin here.
pub(crate) const FIRST_ERROR: u8 = 0x50;
pub(crate) const SPURIOUS: u8 = 0xff;

const EXCEPTIONS: u64 = 32;
const NMI: u64 = 2;
const PAGE_FAULT: u64 = 14;
const MACHINE_CHECK: u64 = 18;

/// Two words a descriptor.
static TABLE: [AtomicU64; 512] = [const { AtomicU64::new(0) }; 512];
static TIMER_CAME: AtomicBool = AtomicBool::new(false);

unsafe extern "C" {
    /// Code of 16 bytes for each vector.
    static interrupt_entries: u8;
}

/// What `interrupt_common` left on the stack.
#[repr(C)]
pub(crate) struct Frame {
    _registers: [u64; 9],
    vector: u64,
    error: u64,
    pub(crate) rip: u64,
    _cs: u64,
    _rflags: u64,
    _rsp: u64,
    _ss: u64,
}

/// Fills the interrupt descriptor table; each processor then loads it.
pub(crate) fn fill_table() {
    let first = (&raw const interrupt_entries) as u64;
    for (vector, descriptor) in TABLE.chunks_exact(2).enumerate() {
        let [low, high] = descriptor else { continue };
        let entry = first + 16 * vector as u64;
        low.store(interrupt_gate(entry), Ordering::Relaxed);
        high.store(entry >> 32, Ordering::Relaxed);
    }
}

/// Loads the table that `fill_table` filled.
pub(crate) fn load_table() {
    // SAFETY: the table is static and filled.
    unsafe { cpu::load_idt((&raw const TABLE) as u64, (size_of_val(&TABLE) - 1) as u16) };
}

pub(crate) fn timer_came() -> bool {
    TIMER_CAME.load(Ordering::Relaxed)
}

/// The low word of a 64-bit interrupt gate to code segment 0x10 (Intel SDM 3A, 7.14.1, figure 7-8).
fn interrupt_gate(entry: u64) -> u64 {
    const PRESENT_INTERRUPT_GATE: u64 = 0x8e00;
    const CODE: u64 = 0x10;
    entry & 0xffff | CODE << 16 | PRESENT_INTERRUPT_GATE << 32 | (entry & 0xffff_0000) << 32
}

#[unsafe(no_mangle)]
extern "C" fn interrupt(frame: &mut Frame) {
    match frame.vector {
        NMI if errors::is_armed() => return nmi(frame),
        MACHINE_CHECK if machine_check::is_set_up() => return machine_check::exception(frame),
        ..EXCEPTIONS => fail(&Exception(frame)),
        vector if vector == u64::from(SPURIOUS) => return,
        vector if vector == u64::from(TIMER) => TIMER_CAME.store(true, Ordering::Relaxed),
        vector if vector == u64::from(SERIAL) => serial::interrupt(),
        vector if vector == u64::from(EVENT_DEVICE) => event_device::interrupt(),
        vector if vector == u64::from(WAKE) => {}
        vector => match error_gsi(vector) {
            Some(gsi) => errors::external(gsi),
            None => fail(&Failure::with("interrupt that nobody asked for, vector", vector)),
        },
    }
    local_apic::end_of_interrupt();
    frame.leave(false);
}

impl Frame {
    /// Has the processor leave an access that it must not make (any more), if it is at one: whether it was.
    pub(crate) fn leave(&mut self, is_hopeless: bool) -> bool {
        let help = accessor::help(self.rip, is_hopeless);
        self.rip = help.unwrap_or(self.rip);
        help.is_some()
    }
}

fn nmi(frame: &mut Frame) {
    say!("error nmi vcpu ", processors::own_index());
    records::look(|notification| notification == Notification::Nmi);
    frame.leave(false);
}

/// The interrupt of the error source whose vector that is.
fn error_gsi(vector: u64) -> Option<u32> {
    let index = vector.checked_sub(u64::from(FIRST_ERROR))?;
    records::external().find_map(|(place, gsi)| (place as u64 == index).then_some(gsi))
}

struct Exception<'a>(&'a Frame);

impl Show for Exception<'_> {
    fn show(&self, out: &mut dyn Sink) {
        let Exception(frame) = self;
        "exception ".show(out);
        frame.vector.show(out);
        " at RIP ".show(out);
        Hex(frame.rip).show(out);
        " error ".show(out);
        Hex(frame.error).show(out);
        if frame.vector == PAGE_FAULT {
            " address ".show(out);
            Hex(cpu::read_cr2()).show(out);
        }
    }
}
