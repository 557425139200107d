//! The run loop with a scripted hypervisor.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex};

use ras_core::vcpu_state::VcpuState;

use super::*;
use crate::control::Parked;
use crate::environment::{IoBus, MemoryErrorHandler, Unmapped, VcpuObserver};
use crate::kick::KickFlag;
use crate::port::{Injected, Injection, RunError};

/// A hypervisor that returns the exits of a script, and then a triple fault.
struct Script {
    steps: VecDeque<Step>,
    data: [u8; 8],
    kicks_cleared: usize,
    injected: Vec<Injection>,
    abandoned: usize,
    continued: usize,
}

type Outcome = Result<Exit<'static>, RunError>;

enum Step {
    PortIn(u16, usize, usize),
    PortOut(u16, usize, Vec<u8>),
    MmioRead(u64, usize),
    MmioWrite(u64, Vec<u8>),
    Other(fn() -> Outcome),
}

impl Script {
    fn new(steps: impl IntoIterator<Item = Step>) -> Self {
        Script {
            steps: steps.into_iter().collect(),
            data: [0; 8],
            kicks_cleared: 0,
            injected: vec![],
            abandoned: 0,
            continued: 0,
        }
    }
}

impl VcpuPort for Script {
    fn run(&mut self) -> Result<Exit<'_>, RunError> {
        match self.steps.pop_front() {
            None => Ok(Exit::Shutdown),
            Some(Step::PortIn(port, width, len)) => {
                Ok(Exit::PortIn { port, width, data: &mut self.data[..len] })
            }
            Some(Step::PortOut(port, width, bytes)) => {
                self.data[..bytes.len()].copy_from_slice(&bytes);
                Ok(Exit::PortOut { port, width, data: &self.data[..bytes.len()] })
            }
            Some(Step::MmioRead(gpa, len)) => Ok(Exit::MmioRead { gpa, data: &mut self.data[..len] }),
            Some(Step::MmioWrite(gpa, bytes)) => {
                self.data[..bytes.len()].copy_from_slice(&bytes);
                Ok(Exit::MmioWrite { gpa, data: &self.data[..bytes.len()] })
            }
            Some(Step::Other(make)) => make(),
        }
    }

    fn inject(&mut self, injection: Injection) -> Result<Injected, RunError> {
        self.injected.push(injection);
        Ok(Injected::Done)
    }

    fn state(&mut self, _: Option<&PoisonAccess>) -> Option<VcpuState> {
        None
    }

    fn abandon_access(&mut self) -> Result<(), RunError> {
        self.abandoned += 1;
        Ok(())
    }

    fn continue_after_pause(&mut self) {
        self.continued += 1;
    }

    fn clear_kick(&mut self) {
        self.kicks_cleared += 1;
    }

    fn kick_flag(&mut self) -> io::Result<Option<KickFlag>> {
        Ok(None)
    }

    fn registers(&mut self) -> String {
        String::new()
    }
}

/// Records calls. As a bus it has devices below port 0x8000 and GPA 1 << 40, which return 0x5a.
#[derive(Default)]
struct Recorder(Mutex<Vec<String>>);

impl Recorder {
    fn record(&self, line: String) {
        self.0.lock().expect("no panic").push(line);
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().expect("no panic"))
    }

    fn mapped(&self, is_mapped: bool) -> Result<(), Unmapped> {
        if is_mapped { Ok(()) } else { Err(Unmapped) }
    }
}

impl IoBus for Recorder {
    fn port_in(&self, port: u16, data: &mut [u8]) -> Result<(), Unmapped> {
        self.record(format!("in {port:#x} {}", data.len()));
        self.mapped(port < 0x8000).map(|()| data.fill(0x5a))
    }
    fn port_out(&self, port: u16, data: &[u8]) -> Result<(), Unmapped> {
        self.record(format!("out {port:#x} {data:x?}"));
        self.mapped(port < 0x8000)
    }
    fn mmio_read(&self, gpa: u64, data: &mut [u8]) -> Result<(), Unmapped> {
        self.record(format!("read {gpa:#x} {}", data.len()));
        self.mapped(gpa < 1 << 40).map(|()| data.fill(0x5a))
    }
    fn mmio_write(&self, gpa: u64, data: &[u8]) -> Result<(), Unmapped> {
        self.record(format!("write {gpa:#x} {data:x?}"));
        self.mapped(gpa < 1 << 40)
    }
}

