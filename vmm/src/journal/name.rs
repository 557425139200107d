//! The names of events: their counts are indexed by them.

use ras_core::actions::ErrorEvent;

use super::Note;

/// The name of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Name {
    Plan,
    VcpuStarted,
    FirstExit,
    GuestShutdown,
    MemoryError,
    Notified,
    Held,
    Released,
    Answered,
    RecordWritten,
    Acknowledged,
    Queued,
    Coalesced,
    Overdue,
    NotReported,
    ThresholdExceeded,
    Overflowed,
    DeviceNeedsReset,
    Repaired,
    NotRepaired,
    Retired,
    Unusable,
    LedgerRead,
    LedgerNotWritten,
    Evacuate,
    Stopped,
}

impl Name {
    /// All names, in the order of the variants.
    pub(super) const ALL: [&str; Name::Stopped as usize + 1] = [
        "plan",
        "vcpu-started",
        "first-exit",
        "guest-shutdown",
        "memory-error",
        "notified",
        "held",
        "released",
        "answered",
        "record-written",
        "acknowledged",
        "queued",
        "coalesced",
        "overdue",
        "not-reported",
        "threshold-exceeded",
        "overflowed",
        "device-needs-reset",
        "repaired",
        "not-repaired",
        "retired",
        "unusable",
        "ledger-read",
        "ledger-not-written",
        "evacuate",
        "stopped",
    ];

    pub(super) const fn as_str(self) -> &'static str {
        Name::ALL[self as usize]
    }
}

impl Note {
    pub(super) const fn name(&self) -> Name {
        match self {
            Note::Plan(_) => Name::Plan,
            Note::VcpuStarted(_) => Name::VcpuStarted,
            Note::FirstExit { .. } => Name::FirstExit,
            Note::GuestShutdown { .. } => Name::GuestShutdown,
            Note::MemoryError { .. } | Note::OwnMemory(_) => Name::MemoryError,
            Note::Notified { .. } => Name::Notified,
            Note::Held(_) => Name::Held,
            Note::Released(_) => Name::Released,
            Note::DeviceNeedsReset(_) => Name::DeviceNeedsReset,
            Note::Repaired(_) => Name::Repaired,
            Note::NotRepaired(_) => Name::NotRepaired,
            Note::Retired { .. } => Name::Retired,
            Note::Unusable { .. } => Name::Unusable,
            Note::LedgerRead { .. } => Name::LedgerRead,
            Note::LedgerNotWritten { .. } => Name::LedgerNotWritten,
            Note::Evacuate { .. } => Name::Evacuate,
            Note::Stopped { .. } => Name::Stopped,
            Note::ErrorEvent(event) => match event {
                ErrorEvent::Handled { .. } => Name::Answered,
                ErrorEvent::RecordWritten { .. } => Name::RecordWritten,
                ErrorEvent::Acknowledged { .. } => Name::Acknowledged,
                ErrorEvent::Queued { .. } => Name::Queued,
                ErrorEvent::Coalesced { .. } => Name::Coalesced,
                ErrorEvent::Overdue(_) => Name::Overdue,
                ErrorEvent::NotReported { .. } => Name::NotReported,
                ErrorEvent::ThresholdExceeded { .. } => Name::ThresholdExceeded,
                ErrorEvent::Overflowed { .. } => Name::Overflowed,
            },
        }
    }
}
