//! `probe.await-errors`: waits until the guest was told of so many pages.

use super::{lost, records};
use crate::arch;
use crate::format::{Show, Sink};
use crate::hest::Notification;
use crate::report::{fail, say};

pub(super) fn run(wanted: u32, patience: u32) {
    say!("awaiting ", wanted, " errors");
    let came = arch::wait_halted(patience, || {
        records::look(|notification| notification == Notification::Polled);
        arch::look_for_errors();
        lost::told() >= wanted
    });
    if !came {
        fail(&TooFew { told: lost::told(), wanted });
    }
    say!("error total ", lost::told());
}

struct TooFew {
    told: u32,
    wanted: u32,
}

impl Show for TooFew {
    fn show(&self, out: &mut dyn Sink) {
        "errors told: ".show(out);
        self.told.show(out);
        " of ".show(out);
        self.wanted.show(out);
    }
}
