//! A thread for each vCPU.

use std::cell::Cell;
use std::io;
use std::sync::{Arc, Once};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use vmm_sys_util::signal::{Killable, SIGRTMIN, register_signal_handler};

use crate::control::{Control, Wish};
use crate::port::{Injection, VcpuPort};
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
    #[error("the thread of vCPU {vcpu} can not be started: {source}")]
    Spawn {
        /// Index of the vCPU.
        vcpu: u32,
        /// What the host said.
        source: io::Error,
    },
    /// The handler of the kick signal could not be installed.
    #[error("the kick signal's handler can not be installed: {0}")]
    Handler(vmm_sys_util::errno::Error),
    /// vCPUs did not leave the guest in time.
    #[error("not every vCPU left the guest within {0:?}")]
    Stuck(Duration),
}

/// How long a kicked vCPU may take to leave the guest. Far more than it takes, even where KVM is itself emulated.
const PATIENCE: Duration = Duration::from_secs(30);

thread_local! {
    /// The flag that a kick sets, on a vCPU's thread; null on every other.
    static KICK_FLAG: Cell<*mut u8> = const { Cell::new(std::ptr::null_mut()) };
}

/// The vCPUs of a machine, each on its thread. Dropping it stops and joins them.
pub struct Vcpus {
    threads: Vec<JoinHandle<()>>,
    control: Arc<Control>,
}

impl Vcpus {
    /// Starts a thread for each port, in the order of their index. The guest is entered at once, unless `control`
    /// wishes otherwise. Each vCPU that leaves its loop says so to `ended`, on its own thread.
    ///
    /// # Errors
    /// Where a thread can not be had; those already started are stopped.
    pub fn start<P: VcpuPort + Send + 'static>(
        ports: Vec<P>,
        bus: &Arc<dyn Bus>,
        control: &Arc<Control>,
        ended: &Arc<dyn Fn(Ended) + Send + Sync>,
    ) -> Result<Self, ThreadError> {
        install_kick_handler()?;
        let mut vcpus = Vcpus { threads: Vec::with_capacity(ports.len()), control: Arc::clone(control) };
        for (mut port, vcpu) in ports.into_iter().zip(0..) {
            let (bus, control, ended) = (Arc::clone(bus), Arc::clone(control), Arc::clone(ended));
            let thread = Builder::new()
                .name(format!("vcpu{vcpu}"))
                .spawn(move || {
                    KICK_FLAG.set(port.kick_flag());
                    let end = run(vcpu, &mut port, bus.as_ref(), &control);
                    KICK_FLAG.set(std::ptr::null_mut());
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
    /// Where a vCPU does not leave, or has ended.
    pub fn pause(&self) -> Result<(), ThreadError> {
        self.control.set(Wish::Pause);
        self.kick();
        if self.control.await_parked(self.threads.len(), PATIENCE) {
            Ok(())
        } else {
            Err(ThreadError::Stuck(PATIENCE))
        }
    }

    /// Makes a vCPU take an exception.
    pub fn inject(&self, vcpu: u32, injection: Injection) {
        self.control.inject(vcpu, injection);
        self.kick();
    }

    /// How many vCPUs there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.threads.len()
    }

    /// What they are to do.
    #[must_use]
    pub fn wish(&self) -> Wish {
        self.control.wish()
    }

    /// Lets paused vCPUs go on.
    pub fn resume(&self) {
        self.control.set(Wish::Run);
    }

    /// Stops every vCPU and waits for its thread.
    pub fn stop(&mut self) {
        self.control.set(Wish::Stop);
        self.kick();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a vCPU's thread panicked");
            }
        }
    }

    /// Takes vCPUs out of the guest where something waits for one of them.
    pub fn kick_if_attention(&self) {
        if self.control.has_attention() {
            self.kick();
        }
    }

    /// Takes every vCPU out of the guest, to look at what it is to do.
    pub fn kick(&self) {
        for thread in &self.threads {
            // Fails for a thread that has ended, which needs no kick.
            let _ = thread.kill(kick_signal());
        }
    }
}

impl Drop for Vcpus {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The signal that takes a vCPU out of the guest: the first real-time signal that the C library leaves free.
fn kick_signal() -> i32 {
    SIGRTMIN()
}

#[expect(unsafe_code, reason = "the handler writes through a raw pointer")]
fn install_kick_handler() -> Result<(), ThreadError> {
    extern "C" fn on_kick(_: i32, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
        let flag = KICK_FLAG.get();
        if !flag.is_null() {
            // SAFETY: the pointer is of a port that this very thread runs; it is reset before the port goes.
            unsafe { flag.write_volatile(1) };
        }
    }
    static INSTALLED: Once = Once::new();
    let mut outcome = Ok(());
    INSTALLED.call_once(|| {
        outcome = register_signal_handler(kick_signal(), on_kick);
    });
    outcome.map_err(ThreadError::Handler)
}