impl MemoryErrorHandler for Recorder {
    fn consumed(&self, vcpu: u32, access: PoisonAccess, _: &mut dyn FnMut() -> Option<VcpuState>) {
        self.record(format!("consumed {vcpu} {access:?}"));
    }
}

impl VcpuObserver for Recorder {
    fn vcpu_started(&self, vcpu: u32) {
        self.record(format!("started {vcpu}"));
    }
    fn first_exit(&self, vcpu: u32, exit: &'static str) {
        self.record(format!("first {vcpu} {exit}"));
    }
}

fn environment<T: IoBus + MemoryErrorHandler + VcpuObserver + 'static>(all: &Arc<T>) -> VcpuEnvironment {
    VcpuEnvironment {
        io: Arc::clone(all) as _,
        memory_errors: Arc::clone(all) as _,
        observer: Arc::clone(all) as _,
    }
}

/// Runs vCPU 3 to the end of a script. Returns the reason and the recorded calls.
fn run_script(script: &mut Script, control: &Control) -> (VcpuExitReason, Vec<String>) {
    let recorder = Arc::new(Recorder::default());
    let reason = run(3, script, &environment(&recorder), control);
    (reason, recorder.take())
}

#[test]
fn accesses_reach_the_bus_in_order() {
    let mut script = Script::new([
        Step::Other(|| Ok(Exit::Interrupted)),
        Step::PortOut(0x3f8, 1, vec![b'a']),
        Step::PortIn(0x3fd, 1, 1),
        Step::MmioRead(0xd000_0000, 4),
        Step::MmioWrite(0xd000_0004, vec![1, 2]),
    ]);
    let (reason, calls) = run_script(&mut script, &Control::default());
    assert_eq!(reason, VcpuExitReason::TripleFault);
    assert_eq!(
        calls,
        [
            "started 3",
            "first 3 port-out",
            "out 0x3f8 [61]",
            "in 0x3fd 1",
            "read 0xd0000000 4",
            "write 0xd0000004 [1, 2]"
        ]
    );
    assert_eq!(script.data[..2], [1, 2]);
}

#[test]
fn a_string_instruction_is_several_accesses() {
    let mut script = Script::new([Step::PortOut(0x3f8, 1, vec![1, 2, 3]), Step::PortIn(0x60, 2, 4)]);
    let (_, calls) = run_script(&mut script, &Control::default());
    assert_eq!(calls[2..], ["out 0x3f8 [1]", "out 0x3f8 [2]", "out 0x3f8 [3]", "in 0x60 2", "in 0x60 2"]);
    assert_eq!(script.data[..4], [0x5a; 4]);
}

#[test]
fn a_read_without_a_device_returns_all_ones() {
    for (step, len) in [(Step::PortIn(0x8000, 2, 4), 4), (Step::MmioRead(1 << 40, 8), 8)] {
        let mut script = Script::new([step]);
        let (reason, calls) = run_script(&mut script, &Control::default());
        assert_eq!(reason, VcpuExitReason::TripleFault);
        assert!(!calls.iter().any(|call| call.starts_with("consumed")), "{calls:?}");
        assert_eq!(script.data[..len], [0xff; 8][..len]);
        assert_eq!(script.abandoned, 0);
    }
}

