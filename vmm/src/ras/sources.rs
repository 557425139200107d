//! Where errors come from, beside a vCPU's exits: detected errors, and accesses to poisoned pages that only the VMM sees.

use guest_memory::{AccessError, sigbus};
use ras_core::{Origin, Span};

use super::Reporting;

/// An error that no vCPU consumed.
#[derive(Clone, Copy, Debug)]
pub enum DetectedError {
    /// SIGBUS with BUS_MCEERR_AO, delivered to the AO listener.
    Signalled(sigbus::Fault),
    /// A device model accessed poisoned memory.
    Touched {
        /// The GPA of the access.
        gpa: u64,
        /// Base-two logarithm of the poisoned bytes.
        log2_len: u8,
    },
    /// An injection request with the method `notice`.
    Noticed {
        /// What is reported as poisoned.
        span: Span,
    },
}

impl Reporting {
    /// Handles a vCPU's access to an address that is neither memory nor a device. If the page is a memslot hole, or poisoned
    /// (KVM itself accessed it while it emulated an instruction), this raises SIGBUS as the host would have done and returns
    /// true.
    pub fn accessed_poison(&self, gpa: u64) -> bool {
        let Some(hva) = self.ram.host_address(gpa) else { return false };
        let log2_len = match (self.memslot_holes.hole_at(gpa), self.ram.probe(gpa, 1)) {
            (Some(hole), _) => hole.span.log2_len,
            (None, Err(AccessError::Poisoned(page))) => page.log2_len,
            (None, _) => return false,
        };
        let fault = sigbus::Fault { hva, log2_len, action: sigbus::Action::Required };
        match sigbus::capture_action_required(|| sigbus::raise(fault)) {
            Ok(()) => true,
            Err(error) => {
                tracing::error!(%error, gpa, "SIGBUS cannot be raised for an access to a poisoned page");
                false
            }
        }
    }

    /// Makes the host isolate a page after KVM_EXIT_ARM_SEA: the hardware reported the error to the VMM alone, and the host's
    /// kernel would keep using the page.
    pub(super) fn isolate_on_host(&self, gpa: u64) {
        if let Err(error) = self.ram.poison(gpa, 1) {
            tracing::error!(%error, gpa, "madvise(MADV_HWPOISON) failed: the host keeps using a page with an uncorrected error");
        }
    }

    /// The GPA of a signal, the base-two logarithm of the poisoned bytes, and the error's origin. `None` if the address is not
    /// guest memory.
    pub(super) fn error_of_signal(&self, fault: sigbus::Fault) -> Option<(u64, u8, Origin)> {
        let gpa = self.ram.guest_address(fault.hva)?;
        let origin = self.memslot_holes.hole_at(gpa).map_or(Origin::Sigbus, |hole| hole.origin);
        Some((gpa, fault.log2_len, origin))
    }
}
