//! Actions: what the VMM carries out in response to an error.

use core::fmt;

use crate::memory_error::{MemoryError, Span};
use crate::response::Response;
use crate::severity::Severity;

/// Receives actions, to be carried out in that order. The bytes of an [`Action::Write`] are only valid during the call.
///
/// Implemented for every closure that takes an [`Action`] and returns a result.
pub trait ActionSink {
    /// Carries out one action.
    ///
    /// # Errors
    /// Returns an error if the guest does not get what the action gives it: a write, an interrupt or an exception. The responder then
    /// uses the plan's fallback. Other actions cannot fail: a VMM can always stop, hold and release its vCPUs, and keep an event.
    fn act(&mut self, action: Action<'_>) -> Result<(), ActionFailed>;

    /// Passes on an event.
    fn event(&mut self, event: ErrorEvent) {
        // An event cannot fail.
        let _ = self.act(Action::Event(event));
    }
}

impl<F: FnMut(Action<'_>) -> Result<(), ActionFailed>> ActionSink for F {
    fn act(&mut self, action: Action<'_>) -> Result<(), ActionFailed> {
        self(action)
    }
}

/// An action could not be carried out. The VMM has logged why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an action could not be carried out")]
pub struct ActionFailed;

/// An action of the VMM.
///
/// Exhaustive on purpose: a VMM that does not carry out a new kind of action must fail to compile, not leave it out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action<'a> {
    /// Write guest memory. Four and eight aligned bytes are one store each, and writes become visible to the guest in order.
    Write {
        /// First GPA, in the record area.
        gpa: u64,
        /// The bytes to write.
        bytes: &'a [u8],
    },
    /// Pulse an interrupt line.
    RaiseInterrupt {
        /// The global system interrupt.
        gsi: u32,
    },
    /// Have the event device (ACPI0013) notify the error device (PNP0C33).
    RaiseErrorEvent,
    /// Inject a synchronous external abort into a vCPU, in place of its current instruction, and enter it again.
    InjectAbort {
        /// Index of the vCPU.
        vcpu: u32,
        /// ESR_EL1.
        esr: u32,
        /// FAR_EL1.
        far: FaultAddress,
    },
    /// Make an SError pending for a vCPU, to be taken when it is not masked, and enter it again.
    InjectSerror {
        /// Index of the vCPU.
        vcpu: u32,
        /// ISS of ESR_EL1, bits 24:0. `None` if the host cannot set it: KVM then uses an implementation-defined one.
        syndrome: Option<u32>,
    },
    /// Inject an NMI into a vCPU and enter it again.
    InjectNmi {
        /// Index of the vCPU.
        vcpu: u32,
    },
    /// Inject a machine check into vCPUs and enter them again.
    MachineCheck {
        /// Which vCPUs.
        target: Target,
        /// The registers of the machine check.
        registers: MachineCheck,
    },
    /// Hold a vCPU: do not enter it before an injection into it, or [`Action::Release`].
    Hold {
        /// Index of the vCPU.
        vcpu: u32,
    },
    /// Enter a held vCPU again, unchanged: it accesses the page again, unless the guest has handled the error.
    Release {
        /// Index of the vCPU.
        vcpu: u32,
    },
    /// Stop the VM.
    Stop {
        /// Why.
        report: StopReport,
    },
    /// Log an event; the machine is not affected.
    Event(ErrorEvent),
}

/// The vCPUs that take a machine check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// The vCPU of that index.
    Vcpu(u32),
    /// All except that one and those that the guest has not started, which would shut the machine down (triple fault).
    AllBut(u32),
}

/// The registers of a machine check, in the order of `struct kvm_x86_mce`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MachineCheck {
    /// MCi_STATUS.
    pub status: u64,
    /// MCi_ADDR.
    pub addr: u64,
    /// MCi_MISC.
    pub misc: u64,
    /// MCG_STATUS.
    pub mcg_status: u64,
    /// The bank, i.
    pub bank: u8,
}

/// FAR_EL1 of an abort. The abort's FnV bit is set for `NotValid` only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FaultAddress {
    /// This virtual address.
    At(u64),
    /// No address: FnV is set.
    NotValid,
    /// That of the vCPU's last abort, which KVM's own injection leaves in the register.
    OfLastAbort,
}

/// Why the VM is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct StopReport {
    /// Why.
    pub reason: StopReason,
    /// The error in guest memory that caused it. `None` for an error in the VMM's own memory, or if no single error caused it.
    pub error: Option<MemoryError>,
}

