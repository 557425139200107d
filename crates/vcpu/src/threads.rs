//! A thread for each vCPU.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use vmm_sys_util::signal::{Killable, SIGRTMIN};

use crate::control::{Control, RunState};
use crate::kick;
use crate::port::VcpuPort;
use crate::run_loop::{Bus, End, run};

/// A vCPU has left its run loop.
#[derive(Clone, Debug)]
pub struct Ended {
    /// Index of the vCPU.
    pub vcpu: u32,
    /// Why.
    pub end: End,
    /// One line of its registers; empty where it was told to stop.
    pub registers: String,
}

/// A vCPU's thread could not be started or reached.
#[derive(Debug, thiserror::Error)]
pub enum ThreadError {
    /// The thread of a vCPU could not be started.
    #[error("the thread of vCPU {vcpu} cannot be started: {source}")]
    Spawn {
        /// Index of the vCPU.
        vcpu: u32,
        /// What the host said.
        source: io::Error,
    },
    /// The handler of the kick signal could not be installed.
    #[error("the kick signal's handler cannot be installed: {0}")]
    Handler(vmm_sys_util::errno::Error),
    /// vCPUs did not leave the guest in time.
    #[error("not every vCPU left the guest within {0:?}")]
    Stuck(Duration),
}

/// How long a kicked vCPU may take to leave the guest. Far more than it takes, even where KVM is itself emulated.
const PATIENCE: Duration = Duration::from_secs(30);

/// The vCPUs of a machine, each on its thread. Dropping it stops and joins them.
pub struct Vcpus {
    threads: Vec<JoinHandle<()>>,
    control: Arc<Control>,
}

impl Vcpus {
    /// Starts a thread for each port, in the order of their index. The guest is entered at once, unless `control`
    /// requests otherwise. Each vCPU that leaves its loop says so to `ended`, on its own thread.
    ///
    /// # Errors
    /// Where a thread cannot be had; those already started are stopped.
    pub fn start<P: VcpuPort + Send + 'static>(
        ports: Vec<P>,
        bus: &Arc<dyn Bus>,
        control: &Arc<Control>,
        ended: &Arc<dyn Fn(Ended) + Send + Sync>,
    ) -> Result<Self, ThreadError> {
        kick::install_handler().map_err(ThreadError::Handler)?;
        let mut vcpus = Vcpus { threads: Vec::with_capacity(ports.len()), control: Arc::clone(control) };
        for (mut port, vcpu) in ports.into_iter().zip(0..) {
            let (bus, control, ended) = (Arc::clone(bus), Arc::clone(control), Arc::clone(ended));
            let thread = Builder::new()
                .name(format!("vcpu{vcpu}"))
                .spawn(move || {
                    kick::set_flag(port.kick_flag());
                    control.enter_thread(vcpu);
                    // Whatever ends it, the machine hears of it.
                    let end = catch_unwind(AssertUnwindSafe(|| run(vcpu, &mut port, bus.as_ref(), &control)))
                        .unwrap_or_else(|_| End::RunFailed("its thread panicked".into()));
                    control.leave_thread(vcpu);
                    kick::set_flag(std::ptr::null_mut());
                    let registers = if end == End::Stopped { String::new() } else { port.registers() };
                    ended(Ended { vcpu, end, registers });
                })
                .map_err(|source| ThreadError::Spawn { vcpu, source })?;
            vcpus.threads.push(thread);
        }
        Ok(vcpus)
    }

    /// Takes every vCPU out of the guest and keeps it out. Returns when all are out.
    ///
    /// # Errors
    /// Where a vCPU does not leave, or has ended: then all go on.
    pub fn pause(&self) -> Result<(), ThreadError> {
        self.control.set(RunState::Pause);
        self.kick();
        if self.control.await_parked(self.threads.len(), PATIENCE) {
            return Ok(());
        }
        // Nobody who asked for it knows that they are paused: those that are go on.
        self.control.set(RunState::Run);
        Err(ThreadError::Stuck(PATIENCE))
    }

    /// How many vCPUs there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.threads.len()
    }

    /// What they are to do.
    #[must_use]
    pub fn run_state(&self) -> RunState {
        self.control.run_state()
    }

    /// Lets paused vCPUs go on.
    pub fn resume(&self) {
        self.control.set(RunState::Run);
    }

    /// Stops every vCPU and waits for its thread.
    pub fn stop(&mut self) {
        self.control.set(RunState::Stop);
        self.kick();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a vCPU's thread panicked");
            }
        }
    }

    /// Takes vCPUs out of the guest that exceptions wait for.
    pub fn kick_waiting(&self) {
        self.control.kick_waiting();
    }

    /// Takes every vCPU out of the guest, to look at what it is to do.
    pub fn kick(&self) {
        for thread in &self.threads {
            // Fails for a thread that has ended, which needs no kick.
            let _ = thread.kill(SIGRTMIN());
        }
    }
}

impl Drop for Vcpus {
    fn drop(&mut self) {
        self.stop();
    }
}
