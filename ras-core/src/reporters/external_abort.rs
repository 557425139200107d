//! External aborts and SErrors of 64-bit Arm guests: the notification that goes with a record, or a response of their own.

use alloc::boxed::Box;

use super::stop::stop;
use super::{Registration, Reporter, ReporterContext, Setup};
use crate::abilities::{ArchAbilities, HostAbilities};
use crate::actions::{
    Action, ActionFailed, ActionSink, ErrorEvent, FaultAddress, StopReason, Unacknowledged,
};
use crate::memory_error::{MemoryError, Span};
use crate::response::Response;
use crate::vcpu_state::{Access, Consumption, ExceptionLevel, VcpuState};

pub(super) const REGISTRATION: Registration = Registration {
    carries: |response| matches!(response, Response::Abort | Response::Serror),
    build: |Setup { response, host, .. }| {
        Ok(Box::new(ExternalAbort {
            serror: response.chosen == Response::Serror,
            injector: Injector::of(host),
            last: None,
        }))
    },
};

/// Injects an exception, without a record.
///
/// The architecture has nothing by which a guest says that it has handled one: the last one counts as not acknowledged until the guest is
/// reset.
#[derive(Clone, Copy, Debug)]
pub struct ExternalAbort {
    /// An SError, not a synchronous abort.
    serror: bool,
    injector: Injector,
    /// The last error of this boot.
    last: Option<Unacknowledged>,
}

impl ExternalAbort {
    /// Injects synchronous external aborts.
    #[must_use]
    pub fn synchronous(host: &HostAbilities) -> Self {
        ExternalAbort { serror: false, injector: Injector::of(host), last: None }
    }

    /// Injects SErrors.
    #[must_use]
    pub fn asynchronous(host: &HostAbilities) -> Self {
        ExternalAbort { serror: true, injector: Injector::of(host), last: None }
    }
}

impl Reporter for ExternalAbort {
    fn report(&mut self, error: &MemoryError, context: &ReporterContext, sink: &mut dyn ActionSink) {
        let (Some(vcpu), Some(VcpuState::Aarch64(consumption))) = (error.vcpu, context.vcpu) else {
            return stop(*error, StopReason::NotDeliverable, sink);
        };
        let (response, action) = if self.serror {
            (Response::Serror, self.injector.serror(vcpu))
        } else {
            (Response::Abort, self.injector.abort(vcpu, consumption))
        };
        match sink.act(action) {
            Ok(()) => {
                let page = Span::around(error.gpa, 0);
                let severity = error.severity;
                self.last =
                    Some(Unacknowledged { source: None, span: page, severity, consumed_by: Some(vcpu) });
                sink.event(ErrorEvent::Handled { span: error.span, response });
            }
            Err(ActionFailed) => stop(*error, StopReason::NotDeliverable, sink),
        }
    }

    fn unacknowledged(&self, _context: &ReporterContext) -> Option<Unacknowledged> {
        self.last
    }

    fn reset(&mut self, _sink: &mut dyn ActionSink) {
        self.last = None;
    }
}

/// Builds the exceptions that this host supports.
#[derive(Clone, Copy, Debug)]
pub(super) struct Injector {
    /// An abort can be marked as having no valid fault address.
    far_not_valid: bool,
    /// An SError can have a syndrome: the host can set one, and the vCPU has the RAS extension that defines it.
    syndrome: bool,
}

impl Injector {
    pub(super) fn of(host: &HostAbilities) -> Self {
        match host.arch {
            ArchAbilities::Aarch64(host) => Injector {
                far_not_valid: host.far_not_valid.holds(),
                syndrome: host.inject_serror_esr.holds() && host.vcpu_ras.holds(),
            },
            ArchAbilities::X86_64(_) => Injector { far_not_valid: false, syndrome: false },
        }
    }

