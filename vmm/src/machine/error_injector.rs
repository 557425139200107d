//! The main thread's part of error injection by the guest: it carries out what the device was requested.

use std::sync::{Mutex, MutexGuard, PoisonError};

use devices::error_injection::{ErrorInjector, InjectedError, Outcome, Request};
use guest_memory::sigbus;
use platform::{MemoryMap, Range, RegionKind};
use ras_core::{Origin, Severity, Span};

use super::running::RunningMachine;
use crate::ras::Hole;
use crate::ras::inject::from_guest::{Admission, admit, severity};

/// Requests that are served in one turn: others that the main thread serves get theirs in between.
const MAX_AT_ONCE: usize = 2;

impl RunningMachine<'_> {
    /// Carries out what the guest requests of its error injector.
    pub(super) fn serve_error_injector(&self, injector: &Mutex<ErrorInjector>) {
        for _ in 0..MAX_AT_ONCE {
            // Not locked meanwhile: a vCPU that is to be paused may wait for the lock.
            let request = lock(injector).take();
            match request {
                Some(Request::Inject(error)) => {
                    let outcome = self.inject_for_guest(error);
                    tracing::info!(
                        "the guest injects {} at {:#x}: {outcome:?}",
                        error.error_type.name(),
                        error.gpa
                    );
                    lock(injector).finish(outcome);
                }
                Some(Request::Trigger(error)) => self.trigger_for_guest(error),
                None => break,
            }
        }
    }

    /// Poisons a page of the guest's own memory, always by a memslot hole: the host's memory is not the guest's to spend, and a page that the
    /// host's kernel has poisoned is out of use until the host boots. A corrected error poisons nothing.
    fn inject_for_guest(&self, InjectedError { error_type, gpa }: InjectedError) -> Outcome {
        let page = Span::around(gpa, 12);
        if !is_usable(self.memory, page) {
            return Outcome::InvalidAccess;
        }
        let (reporting, severity) = (&self.preserved.reporting, severity(error_type));
        if severity == Severity::Corrected {
            // Nothing is poisoned: there is an error once it is triggered.
            return Outcome::Success;
        }
        match admit(reporting, page, severity) {
            Admission::Poison => {}
            Admission::PoisonedAlready => return Outcome::Success,
            Admission::TooMany => {
                tracing::warn!("the guest has injected as many errors as it can until pages are repaired");
                return Outcome::Failure;
            }
        }
        let punched = self.with_vcpus_paused(|| {
            self.vm.punch_hole(page)?;
            reporting.memslot_holes().insert(Hole { span: page, origin: Origin::Einj, severity });
            Ok(())
        });
        match punched {
            Ok(()) => Outcome::Success,
            Err(error) => {
                tracing::warn!(%page, "the guest cannot inject an error: {error}");
                Outcome::Failure
            }
        }
    }

    /// The error is detected, as if a patrol scrub had found it: the response to detected or to corrected errors follows.
    fn trigger_for_guest(&self, InjectedError { error_type, gpa }: InjectedError) {
        if severity(error_type) == Severity::Corrected {
            return self.report_corrected(gpa, Origin::Einj);
        }
        let Some(hva) = self.preserved.ram.host_address(gpa) else { return };
        let fault =
            sigbus::Fault { hva, log2_len: Span::around(gpa, 12).log2_len, action: sigbus::Action::Optional };
        if let Err(error) = self.raise(fault) {
            tracing::error!(%error, gpa, "SIGBUS cannot be raised for an error that the guest triggers");
        }
    }
}

/// Whether a page is memory that the guest may use as it likes.
fn is_usable(memory: &MemoryMap, page: Span) -> bool {
    let page = Range { start: page.gpa, len: page.bytes() };
    let usable = memory.regions.iter().filter(|region| region.kind == RegionKind::Usable);
    // No address is near the end of the address space: the page's end does not overflow.
    let mut containing = usable.map(|region| region.range).filter(|range| range.contains(page.start));
    containing.any(|range| page.end() <= range.end()) && memory.is_ram(page)
}

fn lock(injector: &Mutex<ErrorInjector>) -> MutexGuard<'_, ErrorInjector> {
    injector.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use platform::x86_64::{Layout, memory_map};

    use super::*;

    #[test]
    fn only_usable_memory_is_the_guests_own() {
        let map = memory_map(&Layout::REFERENCE, 6 << 30);
        let is_usable = |gpa| is_usable(&map, Span::around(gpa, 12));
        for own in [0, 0x9_e000, 0x10_0000, 0xbfff_ffff, 1 << 32, (7 << 30) - 1] {
            assert!(is_usable(own), "{own:#x}");
        }
        // Half of the page is reserved; no region; the generation id; tables; registers; beyond the end.
        for other in [0x9_f000, 0xa_0000, 0xd_f000, 0xe_0000, 0xd000_0000, 0xfffb_c000, 7 << 30, u64::MAX] {
            assert!(!is_usable(other), "{other:#x}");
        }
    }
}
