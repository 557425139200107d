//! `probe.await-errors`: waits for a number of reports about pages.

use super::{poisoned, records};
use crate::arch;
use crate::format::{Show, Sink};
use crate::hest::Notification;
use crate::report::{fail, say};

pub(super) fn run(wanted: u32, timeout_ms: u32) {
    say!("awaiting ", wanted, " errors");
    let is_complete = arch::wait_halted(timeout_ms, || {
        records::process(|notification| notification == Notification::Polled);
        arch::poll_errors();
        poisoned::reports() >= wanted
    });
    if !is_complete {
        fail(&TooFew { reported: poisoned::reports(), wanted });
    }
    say!("error total ", poisoned::reports());
}

struct TooFew {
    reported: u32,
    wanted: u32,
}

impl Show for TooFew {
    fn show(&self, out: &mut dyn Sink) {
        "errors reported: ".show(out);
        self.reported.show(out);
        " of ".show(out);
        self.wanted.show(out);
    }
}
