//! Reporters: each notifies the guest of errors in one way.
//!
//! A [`Reporter`] turns a [`MemoryError`] into [`Action`](crate::actions::Action)s. It queries nothing: what it needs to know of the guest
//! is in the [`ReporterContext`]. Handling an error allocates no memory.
//!
//! A reporter is one file here and one line in [`REGISTRY`], which finds the one for a response of the plan. A response that writes
//! records is handled by `Ghes`, whatever its notification type.

pub mod claim;
#[cfg(feature = "external-abort")]
pub mod external_abort;
#[cfg(feature = "ghes")]
pub mod ghes;
mod ignore;
#[cfg(feature = "machine-check")]
pub mod machine_check;
pub(crate) mod stop;

use alloc::boxed::Box;
use core::fmt::Debug;

use crate::abilities::HostAbilities;
use crate::actions::{ActionSink, Unacknowledged};
use crate::corrected::CorrectedErrors;
use crate::memory_blocks::PartName;
use crate::memory_error::MemoryError;
use crate::plan::ResponsePlan;
use crate::record_area::RecordSlot;
use crate::response::Response;
use crate::vcpu_state::VcpuState;

pub use claim::{Claim, Claims};
#[cfg(feature = "external-abort")]
pub use external_abort::ExternalAbort;
#[cfg(feature = "ghes")]
pub use ghes::Ghes;
pub use ignore::Ignore;
#[cfg(feature = "machine-check")]
pub use machine_check::MachineCheckReporter;
pub use stop::Stop;

/// Notifies the guest of errors, in one way.
pub trait Reporter: Debug + Send {
    /// Reports an error. For a consumed one, `context` has the state of the vCPU that consumed it, and that vCPU is not entered before
    /// `sink` has taken every action.
    fn report(&mut self, error: &MemoryError, context: &ReporterContext, sink: &mut dyn ActionSink);

    /// Advances the time: retries, times out, and checks whether the guest has acknowledged a record.
    fn tick(&mut self, _context: &ReporterContext, _sink: &mut dyn ActionSink) {}

    /// The guest's driver is known to have started: from now on it is expected to acknowledge.
    fn driver_up(&mut self, _context: &ReporterContext) {}

    /// The guest was reset. Called after its memory was initialised again, with no vCPU held. Errors that were not acknowledged are
    /// dropped.
    fn reset(&mut self, _sink: &mut dyn ActionSink) {}

    /// The numbers of corrected errors so far.
    fn corrected_errors(&self) -> CorrectedErrors {
        CorrectedErrors::default()
    }

    /// Whether one more error can be reported or queued.
    fn has_capacity(&self) -> bool {
        true
    }

    /// The vCPU whose state is to be passed to [`observe`](Self::observe) now. `None` if there is none.
    fn awaits_state_of(&self, _now_ns: u64) -> Option<u32> {
        None
    }

    /// A vCPU has the state of the context: it shows whether the guest has handled what that vCPU was notified of.
    fn observe(&mut self, _vcpu: u32, _context: &ReporterContext, _sink: &mut dyn ActionSink) {}

    /// The record that the guest has not acknowledged in time, or the first such machine check. `None` if there is none.
    fn overdue(&self) -> Option<Unacknowledged> {
        None
    }

    /// The first error of this boot that the guest has not acknowledged, in time or not; or one that was fatal. What counts as acknowledgement
    /// is the reporter's: an exception that has none is never acknowledged.
    fn unacknowledged(&self, _context: &ReporterContext) -> Option<Unacknowledged> {
        None
    }

    /// GPA of the 64-bit acknowledge register whose value it needs in the context. `None` if it has none.
    fn acknowledge_register(&self) -> Option<u64> {
        None
    }

    /// When [`tick`](Self::tick) has to be called at the latest: nanoseconds of the VMM's monotonic clock. `None`: never.
    fn deadline_ns(&self) -> Option<u64> {
        None
    }

    /// The error source whose status block it writes. `None` if it writes none.
    fn slot(&self) -> Option<&RecordSlot> {
        None
    }