#[test]
fn each_final_exit_has_its_reason() {
    let failed = || RunError::Call { call: "KVM_RUN", source: io::Error::from_raw_os_error(libc::EIO) };
    assert_eq!(failed().to_string(), "KVM_RUN: Input/output error (os error 5)");
    let reasons: [(fn() -> Outcome, VcpuExitReason); 7] = [
        (|| Ok(Exit::Shutdown), VcpuExitReason::TripleFault),
        (|| Ok(Exit::EntryFailed { reason: 0x21 }), VcpuExitReason::EntryFailed(0x21)),
        (|| Ok(Exit::InternalError { suberror: 1, at: Some(0x1000) }), VcpuExitReason::InternalError(1)),
        (|| Ok(Exit::UndecodedAccess { gpa: 0x1000 }), VcpuExitReason::UndecodedAccess(0x1000)),
        (|| Ok(Exit::Unexpected { reason: 99 }), VcpuExitReason::UnhandledExit(99)),
        (
            || Ok(Exit::MemoryFault { gpa: 0x1000, size: 4096, flags: 0, errno: libc::EFAULT }),
            VcpuExitReason::MemoryFault { gpa: 0x1000, size: 4096, errno: libc::EFAULT },
        ),
        (
            || Err(RunError::Call { call: "KVM_RUN", source: io::Error::from_raw_os_error(libc::EIO) }),
            VcpuExitReason::RunFailed(failed().to_string()),
        ),
    ];
    for (make, reason) in reasons {
        let mut script = Script::new([Step::Other(make)]);
        assert_eq!(run_script(&mut script, &Control::default()).0, reason);
    }
}

#[test]
fn a_stopped_vcpu_does_not_enter_the_guest() {
    let control = Control::default();
    control.set(RunState::Stop);
    control.set(RunState::Run);
    let mut script = Script::new([]);
    assert_eq!(run_script(&mut script, &control).0, VcpuExitReason::Stopped);
    assert_eq!(script.kicks_cleared, 1);
}

#[test]
fn pending_exceptions_of_the_vcpu_are_injected_before_the_entry() {
    let control = Control::default();
    control.inject(1, Injection::Nmi);
    control.inject(3, Injection::Nmi);
    control.inject(3, Injection::Nmi);
    let mut script = Script::new([]);
    run_script(&mut script, &control);
    assert_eq!(script.injected, [Injection::Nmi; 2]);
    assert_eq!(control.take_injection(1), Some(Injection::Nmi));
    assert_eq!(control.take_injection(1), None);
}

#[test]
fn a_state_requested_by_an_exit_takes_effect_before_the_next_entry() {
    /// Stops the vCPUs at the first write to a port.
    struct PowerOff(Arc<Control>);
    impl IoBus for PowerOff {
        fn port_out(&self, _: u16, _: &[u8]) -> Result<(), Unmapped> {
            self.0.set(RunState::Stop);
            Ok(())
        }
    }
    let control = Arc::new(Control::default());
    let environment = VcpuEnvironment {
        io: Arc::new(PowerOff(Arc::clone(&control))),
        memory_errors: Arc::new(Recorder::default()),
        observer: Arc::new(()),
    };
    let mut script = Script::new([Step::PortOut(0x600, 1, vec![0x34])]);
    assert_eq!(run(3, &mut script, &environment, &control), VcpuExitReason::Stopped);
}

#[test]
fn a_paused_vcpu_resumes() {
    for (is_notified, continued, why) in
        [(true, 1, "the guest's watchdogs are notified"), (false, 0, "nothing comes before the next entry")]
    {
        let control = Control::default();
        if is_notified {
            control.pause_and_notify();
        } else {
            control.set(RunState::Pause);
        }
        let mut script = Script::new([]);
        std::thread::scope(|scope| {
            let vcpu = scope.spawn(|| run_script(&mut script, &control).0);
            assert_eq!(control.await_parked(1, Duration::from_secs(10)), Parked::All);
            // A change of memslots while the machine is paused.
            control.set(RunState::Pause);
            control.set(RunState::Run);
            assert_eq!(vcpu.join().expect("no panic"), VcpuExitReason::TripleFault);
        });
        assert_eq!(script.continued, continued, "{why}");
    }
}

/// A machine whose memory at 0x7000 is poisoned. It holds the vCPU that consumes the error for a number of polls, and then injects an
/// NMI.
#[derive(Default)]
struct Poisoned {
    control: Control,
    recorder: Recorder,
    polls_until_release: Mutex<u32>,
}

impl IoBus for Poisoned {
    fn port_out(&self, port: u16, data: &[u8]) -> Result<(), Unmapped> {
        self.recorder.port_out(port, data)
    }
}

