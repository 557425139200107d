//! Memory errors: how the guest is notified of them, and how it handles them.
//!
//! The architecture's exception and interrupt handlers print what they received and call [`records`]. Reported pages are kept in
//! [`poisoned`]; [`repeated_touch`] consumes errors.

pub(crate) mod accessor;
mod await_errors;
pub(crate) mod poisoned;
pub(crate) mod records;
pub(crate) mod remote_touch;
mod repeated_touch;

use core::sync::atomic::{AtomicBool, Ordering};

use crate::arch;
use crate::cmdline::Requests;
use crate::failure::Failure;
use crate::format::Hex;
use crate::hest::{self, Notification};
use crate::injection;
use crate::memory_map::MemoryMap;
use crate::report::say;
use records::ErrorSource;

/// Whether errors are handled. Before that, each of them is a fatal exception.
static ARMED: AtomicBool = AtomicBool::new(false);

/// Registers and reports the error sources of a HEST, if there is one, and those of `others`.
pub(crate) fn register_sources(
    memory: &MemoryMap,
    hest: Option<&'static [u8]>,
    others: impl Iterator<Item = Result<ErrorSource, Failure>>,
) -> Result<(), Failure> {
    let mut has_some = false;
    let of_hest = hest.into_iter().flat_map(hest::sources);
    for source in of_hest.map(|source| ErrorSource::of_hest(memory, &source?)).chain(others) {
        let source = source?;
        let (block, ack) = (Hex(source.block), Hex(source.ack));
        say!("error-source ", source.id, " ", source.name, " block ", block, " ack ", ack);
        records::register(memory, source)?;
        has_some = true;
    }
    if !has_some {
        say!("error-sources none");
    }
    Ok(())
}

/// Handles errors from now on. The architecture's handlers must be set up. Records that are already present are processed first.
pub(crate) fn arm() {
    ARMED.store(true, Ordering::SeqCst);
    records::process(|_| true);
}

pub(crate) fn is_armed() -> bool {
    ARMED.load(Ordering::SeqCst)
}

/// Executes the requests of the command line: injects an error, touches words of memory, then waits for error reports.
pub(crate) fn run(
    requests: &Requests,
    memory: &MemoryMap,
    in_use: &core::ops::Range<u64>,
) -> Result<(), Failure> {
    for touch in requests.touches() {
        repeated_touch::check(touch, memory, in_use)?;
    }
    if let Some(injection) = requests.injection() {
        injection::run(memory, injection, requests.timeout_ms)?;
    }
    for touch in requests.touches() {
        if requests.touch_on == arch::processor() {
            repeated_touch::run(touch, requests.timeout_ms);
        } else {
            remote_touch::request(requests.touch_on, touch, requests.timeout_ms)?;
        }
    }
    if requests.await_errors > 0 {
        await_errors::run(requests.await_errors, requests.timeout_ms);
    }
    Ok(())
}

/// Handles a hardware error event of the event device.
pub(crate) fn event() {
    say!("error interrupt ged");
    records::process(|notification| notification.is_event());
}

/// Handles the interrupt of an `external` source. Records that arrive before [`arm`] are processed by it.
pub(crate) fn external(gsi: u32) {
    if is_armed() {
        say!("error interrupt gsi ", gsi);
        records::process(|notification| notification == Notification::External { gsi });
    }
}