    /// Writes a status block of others into that of its source, as soon as that is free, and notifies the guest. Unlike the other
    /// functions it allocates memory: no vCPU waits for it.
    ///
    /// # Errors
    /// Returns an error, and does nothing, if the block cannot be written.
    fn inject_block(
        &mut self,
        _block: &[u8],
        _context: &ReporterContext,
        _sink: &mut dyn ActionSink,
    ) -> Result<(), NotInjected> {
        Err(NotInjected::NoSource)
    }
}

/// Why a status block of others is not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotInjected {
    /// There is no such error source.
    #[error("there is no such error source")]
    NoSource,
    /// It is longer than the block of its source.
    #[error("it has {len} bytes, and the status block of the source has {max}")]
    TooLong {
        /// Its length in bytes.
        len: usize,
        /// Length of the source's block in bytes.
        max: u32,
    },
    /// The source's notification is an exception for an access.
    #[error(
        "its source is notified by `{notification}`, an exception in place of an access to poisoned memory: there is no access"
    )]
    NoAccess {
        /// Name of the notification type.
        notification: &'static str,
    },
    /// The queue of its source is full.
    #[error("{queued} records wait already until the guest acknowledges the one before: try again later")]
    QueueFull {
        /// Their number.
        queued: usize,
    },
}

/// The state of clock and guest when a reporter acts.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReporterContext {
    /// Nanoseconds of the VMM's monotonic clock.
    pub now_ns: u64,
    /// Seconds since 1970 (UTC), for timestamps.
    pub unix_seconds: u64,
    /// Value of [`Reporter::acknowledge_register`] at `now_ns`; 0 if it cannot be read. A value that was read before the record was
    /// written is not taken as its acknowledgement.
    pub acknowledge_register: u64,
    /// State of the vCPU that consumed the error; for a machine check about a detected error, of vCPU 0. `None` if it is unknown.
    pub vcpu: Option<VcpuState>,
}

/// What a reporter is built from.
#[derive(Debug)]
pub struct Setup<'a> {
    /// The response that it carries out.
    pub response: &'a ResponsePlan,
    /// The host.
    pub host: &'a HostAbilities,
    /// The status blocks that have no writer yet.
    pub claims: &'a mut Claims,
    /// The name of the memory in its records.
    pub part: PartName,
}

/// An entry of [`REGISTRY`].
#[derive(Clone, Copy, Debug)]
pub struct Registration {
    /// Whether it carries out that response.
    pub carries: fn(Response) -> bool,
    /// Builds one.
    pub build: fn(&mut Setup<'_>) -> Result<Box<dyn Reporter>, BuildError>,
}

/// Why no reporter can be built for a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The crate was built without the feature that carries it out.
    #[error("no reporter of this build carries out {0}")]
    NotBuilt(Response),
    /// It writes records, and its status block does not exist or has a writer already.
    #[error("{0} needs a status block that no other reporter writes, and there is none")]
    NoBlock(Response),
    /// It needs machine checks with software recovery, and the host has none.
    #[error("{0} needs machine checks with software recovery, and the host has none")]
    NoMachineCheck(Response),
}

/// Every reporter of this build.
pub const REGISTRY: &[Registration] = &[
    #[cfg(feature = "ghes")]
    ghes::REGISTRATION,
    #[cfg(feature = "machine-check")]
    machine_check::REGISTRATION,
    #[cfg(feature = "external-abort")]
    external_abort::REGISTRATION,
    stop::REGISTRATION,
    ignore::REGISTRATION,
];

/// Builds the reporter that carries out a response.
///
/// # Errors
/// Returns an error if this build has none, or if something that it needs is missing.
pub fn build(setup: &mut Setup<'_>) -> Result<Box<dyn Reporter>, BuildError> {
    let response = setup.response.chosen;
    let registration = REGISTRY.iter().find(|registration| (registration.carries)(response));
    (registration.ok_or(BuildError::NotBuilt(response))?.build)(setup)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(all(feature = "ghes", feature = "machine-check"))]
    fn one_reporter_carries_out_each_response() {
        for response in Response::ALL {
            assert_eq!(
                REGISTRY.iter().filter(|reporter| (reporter.carries)(*response)).count(),
                1,
                "{response}"
            );
        }
    }
}