    pub(super) fn abort(self, vcpu: u32, consumption: Consumption) -> Action<'static> {
        let far = match consumption.far {
            Some(far) => FaultAddress::At(far),
            None if self.far_not_valid => FaultAddress::NotValid,
            None => FaultAddress::OfLastAbort,
        };
        Action::InjectAbort { vcpu, esr: abort_esr(consumption, far), far }
    }

    pub(super) fn serror(self, vcpu: u32) -> Action<'static> {
        let syndrome = self.syndrome.then(|| SerrorSeverity::Recoverable.iss());
        Action::InjectSerror { vcpu, syndrome }
    }
}

/// ESR_EL1 of a synchronous external abort, not on a translation table walk (Arm ARM DDI 0487, ESR_EL1: ISS encodings for an
/// exception from an Instruction Abort and from a Data Abort).
#[must_use]
pub const fn abort_esr(consumption: Consumption, far: FaultAddress) -> u32 {
    // Exception class: instruction or data abort, from a lower level or from the same.
    let class = match (consumption.access, consumption.level) {
        (Access::Fetch, ExceptionLevel::El0) => 0x20,
        (Access::Fetch, ExceptionLevel::El1) => 0x21,
        (Access::Read | Access::Write, ExceptionLevel::El0) => 0x24,
        (Access::Read | Access::Write, ExceptionLevel::El1) => 0x25,
    };
    // IL: always set for instruction aborts, and for data aborts without a valid instruction syndrome.
    let mut esr = class << 26 | 1 << 25 | FSC_EXTERNAL;
    if matches!(far, FaultAddress::NotValid) {
        esr |= FNV;
    }
    if matches!(consumption.access, Access::Write) {
        esr |= WNR;
    }
    esr
}

/// Fault status: synchronous external abort, not on a translation table walk.
const FSC_EXTERNAL: u32 = 0x10;
/// The access was a write.
const WNR: u32 = 1 << 6;
/// The fault address is not valid.
const FNV: u32 = 1 << 10;

/// Severity of an SError: the AET field (Arm ARM DDI 0487, ESR_EL1: ISS encoding for an SError exception).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SerrorSeverity {
    /// UC: uncontainable.
    Uncontainable,
    /// UEU: unrecoverable.
    Unrecoverable,
    /// UEO: restartable: the data is not needed to continue.
    Restartable,
    /// UER: recoverable: the program can continue once the error is repaired. Consumed poison is of this severity.
    Recoverable,
    /// CE: corrected.
    Corrected,
}

impl SerrorSeverity {
    /// Bits 24:0 of ESR_EL1, for a processor with the RAS extension. Linux continues after restartable and corrected ones, and panics at
    /// all others.
    #[must_use]
    pub const fn iss(self) -> u32 {
        let aet = match self {
            SerrorSeverity::Uncontainable => 0,
            SerrorSeverity::Unrecoverable => 1,
            SerrorSeverity::Restartable => 2,
            SerrorSeverity::Recoverable => 3,
            SerrorSeverity::Corrected => 6,
        };
        // DFSC: asynchronous SError. AET is defined for it only.
        aet << 10 | 0x11
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn syndromes_match_the_architecture() {
        let esr = |level, access, far| abort_esr(Consumption { level, access, far: None }, far);
        let known = FaultAddress::At(0x1234);
        assert_eq!(esr(ExceptionLevel::El0, Access::Fetch, known), 0x8200_0010);
        assert_eq!(esr(ExceptionLevel::El1, Access::Fetch, FaultAddress::OfLastAbort), 0x8600_0010);
        assert_eq!(esr(ExceptionLevel::El0, Access::Read, FaultAddress::NotValid), 0x9200_0410);
        assert_eq!(esr(ExceptionLevel::El1, Access::Read, FaultAddress::NotValid), 0x9600_0410);
        assert_eq!(esr(ExceptionLevel::El1, Access::Write, known), 0x9600_0050);
        assert_eq!(
            [
                SerrorSeverity::Corrected,
                SerrorSeverity::Restartable,
                SerrorSeverity::Recoverable,
                SerrorSeverity::Uncontainable
            ]
            .map(SerrorSeverity::iss),
            [0x1811, 0x0811, 0x0c11, 0x0011]
        );
    }
}