impl MemoryErrorHandler for Poisoned {
    fn consumed(&self, vcpu: u32, access: PoisonAccess, state: &mut dyn FnMut() -> Option<VcpuState>) {
        self.recorder.consumed(vcpu, access, state);
        if *self.polls_until_release.lock().expect("no panic") > 0 {
            self.control.hold(vcpu);
        } else {
            self.control.inject(vcpu, Injection::Nmi);
        }
    }
    fn unmapped_access(&self, gpa: u64) -> bool {
        if gpa != 0x7000 {
            return false;
        }
        let fault = sigbus::Fault { hva: gpa, log2_len: 12, action: sigbus::Action::Required };
        sigbus::capture_action_required(|| sigbus::raise(fault)).expect("a signal to this thread");
        true
    }
    fn poll(&self) {
        let mut polls = self.polls_until_release.lock().expect("no panic");
        *polls -= 1;
        self.recorder.record("poll".into());
        if *polls == 0 {
            self.control.inject(0, Injection::Nmi);
        }
    }
}

impl VcpuObserver for Poisoned {}

#[expect(unsafe_code, reason = "a signal handler is installed")]
fn install_handler() {
    // Fails if another test has installed it.
    // SAFETY: the function only returns a number.
    let _ = unsafe { sigbus::install(|_| 1) };
}

#[test]
fn an_access_to_poisoned_memory_is_abandoned_and_reported_before_the_next_entry() {
    install_handler();
    let machine = Arc::new(Poisoned::default());
    let mut script = Script::new([
        Step::MmioRead(0x7000, 4),
        Step::MmioWrite(0x7000, vec![1]),
        Step::MmioRead(0x8000, 4),
        Step::Other(|| Ok(Exit::InternalError { suberror: 1, at: Some(0x7000) })),
        Step::Other(|| Ok(Exit::MemoryFault { gpa: 0x5000, size: 4096, flags: 0, errno: libc::EHWPOISON })),
        Step::Other(|| Ok(Exit::ArmSea { esr: 0, gva: 0, gpa: Some(0x6000) })),
        Step::PortOut(1, 1, vec![9]),
    ]);
    let reason = run(0, &mut script, &environment(&machine), &machine.control);
    assert_eq!(reason, VcpuExitReason::TripleFault);
    assert_eq!(script.abandoned, 2, "only MMIO accesses to poisoned memory are abandoned");
    assert_eq!(script.injected, [Injection::Nmi; 5]);
    let fault = sigbus::Fault { hva: 0x7000, log2_len: 12, action: sigbus::Action::Required };
    let accesses = [
        PoisonAccess::Sigbus(fault),
        PoisonAccess::Sigbus(fault),
        PoisonAccess::Sigbus(fault),
        PoisonAccess::MemoryFault { gpa: 0x5000, size: 4096 },
        PoisonAccess::ArmSea { gpa: Some(0x6000) },
    ];
    let mut calls: Vec<_> = accesses.iter().map(|access| format!("consumed 0 {access:?}")).collect();
    calls.push("out 0x1 [9]".into());
    assert_eq!(machine.recorder.take(), calls);
}

#[test]
fn a_held_vcpu_does_not_enter_the_guest_before_an_exception_is_injected() {
    install_handler();
    let machine = Arc::new(Poisoned { polls_until_release: Mutex::new(3), ..Poisoned::default() });
    let mut script = Script::new([Step::MmioRead(0x7000, 4), Step::PortOut(1, 1, vec![9])]);
    let reason = run(0, &mut script, &environment(&machine), &machine.control);
    assert_eq!(reason, VcpuExitReason::TripleFault);
    assert_eq!(machine.recorder.take()[1..], ["poll", "poll", "poll", "out 0x1 [9]"]);
    assert_eq!(script.injected, [Injection::Nmi]);
    assert!(!machine.control.has_pending());
}

#[test]
fn a_held_vcpu_pauses_and_stops() {
    let control = Control::default();
    control.hold(3);
    control.set(RunState::Pause);
    std::thread::scope(|scope| {
        let vcpu = scope.spawn(|| run_script(&mut Script::new([]), &control).0);
        assert_eq!(control.await_parked(1, Duration::from_secs(10)), Parked::All);
        control.set(RunState::Run);
        control.set(RunState::Stop);
        assert_eq!(vcpu.join().expect("no panic"), VcpuExitReason::Stopped);
    });
}
