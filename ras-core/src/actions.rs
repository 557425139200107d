//! What is to be done. Nothing here does it: whoever drives the vCPUs carries it out.

use core::fmt;

use crate::memory_error::{MemoryError, Span};
use crate::response::Response;

/// Takes actions as they come, to be carried out in that order. What a [`Action::Write`] borrows is only valid during the call.
///
/// Every closure that takes an [`Action`] is one.
pub trait ActionSink {
    /// Takes one.
    fn act(&mut self, action: Action<'_>);
}

impl<F: FnMut(Action<'_>)> ActionSink for F {
    fn act(&mut self, action: Action<'_>) {
        self(action);
    }
}

/// Something to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action<'a> {
    /// Guest memory is written. Four and eight aligned bytes are one store each, and no write is seen by the guest before those that
    /// came before it.
    Write {
        /// First GPA, in the record area.
        gpa: u64,
        /// What.
        bytes: &'a [u8],
    },
    /// An interrupt line is pulsed.
    RaiseInterrupt {
        /// Which, among the global system interrupts.
        gsi: u32,
    },
    /// The event device notifies the error device.
    RaiseErrorEvent,
    /// A vCPU takes a synchronous external abort in place of the instruction that it stands at. It is entered again.
    InjectAbort {
        /// Which, by index.
        vcpu: u32,
        /// ESR_EL1.
        esr: u32,
        /// FAR_EL1.
        far: FaultAddress,
    },
    /// A vCPU takes an SError as soon as it does not mask it. It is entered again.
    InjectSerror {
        /// Which, by index.
        vcpu: u32,
        /// ISS of ESR_EL1, bits 24:0; none where the host cannot set it: KVM then shows an implementation-defined one.
        syndrome: Option<u32>,
    },
    /// A vCPU takes an NMI. It is entered again.
    InjectNmi {
        /// Which, by index.
        vcpu: u32,
    },
    /// vCPUs take a machine check. They are entered again.
    MachineCheck {
        /// Which.
        target: Target,
        /// What their registers say.
        registers: MachineCheck,
    },
    /// A vCPU waits: it is not entered before an injection into it, or [`Action::Release`].
    Hold {
        /// Which, by index.
        vcpu: u32,
    },
    /// A vCPU that was held is entered again as it stands: it touches the page again, or the guest has dealt with it.
    Release {
        /// Which, by index.
        vcpu: u32,
    },
    /// The VM is stopped.
    Stop {
        /// Why.
        report: StopReport,
    },
    /// Nothing is done to the machine; this is to be written down.
    Event(ErrorEvent),
}

/// Which vCPUs take a machine check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// One, by index.
    Vcpu(u32),
    /// All but that one, and but those that the guest has not started: a machine check would end it there.
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

/// What FAR_EL1 shows of an abort. It goes with the abort's FnV bit: set for `NotValid` only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FaultAddress {
    /// This virtual address.
    At(u64),
    /// Nothing: FnV is set.
    NotValid,
    /// That of the vCPU's last abort, which is what KVM's own injection shows.
    OfLastAbort,
}

/// Why the VM is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct StopReport {
    /// Why.
    pub reason: StopReason,
    /// The error; none for one in the VMM's own memory, which is no guest's, and where it is not one that stops it.
    pub error: Option<MemoryError>,
}

/// Why the VM is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "kebab-case"))]
pub enum StopReason {
    /// It is the plan's answer.
    Planned,
    /// The guest did not acknowledge what it was told.
    Unacknowledged,
    /// A vCPU keeps touching a page that the guest was told about.
    NoProgress,
    /// The vCPU cannot take the exception: a machine check would end it without a word, or its state is not known.
    NotDeliverable,
    /// The record area itself is lost: nothing can be told by records.
    RecordsLost,
    /// The hardware took an abort and nobody knows of which memory.
    AddressUnknown,
    /// The machine was reset, and memory that is permanently poisoned is where its kernel or tables have to be.
    InTheWay,
    /// The VMM's own memory was lost.
    OwnMemory,
}

impl StopReport {
    /// Exit status of the program: 10 for an error of the guest's, 11 for one of the VMM's own.
    #[must_use]
    pub const fn status(&self) -> u8 {
        match self.reason {
            StopReason::OwnMemory => 11,
            _ => 10,
        }
    }
}

impl fmt::Display for StopReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.reason {
            StopReason::Planned => "the profile answers a memory error by stopping",
            StopReason::Unacknowledged => "the guest did not acknowledge an earlier error in time",
            StopReason::NoProgress => "a vCPU keeps touching poisoned memory that the guest was told about",
            StopReason::NotDeliverable => {
                "the vCPU cannot take the exception that the plan has for this error"
            }
            StopReason::RecordsLost => "the memory that error records are written to is lost itself",
            StopReason::AddressUnknown => "a vCPU consumed poisoned memory, and nobody knows which",
            StopReason::InTheWay => {
                "the machine cannot start again: memory that is lost, and never repaired, is in the way"
            }
            StopReason::OwnMemory => "memory of the VMM itself was lost",
        })?;
        match &self.error {
            Some(error) => write!(f, ": {} bytes at {:#x}", error.span.bytes(), error.span.gpa),
            None => Ok(()),
        }
    }
}

/// Something to be written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "kebab-case"))]
pub enum ErrorEvent {
    /// An error got its answer.
    Answered {
        /// What was lost.
        span: Span,
        /// By which.
        response: Response,
    },
    /// A record was written.
    RecordWritten {
        /// Id of the error source.
        source: u16,
        /// GPA of its status block.
        gpa: u64,
        /// What the record tells of.
        span: Span,
    },
    /// A record was acknowledged.
    Acknowledged {
        /// Id of the error source.
        source: u16,
        /// What the record told of.
        span: Span,
        /// Nanoseconds after it was written.
        after_ns: u64,
    },
    /// A record waits for the one before.
    Queued {
        /// Id of the error source.
        source: u16,
        /// What was lost.
        span: Span,
    },
    /// An error is told by a record that is written or waits already.
    Coalesced {
        /// Id of the error source.
        source: u16,
        /// What was lost.
        span: Span,
    },
    /// A record was not acknowledged in time. It stays where it is.
    Overdue {
        /// Id of the error source.
        source: u16,
        /// What it tells of.
        span: Span,
    },
    /// No room was left for a record: of what was consumed the guest is told without one, what was found waits in the ledger.
    Overflowed {
        /// Id of the error source.
        source: u16,
        /// What was lost.
        span: Span,
        /// How many that makes for this source.
        times: u64,
    },
}
