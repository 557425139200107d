//! Memory errors: what the guest is told, by which way, and what it does about them.
//!
//! Handlers are the architecture's; they say what they took and have [`records`] looked at. What was told is kept in
//! [`lost`]; [`touching`] is the program that meets the error.

pub(crate) mod accessor;
pub(crate) mod errand;
pub(crate) mod lost;
pub(crate) mod records;
mod touching;
mod waiting;

use core::sync::atomic::{AtomicBool, Ordering};

use crate::arch;
use crate::cmdline::Requests;
use crate::failure::Failure;
use crate::format::Hex;
use crate::hest::{self, Notification};
use crate::memory_map::MemoryMap;
use crate::report::say;
use records::Known;

/// Whether errors are taken; before, each is an exception like any other.
static ARMED: AtomicBool = AtomicBool::new(false);

/// Finds the sources in a HEST, if there is one, and reports each; and so with those that were found elsewhere.
pub(crate) fn learn(
    memory: &MemoryMap,
    hest: Option<&'static [u8]>,
    others: impl Iterator<Item = Result<Known, Failure>>,
) -> Result<(), Failure> {
    let mut has_some = false;
    let of_hest = hest.into_iter().flat_map(hest::sources);
    for known in of_hest.map(|source| Known::of_hest(memory, &source?)).chain(others) {
        let known = known?;
        let (block, ack) = (Hex(known.block), Hex(known.ack));
        say!("error-source ", known.id, " ", known.name, " block ", block, " ack ", ack);
        records::learn(memory, known)?;
        has_some = true;
    }
    if !has_some {
        say!("error-sources none");
    }
    Ok(())
}

/// Takes errors from now on, for which the architecture is ready. What was recorded before is looked at once.
pub(crate) fn arm() {
    ARMED.store(true, Ordering::SeqCst);
    records::look(|_| true);
}

pub(crate) fn is_armed() -> bool {
    ARMED.load(Ordering::SeqCst)
}

/// Does what the command line asks for: touches words of memory, then waits to be told of errors.
pub(crate) fn run(
    requests: &Requests,
    memory: &MemoryMap,
    in_use: &core::ops::Range<u64>,
) -> Result<(), Failure> {
    for touch in requests.touches() {
        touching::check(touch, memory, in_use)?;
    }
    for touch in requests.touches() {
        if requests.touch_on == arch::processor() {
            touching::run(touch, requests.patience);
        } else {
            errand::send(requests.touch_on, touch, requests.patience)?;
        }
    }
    if requests.await_errors > 0 {
        waiting::run(requests.await_errors, requests.patience);
    }
    Ok(())
}

/// The event device says that there is a record.
pub(crate) fn event() {
    say!("error interrupt ged");
    records::look(|notification| notification.is_event());
}

/// The interrupt of sources that have one of their own. What comes before errors are taken is recorded, and looked at then.
pub(crate) fn external(gsi: u32) {
    if is_armed() {
        say!("error interrupt gsi ", gsi);
        records::look(|notification| notification == Notification::External { gsi });
    }
}
