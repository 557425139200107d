//! Those who tell the guest.
//!
//! A [`Reporter`] takes a [`MemoryError`] and says what is to be done ([`Action`](crate::actions::Action)). It asks nothing: what it must
//! know of the guest comes with the [`ReporterContext`]. Nothing on its way allocates memory.
//!
//! Each is one file and one line in [`REGISTRY`], which picks the one that carries an answer of the plan.

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
use crate::actions::ActionSink;
use crate::memory_error::MemoryError;
use crate::plan::Answer;
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

/// Tells the guest of errors, in one way.
pub trait Reporter: Debug + Send {
    /// The name by which [`REGISTRY`] knows it.
    fn name(&self) -> &'static str;

    /// Tells of an error. A consumed one comes with the state of the vCPU that consumed it, which is not entered before `sink` has taken
    /// every action.
    fn report(&mut self, error: &MemoryError, context: &ReporterContext, sink: &mut dyn ActionSink);

    /// Lets time pass, or looks whether the guest has acknowledged something.
    fn tick(&mut self, _moment: &ReporterContext, _sink: &mut dyn ActionSink) {}

    /// The guest's driver is known to have started: from now on an acknowledgement is expected of it.
    fn driver_up(&mut self, _moment: &ReporterContext) {}

    /// The guest was reset. Comes after its memory was filled anew; no vCPU is held any longer. What was found and not acknowledged is
    /// told again at the next tick where the pages are `still_poisoned`.
    fn reset(&mut self, _still_lost: bool, _moment: &ReporterContext, _sink: &mut dyn ActionSink) {}

    /// Whether one more error can be told, or wait to be.
    fn has_room(&self) -> bool {
        true
    }

    /// GPA of the 64-bit acknowledge register whose value it wants to be told; none if it has none.
    fn acknowledge_register(&self) -> Option<u64> {
        None
    }

    /// When [`tick`](Self::tick) has something to do at the latest, in nanoseconds; none if never.
    fn deadline_ns(&self) -> Option<u64> {
        None
    }
}

/// What a reporter must know of the world when it acts.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReporterContext {
    /// Nanoseconds of the VMM's monotonic clock.
    pub now_ns: u64,
    /// Seconds since 1970 (UTC), for timestamps.
    pub unix_seconds: u64,
    /// What [`Reporter::acknowledge_register`] held at `now_ns`; 0 where it cannot be read. A value that is older than the record in the
    /// block is not taken for its acknowledgement.
    pub acknowledge_register: u64,
    /// How the vCPU stands that consumed the error; for a machine check about what nobody consumed, vCPU 0. None where it is not known.
    pub vcpu: Option<VcpuState>,
}

/// What a reporter is made from.
#[derive(Debug)]
pub struct Setup<'a> {
    /// The answer that it carries.
    pub answer: &'a Answer,
    /// The host that it works on.
    pub host: &'a HostAbilities,
    /// The status blocks that nobody owns yet.
    pub claims: &'a mut Claims,
}

/// A reporter that can be had by its name.
#[derive(Clone, Copy, Debug)]
pub struct Registration {
    /// Its name.
    pub name: &'static str,
    /// Whether it carries that response.
    pub carries: fn(Response) -> bool,
    /// Makes one.
    pub build: fn(&mut Setup<'_>) -> Result<Box<dyn Reporter>, BuildError>,
}

/// Why there is no reporter for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// None carries it in this build.
    #[error("no reporter of this build carries {0}")]
    NotBuilt(Response),
    /// It writes records, and there is no block for them, or another reporter owns it.
    #[error("{0} needs a status block, and there is none, or it is taken")]
    NoBlock(Response),
    /// It is told by machine checks, and the host has none that a guest survives.
    #[error("{0} needs machine checks, and the host has none")]
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

/// The reporter of that name; none where this build has none.
#[must_use]
pub fn find(name: &str) -> Option<&'static Registration> {
    REGISTRY.iter().find(|registration| registration.name == name)
}

/// Makes the reporter that carries an answer.
///
/// # Errors
/// When this build has none, or what it needs is not there.
pub fn build(setup: &mut Setup<'_>) -> Result<Box<dyn Reporter>, BuildError> {
    let response = setup.answer.chosen;
    let registration = REGISTRY.iter().find(|registration| (registration.carries)(response));
    (registration.ok_or(BuildError::NotBuilt(response))?.build)(setup)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(all(feature = "ghes", feature = "machine-check"))]
    fn every_response_is_carried_by_one_reporter_and_every_reporter_has_its_name() {
        for response in Response::ALL {
            assert_eq!(
                REGISTRY.iter().filter(|reporter| (reporter.carries)(response)).count(),
                1,
                "{response}"
            );
        }
        for registration in REGISTRY {
            let named = REGISTRY.iter().filter(|other| other.name == registration.name).count();
            assert!(named == 1 && find(registration.name).is_some(), "{}", registration.name);
        }
        assert!(find("smoke signal").is_none());
    }
}
