//! A thread for each vCPU.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use vmm_sys_util::signal::{Killable, SIGRTMIN};

use crate::control::{Control, RunState};
use crate::environment::VcpuEnvironment;
use crate::exit_reason::VcpuExitReason;
use crate::kick;
use crate::port::VcpuPort;
use crate::run_loop::run;

/// A vCPU has left its run loop.
#[derive(Clone, Debug)]
pub struct VcpuExited {
    /// Index of the vCPU.
    pub vcpu: u32,
    /// Why it left.
    pub reason: VcpuExitReason,
    /// Its main registers in one line. Empty for [`VcpuExitReason::Stopped`].
    pub registers: String,
}

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
    #[error("sigaction(2) (kick signal SIGRTMIN): {0}")]
    Handler(vmm_sys_util::errno::Error),
    /// Not every vCPU left the guest in time.
    #[error("not every vCPU left the guest within {0:?}")]
    NotPaused(Duration),
}

/// How long kicked vCPUs may take to leave the guest. Far more than they take, even if KVM itself is emulated.
const PAUSE_TIMEOUT: Duration = Duration::from_secs(30);

/// The vCPUs of a machine, each on its own thread. Dropping it stops and joins the threads.
pub struct Vcpus {
    threads: Vec<JoinHandle<()>>,
    control: Arc<Control>,
}

impl std::fmt::Debug for Vcpus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vcpus").field("count", &self.count()).finish_non_exhaustive()
    }
}

impl Vcpus {
    /// Starts a thread for each port, in the order of their index. The vCPUs enter the guest immediately, unless `control` requests
    /// another state. Each vCPU that leaves its run loop calls `exited` on its own thread.
    ///
    /// # Errors
    /// Returns an error if a thread cannot be started; the threads already started are stopped.
    pub fn start<P: VcpuPort + Send + 'static>(
        ports: Vec<P>,
        environment: &VcpuEnvironment,
        control: &Arc<Control>,
        exited: &Arc<dyn Fn(VcpuExited) + Send + Sync>,
    ) -> Result<Self, ThreadError> {
        kick::install_handler().map_err(ThreadError::Handler)?;
        control.reserve(ports.len());
        let mut vcpus = Vcpus { threads: Vec::with_capacity(ports.len()), control: Arc::clone(control) };
        for (mut port, vcpu) in ports.into_iter().zip(0..) {
            let flag = port.kick_flag().map_err(|source| ThreadError::KickFlag { vcpu, source })?;
            let (environment, control, exited) =
                (environment.clone(), Arc::clone(control), Arc::clone(exited));
            let thread = Builder::new()
                .name(format!("vcpu{vcpu}"))
                .spawn(move || {
                    // A panic too is reported as the end of the vCPU.
                    let reason = catch_unwind(AssertUnwindSafe(|| {
                        let _entered = control.enter_thread(vcpu);
                        kick::with_flag(flag.as_ref(), || run(vcpu, &mut port, &environment, &control))
                    }))
                    .unwrap_or_else(|_| VcpuExitReason::RunFailed("the vCPU's thread panicked".into()));
                    let registers =
                        if reason == VcpuExitReason::Stopped { String::new() } else { port.registers() };
                    exited(VcpuExited { vcpu, reason, registers });
                })
                .map_err(|source| ThreadError::Spawn { vcpu, source })?;
            vcpus.threads.push(thread);
        }
        Ok(vcpus)
    }

    /// Makes every vCPU leave the guest and wait. Returns when all are waiting.
    ///
    /// # Errors
    /// Returns an error if a vCPU does not leave the guest within 30 s, or has left its run loop. Then all continue.
    pub fn pause(&self) -> Result<(), ThreadError> {
        self.control.set(RunState::Pause);
        self.kick();
        if self.control.await_parked(self.threads.len(), PAUSE_TIMEOUT) {
            return Ok(());
        }
        self.control.set(RunState::Run);
        Err(ThreadError::NotPaused(PAUSE_TIMEOUT))
    }

    /// The number of vCPUs.
    #[must_use]
    pub fn count(&self) -> usize {
        self.threads.len()
    }

    /// The requested run state.
    #[must_use]
    pub fn run_state(&self) -> RunState {
        self.control.run_state()
    }

    /// Makes paused vCPUs continue.
    pub fn resume(&self) {
        self.control.set(RunState::Run);
    }

    /// Stops every vCPU and joins its thread.
    pub fn stop(&mut self) {
        self.control.set(RunState::Stop);
        self.kick();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a vCPU's thread panicked");
            }
        }
    }

    /// Kicks the vCPUs for which exceptions are pending.
    pub fn kick_waiting(&self) {
        self.control.kick_waiting();
    }

    /// Kicks every vCPU, so that it reads its control again.
    pub fn kick(&self) {
        for thread in &self.threads {
            // Fails if the thread has ended.
            let _ = thread.kill(SIGRTMIN());
        }
    }
}

impl Drop for Vcpus {
    fn drop(&mut self) {
        self.stop();
    }
}
