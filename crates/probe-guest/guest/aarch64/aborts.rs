//! External aborts and SErrors, which report consumed memory errors (Arm ARM, D1.3 and ESR_EL1).

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
/// FnV: FAR_EL1 is not valid.
const FAR_NOT_VALID: u64 = 1 << 10;

/// Whether the current exception is an external abort, and errors are handled.
pub(crate) fn is_external() -> bool {
    let syndrome = read_register!("esr_el1");
    errors::is_armed() && ABORTS.contains(&(syndrome >> 26 & 0x3f)) && syndrome & 0x3f == EXTERNAL
}

pub(crate) fn synchronous() {
    let (syndrome, pc) = (read_register!("esr_el1"), read_register!("elr_el1"));
    let far = Far((syndrome & FAR_NOT_VALID == 0).then(|| read_register!("far_el1")));
    let own = processors::own_index();
    say!("error abort vcpu ", own, " esr ", Hex(syndrome), " far ", far, " pc ", Hex(pc));
    records::process(|notification| notification == Notification::Sea);
    if !abandon_access(true) {
        fail(&Failure::with("external abort outside of a touched word, at", pc));
    }
}

pub(crate) fn serror() {
    let own = processors::own_index();
    say!("error serror vcpu ", own, " esr ", Hex(read_register!("esr_el1")));
    records::process(|notification| notification == Notification::Sei);
    // The interrupted access may have consumed the error, and would do so again.
    abandon_access(true);
}

/// Abandons the interrupted instruction if it is an access that cannot be made (`must_abandon`), or whose page was reported as
/// poisoned. Returns whether it did.
pub(crate) fn abandon_access(must_abandon: bool) -> bool {
    let resume = accessor::resume_address(read_register!("elr_el1"), must_abandon);
    if let Some(pc) = resume {
        // SAFETY: the handler returns to code that continues after the interrupted access.
        unsafe { write_register!("elr_el1", pc) };
    }
    resume.is_some()
}

/// The fault address; `None` if it is not valid.
struct Far(Option<u64>);

impl Show for Far {
    fn show(&self, out: &mut dyn Sink) {
        match self.0 {
            Some(address) => Hex(address).show(out),
            None => "invalid".show(out),
        }
    }
}