/// Why the VM is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum StopReason {
    /// The plan's response is to stop.
    Planned,
    /// The guest did not acknowledge a record.
    Unacknowledged,
    /// A vCPU keeps accessing a poisoned page that was reported to the guest.
    NoProgress,
    /// The vCPU cannot take the exception: a machine check would shut it down (triple fault), or its state is unknown.
    NotDeliverable,
    /// No record can be written: the record area is poisoned, and the VMM cannot replace its page.
    #[cfg_attr(feature = "serde", serde(rename = "records-lost"))]
    RecordAreaPoisoned,
    /// The host reported an abort without an address.
    AddressUnknown,
    /// The machine was reset, and permanently poisoned memory overlaps its kernel or tables.
    #[cfg_attr(feature = "serde", serde(rename = "in-the-way"))]
    CannotRestart,
    /// Memory of the VMM itself is poisoned.
    OwnMemory,
}

impl fmt::Display for StopReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.reason {
            StopReason::Planned => "the profile's response to a memory error is to stop",
            StopReason::Unacknowledged => "the guest did not acknowledge an earlier error in time",
            StopReason::NoProgress => "a vCPU keeps accessing poisoned memory that was reported to the guest",
            StopReason::NotDeliverable => {
                "the vCPU cannot take the exception that the plan has for this error"
            }
            StopReason::RecordAreaPoisoned => {
                "the memory that error records are written to is poisoned and cannot be replaced"
            }
            StopReason::AddressUnknown => "a vCPU consumed poisoned memory at an unknown address",
            StopReason::CannotRestart => {
                "the machine cannot start again: its kernel or tables overlap poisoned memory that is not repaired"
            }
            StopReason::OwnMemory => "memory error in the VMM's own memory",
        })?;
        match &self.error {
            Some(error) => write!(f, ": {} bytes at {:#x}", error.span.bytes(), error.span.gpa),
            None => Ok(()),
        }
    }
}

/// An event to be logged.
///
/// Exhaustive on purpose, as [`Action`] is: a log that leaves events out without a notice is worse than a VMM that does not compile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "kebab-case"))]
pub enum ErrorEvent {
    /// The response to an error was carried out.
    #[cfg_attr(feature = "serde", serde(rename = "answered"))]
    Handled {
        /// The poisoned pages.
        span: Span,
        /// The response.
        response: Response,
    },
    /// A record was written.
    RecordWritten {
        /// Id of the error source.
        source: u16,
        /// GPA of its status block.
        gpa: u64,
        /// The pages that it reports.
        span: Span,
    },
    /// A record could not be written, or the guest could not be notified of it. The vCPU that consumed the error, if there is one, gets
    /// the fallback response.
    NotReported {
        /// Id of the error source.
        source: u16,
        /// The poisoned pages.
        span: Span,
    },
    /// A record was acknowledged.
    Acknowledged {
        /// Id of the error source.
        source: u16,
        /// The pages that it reported.
        span: Span,
        /// Nanoseconds after it was written.
        after_ns: u64,
    },
    /// An error was queued until the record before it is acknowledged.
    Queued {
        /// Id of the error source.
        source: u16,
        /// The poisoned pages.
        span: Span,
    },
    /// An error is part of a record that is already written or queued.
    Coalesced {
        /// Id of the error source.
        source: u16,
        /// The poisoned pages.
        span: Span,
    },
    /// A record was not acknowledged in time, and stays in its block; or a machine check is still in progress.
    Overdue(Unacknowledged),
    /// So many corrected errors of a page have reached the threshold: the record of the last one says so, and the guest should no longer use
    /// the page.
    ThresholdExceeded {
        /// Id of the error source.
        source: u16,
        /// The page.
        span: Span,
        /// Number of errors within the window.
        errors: u32,
    },
    /// The queue of a source is full: a consumed error gets the fallback response, a detected one stays in the ledger, and a corrected
    /// one is only counted.
    Overflowed {
        /// Id of the error source.
        source: u16,
        /// The poisoned pages.
        span: Span,
        /// How often that happened at this source.
        times: u64,
    },
}

/// An error of which the guest was notified, and that it has not acknowledged: a record that it has not read, a machine check whose handler
/// has not ended, or an exception that has no acknowledgement. If a vCPU consumed the error, its guest may hang: a kernel that consumes an
/// error in its own code may not come to acknowledge it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Unacknowledged {
    /// Id of the record's error source. `None` for an exception without a record.
    pub source: Option<u16>,
    /// The pages that were reported.
    pub span: Span,
    /// What the error was reported as.
    pub severity: Severity,
    /// The vCPU that consumed the error. `None` for a detected error.
    pub consumed_by: Option<u32>,
}
