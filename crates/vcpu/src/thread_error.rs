//! Why the threads of vCPUs cannot do what was requested.

use std::io;
use std::time::Duration;

use crate::control::RunState;
use crate::port::RunError;

/// The threads of the vCPUs could not be started or reached.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ThreadError {
    /// The thread of a vCPU could not be started.
    #[error("pthread_create(3) (vCPU {vcpu}): {source}")]
    Spawn {
        /// Index of the vCPU.
        vcpu: u32,
        /// Its error.
        source: io::Error,
    },
    /// The kick flag of a vCPU could not be mapped.
    #[error("mmap(2) of struct kvm_run (vCPU {vcpu}): {source}")]
    KickFlag {
        /// Index of the vCPU.
        vcpu: u32,
        /// Its error.
        source: io::Error,
    },
    /// The handler of the kick signal could not be installed.
    #[error("sigaction(2) (kick signal SIGURG): {0}")]
    Handler(vmm_sys_util::errno::Error),
    /// Not every vCPU left the guest in time.
    #[error("not every vCPU left the guest within {0:?}")]
    NotPaused(Duration),
    /// The vCPUs were stopped or resumed before all of them had paused.
    #[error("the vCPUs cannot be paused: the state {0:?} was requested meanwhile")]
    PauseCancelled(RunState),
    /// The vCPUs are not paused, or their threads do not read their registers in time.
    #[error("the registers of the vCPUs cannot be read: they are not paused")]
    NotPausedForRegisters,
    /// The registers of a vCPU cannot be read.
    #[error("the registers of vCPU {vcpu} cannot be read: {source}")]
    Registers {
        /// Index of the vCPU.
        vcpu: u32,
        /// Why.
        source: RunError,
    },
    /// vCPUs did not leave their run loops in time. Their threads are left behind.
    #[error("vCPUs {vcpus:?} have not left their run loops within {timeout:?}")]
    NotStopped {
        /// Indices of the vCPUs.
        vcpus: Vec<u32>,
        /// How long they had.
        timeout: Duration,
    },
}
