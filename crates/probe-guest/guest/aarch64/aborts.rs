//! External aborts and SErrors: what errors in memory are to a processor (Arm ARM, D1.3 and ESR_EL1).

use super::cpu::{read_register, write_register};
use super::processors;
use crate::errors::{self, accessor, records};
use crate::failure::Failure;
use crate::format::{Hex, Show, Sink};
use crate::hest::Notification;
use crate::report::{fail, say};

/// Exception classes, bits 31:26: instruction and data aborts, from a lower exception level and from the same.
const ABORTS: [u64; 4] = [0x20, 0x21, 0x24, 0x25];
/// Fault status, bits 5:0: a synchronous external abort, not on a translation table walk.
const EXTERNAL: u64 = 0x10;
/// FnV: the fault address is not valid.
const FAR_NOT_VALID: u64 = 1 << 10;

/// Whether the exception that is being taken is an external abort, and these are taken by now.
pub(crate) fn is_external() -> bool {
    let syndrome = read_register!("esr_el1");
    errors::is_armed() && ABORTS.contains(&(syndrome >> 26 & 0x3f)) && syndrome & 0x3f == EXTERNAL
}

pub(crate) fn synchronous() {
    let (syndrome, pc) = (read_register!("esr_el1"), read_register!("elr_el1"));
    let far = Far((syndrome & FAR_NOT_VALID == 0).then(|| read_register!("far_el1")));
    let own = processors::own_index();
    say!("error abort vcpu ", own, " esr ", Hex(syndrome), " far ", far, " pc ", Hex(pc));
    records::look(|notification| notification == Notification::Sea);
    if !leave(true) {
        fail(&Failure::with("external abort in what the guest needs, at", pc));
    }
}

pub(crate) fn serror() {
    let own = processors::own_index();
    say!("error serror vcpu ", own, " esr ", Hex(read_register!("esr_el1")));
    records::look(|notification| notification == Notification::Sei);
    // What it has interrupted may be what met the error, and would meet it again.
    leave(true);
}

/// Has the processor leave an access that it must not make (any more), if it is at one: whether it was.
pub(crate) fn leave(is_hopeless: bool) -> bool {
    let help = accessor::help(read_register!("elr_el1"), is_hopeless);
    if let Some(pc) = help {
        // SAFETY: the handler returns to code that goes on from what it has interrupted.
        unsafe { write_register!("elr_el1", pc) };
    }
    help.is_some()
}

/// The fault address, where there is one.
struct Far(Option<u64>);

impl Show for Far {
    fn show(&self, out: &mut dyn Sink) {
        match self.0 {
            Some(address) => Hex(address).show(out),
            None => "invalid".show(out),
        }
    }
}
