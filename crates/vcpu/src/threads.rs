//! A thread for each vCPU.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use guest_memory::own;

use crate::control::{Control, Parked, RunState};
use crate::core_registers::CoreRegisters;
use crate::environment::VcpuEnvironment;
use crate::exit_reason::VcpuExitReason;
use crate::kick;
use crate::port::VcpuPort;
use crate::run_loop::run;
use crate::thread_error::ThreadError;

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

/// How long kicked vCPUs may take to leave the guest. Far more than they take, even if KVM itself is emulated.
const PAUSE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long kicked vCPUs may take to leave their run loops.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

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
            let thread = own::thread(format!("vcpu{vcpu}"))
                .spawn(move || {
                    // A panic too is reported as the end of the vCPU.
                    let reason = catch_unwind(AssertUnwindSafe(|| {
                        let _entered = control.enter_thread(vcpu);
                        let reason =
                            kick::with_flag(flag.as_ref(), || run(vcpu, &mut port, &environment, &control));
                        environment.memory_errors.stopped(vcpu, &mut || port.state(None));
                        reason
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

    /// Makes every vCPU leave the guest and wait. Returns when all are waiting. When they continue, the guest is notified of the pause, if
    /// there is a means.
    ///
    /// # Errors
    /// Returns an error if a vCPU does not leave the guest within 30 s, after which all continue, or if another state is requested
    /// meanwhile, which then is that of the vCPUs.
    pub fn pause(&self) -> Result<(), ThreadError> {
        self.control.pause_and_notify();
        self.await_paused()
    }

    /// As [`pause`](Self::pause), for a moment of which the guest is not notified.
    ///
    /// # Errors
    /// As those of [`pause`](Self::pause).
    pub fn pause_briefly(&self) -> Result<(), ThreadError> {
        self.control.set(RunState::Pause);
        self.await_paused()
    }

    fn await_paused(&self) -> Result<(), ThreadError> {
        self.kick();
        match self.control.await_parked(self.threads.len(), PAUSE_TIMEOUT) {
            Parked::All => Ok(()),
            Parked::Missing => {
                self.control.set(RunState::Run);
                Err(ThreadError::NotPaused(PAUSE_TIMEOUT))
            }
            Parked::OtherState => Err(ThreadError::PauseCancelled(self.control.run_state())),
        }
    }

    /// The registers of all vCPUs, which are paused, in the order of their index. Those of ports that have none are missing.
    ///
    /// # Errors
    /// Returns an error if the vCPUs are not paused, or if the registers of one cannot be read.
    pub fn core_registers(&self) -> Result<Vec<CoreRegisters>, ThreadError> {
        let registers = self.control.registers(self.threads.len(), PAUSE_TIMEOUT);
        let registers = registers.ok_or(ThreadError::NotPausedForRegisters)?.into_iter().zip(0..);
        let read = registers.filter_map(|(read, vcpu)| {
            read.map_err(|source| ThreadError::Registers { vcpu, source }).transpose()
        });
        read.collect()
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
    ///
    /// # Errors
    /// Returns an error if a vCPU does not leave its run loop within 10 s, because its environment does not return. No thread is joined
    /// then: they keep their ports, with the guest's memory, and end with the process.
    pub fn stop(&mut self) -> Result<(), ThreadError> {
        self.stop_within(STOP_TIMEOUT)
    }

    fn stop_within(&mut self, timeout: Duration) -> Result<(), ThreadError> {
        let threads = std::mem::take(&mut self.threads);
        if threads.is_empty() {
            return Ok(());
        }
        self.control.set(RunState::Stop);
        self.kick();
        let vcpus = self.control.await_left(timeout);
        if !vcpus.is_empty() {
            return Err(ThreadError::NotStopped { vcpus, timeout });
        }
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a vCPU's thread panicked");
            }
        }
        Ok(())
    }

    /// Kicks the vCPUs for which exceptions are pending.
    pub fn kick_waiting(&self) {
        self.control.kick_waiting();
    }

    /// Kicks every vCPU, so that it reads its control again.
    pub fn kick(&self) {
        self.control.kick_all();
    }
}

impl Drop for Vcpus {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            tracing::error!("{error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

    use ras_core::vcpu_state::VcpuState;
    use vmm_sys_util::signal::{block_signal, get_blocked_signals};

    use super::*;
    use crate::core_registers::Aarch64Registers;
    use crate::environment::{IoBus, MemoryErrorHandler};
    use crate::exit::Exit;
    use crate::kick::KickFlag;
    use crate::poison_access::PoisonAccess;
    use crate::port::{Injected, Injection, RunError};

    /// A guest that computes without an exit until a kick: only its flag ends it.
    #[derive(Default)]
    struct Busy {
        flag: Arc<AtomicU8>,
        /// Does not return at all while this is set.
        is_stuck: Arc<AtomicBool>,
        /// How many pauses its guest was notified of.
        continued: Arc<AtomicU8>,
        entries: Arc<AtomicU8>,
    }

    /// Waits until a port is entered.
    fn await_entry(entries: &AtomicU8, before: u8) {
        while entries.load(Ordering::Relaxed) == before {
            std::thread::yield_now();
        }
    }

    impl VcpuPort for Busy {
        fn run(&mut self) -> Result<Exit<'_>, RunError> {
            self.entries.fetch_add(1, Ordering::Relaxed);
            while self.flag.load(Ordering::Relaxed) == 0 || self.is_stuck.load(Ordering::Relaxed) {
                std::thread::yield_now();
            }
            Ok(Exit::Interrupted)
        }
        fn inject(&mut self, _: Injection) -> Result<Injected, RunError> {
            Ok(Injected::Done)
        }
        fn state(&mut self, _: Option<&PoisonAccess>) -> Option<VcpuState> {
            None
        }
        fn abandon_access(&mut self) -> Result<(), RunError> {
            Ok(())
        }
        fn continue_after_pause(&mut self) {
            self.continued.fetch_add(1, Ordering::Relaxed);
        }
        fn core_registers(&mut self) -> Result<Option<CoreRegisters>, RunError> {
            let registers =
                Aarch64Registers { pc: self.entries.load(Ordering::Relaxed).into(), ..Default::default() };
            Ok(Some(CoreRegisters::Aarch64(registers)))
        }
        fn clear_kick(&mut self) {
            self.flag.store(0, Ordering::Relaxed);
        }
        fn kick_flag(&mut self) -> io::Result<Option<KickFlag>> {
            Ok(Some(Arc::clone(&self.flag).into()))
        }
        fn registers(&mut self) -> String {
            String::new()
        }
    }

    /// A machine without devices.
    struct Nothing;

    impl IoBus for Nothing {}

    impl MemoryErrorHandler for Nothing {
        fn consumed(&self, _: u32, _: PoisonAccess, _: &mut dyn FnMut() -> Option<VcpuState>) {}
    }

    fn start(ports: Vec<Busy>) -> (Vcpus, Arc<Control>) {
        let environment = VcpuEnvironment {
            io: Arc::new(Nothing),
            memory_errors: Arc::new(Nothing),
            observer: Arc::new(()),
        };
        let control = Arc::new(Control::default());
        let exited: Arc<dyn Fn(VcpuExited) + Send + Sync> = Arc::new(|_| {});
        (Vcpus::start(ports, &environment, &control, &exited).expect("threads"), control)
    }

    #[test]
    fn vcpus_are_kicked_although_their_creator_blocks_the_signal() {
        std::thread::scope(|scope| {
            // On a thread of its own, whose mask is inherited by the vCPUs.
            scope.spawn(|| {
                block_signal(libc::SIGURG).expect("a signal that was not blocked");
                let (mut vcpus, _) = start(vec![Busy::default(), Busy::default()]);
                vcpus.pause().expect("all vCPUs leave the guest");
                vcpus.resume();
                vcpus.stop().expect("all vCPUs leave their run loops");
                assert!(get_blocked_signals().expect("a mask").contains(&libc::SIGURG));
            });
        });
    }

    #[test]
    fn the_guest_is_notified_of_the_machines_pauses_only() {
        type Pause = fn(&Vcpus) -> Result<(), ThreadError>;
        let (pause, briefly): (Pause, Pause) = (Vcpus::pause, Vcpus::pause_briefly);
        for (pauses, expected) in [([briefly, briefly], 0), ([briefly, pause], 1), ([pause, briefly], 1)] {
            let port = Busy::default();
            let (continued, entries) = (Arc::clone(&port.continued), Arc::clone(&port.entries));
            let (vcpus, _) = start(vec![port]);
            await_entry(&entries, 0);
            for pause in pauses {
                pause(&vcpus).expect("all vCPUs leave the guest");
                let before = entries.load(Ordering::Relaxed);
                vcpus.resume();
                await_entry(&entries, before);
            }
            drop(vcpus);
            assert_eq!(continued.load(Ordering::Relaxed), expected);
        }
    }

    #[test]
    fn registers_are_those_of_each_paused_vcpu() {
        let (first, second) = (Busy::default(), Busy::default());
        first.entries.store(100, Ordering::Relaxed);
        let (vcpus, _) = start(vec![first, second]);
        assert!(matches!(vcpus.core_registers(), Err(ThreadError::NotPausedForRegisters)), "they run");
        vcpus.pause().expect("all vCPUs leave the guest");
        let read = || {
            vcpus.core_registers().expect("paused").into_iter().map(|registers| match registers {
                CoreRegisters::Aarch64(registers) => registers.pc / 100,
                other => panic!("{other:?}"),
            })
        };
        assert_eq!(read().collect::<Vec<_>>(), [1, 0]);
        assert_eq!(read().collect::<Vec<_>>(), [1, 0], "again, in the same pause");
    }

    #[test]
    fn a_vcpu_that_does_not_return_is_named_and_left_behind() {
        let port = Busy::default();
        let (is_stuck, entries) = (Arc::clone(&port.is_stuck), Arc::clone(&port.entries));
        is_stuck.store(true, Ordering::Relaxed);
        let (mut vcpus, control) = start(vec![Busy::default(), port]);
        await_entry(&entries, 0);
        let error = vcpus.stop_within(Duration::from_millis(50)).expect_err("one does not return");
        assert_eq!(error.to_string(), "vCPUs [1] have not left their run loops within 50ms");
        drop(vcpus);
        is_stuck.store(false, Ordering::Relaxed);
        assert_eq!(control.await_left(Duration::from_secs(20)), [0_u32; 0]);
    }

    #[test]
    fn a_pause_that_a_stop_overtakes_says_so() {
        let port = Busy::default();
        let (is_stuck, entries) = (Arc::clone(&port.is_stuck), Arc::clone(&port.entries));
        is_stuck.store(true, Ordering::Relaxed);
        let (vcpus, control) = start(vec![port]);
        // One that is not entered yet pauses.
        await_entry(&entries, 0);
        let error = std::thread::scope(|scope| {
            let pause = scope.spawn(|| vcpus.pause());
            while control.run_state() != RunState::Pause {
                std::thread::yield_now();
            }
            control.set(RunState::Stop);
            pause.join().expect("no panic").expect_err("the vCPU never paused")
        });
        assert_eq!(error.to_string(), "the vCPUs cannot be paused: the state Stop was requested meanwhile");
        is_stuck.store(false, Ordering::Relaxed);
    }
}
