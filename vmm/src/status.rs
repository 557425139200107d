//! The exit statuses of `ghest`. Scripts depend on them: they are part of the public interface.

use ras_core::actions::StopReason;

/// An exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// The guest shut down, or the command succeeded.
    Success,
    /// An internal or I/O error.
    Failure,
    /// Bad usage or a bad profile.
    Usage,
    /// This host cannot do what was requested.
    Host,
    /// The guest crashed.
    GuestCrash,
    /// A guest that was checked did something else than expected.
    Unexpected,
    /// Memory errors stopped the machine: 10 for the guest's, 11 for the VMM's own memory, 12 if its error budget is spent.
    MemoryError(u8),
    /// A signal requested an orderly stop.
    Signal(u8),
}

impl Status {
    /// The error budget is spent.
    pub const BUDGET: Status = Status::MemoryError(12);

    /// The status of a machine that a memory error stopped.
    #[must_use]
    pub const fn of_stop(reason: StopReason) -> Self {
        Status::MemoryError(match reason {
            StopReason::OwnMemory => 11,
            _ => 10,
        })
    }

    /// The number.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Status::Success => 0,
            Status::Failure => 1,
            Status::Usage => 2,
            Status::Host => 3,
            Status::GuestCrash => 4,
            Status::Unexpected => 5,
            Status::MemoryError(status) => status,
            Status::Signal(signal) => 128 + signal,
        }
    }
}
