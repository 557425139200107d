//! The run loop against a hypervisor that plays a script.

use std::collections::VecDeque;
use std::sync::Mutex;

use super::*;
use crate::port::{Injected, Injection, RunError};

/// A hypervisor that plays a script.
struct Script {
    steps: VecDeque<Step>,
    data: [u8; 8],
    kicks_cleared: usize,
    injected: Vec<Injection>,
    abandoned: usize,
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

    fn clear_kick(&mut self) {
        self.kicks_cleared += 1;
    }

    fn kick_flag(&mut self) -> *mut u8 {
        std::ptr::null_mut()
    }

    fn registers(&mut self) -> String {
        String::new()
    }
}

/// A bus that writes down what it is asked and answers with 0x5a.
#[derive(Default)]
struct Notes(Mutex<Vec<String>>);

impl Notes {
    fn note(&self, line: String) {
        self.0.lock().expect("one thread").push(line);
    }

    fn taken(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().expect("one thread"))
    }
}

impl Bus for Notes {
    fn port_in(&self, port: u16, data: &mut [u8]) {
        data.fill(0x5a);
        self.note(format!("in {port:#x} {}", data.len()));
    }
    fn port_out(&self, port: u16, data: &[u8]) {
        self.note(format!("out {port:#x} {data:x?}"));
    }
    fn mmio_read(&self, gpa: u64, data: &mut [u8]) {
        data.fill(0x5a);
        self.note(format!("read {gpa:#x} {}", data.len()));
    }
    fn mmio_write(&self, gpa: u64, data: &[u8]) {
        self.note(format!("write {gpa:#x} {data:x?}"));
    }
    fn vcpu_started(&self, vcpu: u32) {
        self.note(format!("started {vcpu}"));
    }
    fn first_exit(&self, vcpu: u32, exit: &'static str) {
        self.note(format!("first {vcpu} {exit}"));
    }
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
    let bus = Notes::default();
    assert_eq!(run(3, &mut script, &bus, &Control::default()), End::TripleFault);
    assert_eq!(
        bus.taken(),
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
    let bus = Notes::default();
    run(3, &mut script, &bus, &Control::default());
    assert_eq!(
        bus.taken()[2..],
        ["out 0x3f8 [1]", "out 0x3f8 [2]", "out 0x3f8 [3]", "in 0x60 2", "in 0x60 2"]
    );
    assert_eq!(script.data[..4], [0x5a; 4]);
}

#[test]
fn each_deadly_exit_has_its_end() {
    let ends: [(fn() -> Outcome, End); 7] = [
        (|| Ok(Exit::Shutdown), End::TripleFault),
        (|| Ok(Exit::EntryFailed { reason: 0x21 }), End::EntryFailed(0x21)),
        (|| Ok(Exit::InternalError { suberror: 1, at: Some(0x1000) }), End::InternalError(1)),
        (|| Ok(Exit::UndecodedAccess { gpa: 0x1000 }), End::UndecodedAccess(0x1000)),
        (|| Ok(Exit::Unexpected { reason: 99 }), End::UnhandledExit(99)),
        (
            || Ok(Exit::MemoryFault { gpa: 0x1000, size: 4096, flags: 0, errno: libc::EFAULT }),
            End::MemoryFault { gpa: 0x1000, size: 4096, errno: libc::EFAULT },
        ),
        (
            || Err(RunError(std::io::Error::from_raw_os_error(libc::EIO))),
            End::RunFailed(RunError(std::io::Error::from_raw_os_error(libc::EIO)).to_string()),
        ),
    ];
    for (make, end) in ends {
        let mut script = Script::new([Step::Other(make)]);
        assert_eq!(run(3, &mut script, &Notes::default(), &Control::default()), end);
    }
}

#[test]
fn a_stop_keeps_the_guest_from_being_entered() {
    let control = Control::default();
    control.set(RunState::Stop);
    control.set(RunState::Run);
    let mut script = Script::new([]);
    assert_eq!(run(3, &mut script, &Notes::default(), &control), End::Stopped);
    assert_eq!(script.kicks_cleared, 1);
}

#[test]
fn a_vcpu_takes_its_own_exceptions_before_it_is_entered() {
    let control = Control::default();
    control.inject(1, Injection::Nmi);
    control.inject(0, Injection::Nmi);
    control.inject(0, Injection::Nmi);
    let mut script = Script::new([]);
    run(0, &mut script, &Notes::default(), &control);
    assert_eq!(script.injected, [Injection::Nmi; 2]);
    assert_eq!(control.take_injection(1), Some(Injection::Nmi));
    assert_eq!(control.take_injection(1), None);
}

#[test]
fn a_wish_made_by_an_exit_is_heeded_before_the_next_entry() {
    /// Switches the machine off at the first write.
    struct PowerOff(Control);
    impl Bus for PowerOff {
        fn port_in(&self, _: u16, _: &mut [u8]) {}
        fn port_out(&self, _: u16, _: &[u8]) {
            self.0.set(RunState::Stop);
        }
        fn mmio_read(&self, _: u64, _: &mut [u8]) {}
        fn mmio_write(&self, _: u64, _: &[u8]) {}
    }
    let bus = PowerOff(Control::default());
    let mut script = Script::new([Step::PortOut(0x600, 1, vec![0x34])]);
    assert_eq!(run(3, &mut script, &bus, &bus.0), End::Stopped);
}

#[test]
fn a_pause_is_left_when_the_wish_changes() {
    let control = Control::default();
    control.set(RunState::Pause);
    std::thread::scope(|scope| {
        let vcpu = scope.spawn(|| run(0, &mut Script::new([]), &Notes::default(), &control));
        assert!(control.await_parked(1, std::time::Duration::from_secs(10)));
        control.set(RunState::Run);
        assert_eq!(vcpu.join().expect("no panic"), End::TripleFault);
    });
}

/// A machine that loses the page at which the guest reads, and holds the vCPU for it as often as it is told to.
#[derive(Default)]
struct Losing {
    control: Control,
    notes: Notes,
    held: Mutex<u32>,
}

impl Bus for Losing {
    fn port_in(&self, _: u16, _: &mut [u8]) {}
    fn port_out(&self, port: u16, data: &[u8]) {
        self.notes.port_out(port, data);
    }
    fn mmio_read(&self, gpa: u64, _: &mut [u8]) {
        let fault = sigbus::Fault { hva: gpa, log2_len: 12, action: sigbus::Action::Required };
        sigbus::capture_action_required(|| sigbus::raise(fault)).expect("a signal to oneself");
    }
    fn mmio_write(&self, _: u64, _: &[u8]) {}
    fn memory_error(&self, vcpu: u32, lost: PoisonAccess, _: &mut dyn FnMut() -> Option<VcpuState>) {
        self.notes.note(format!("lost {vcpu} {lost:?}"));
        if *self.held.lock().expect("one thread") > 0 {
            self.control.hold(vcpu);
        } else {
            self.control.inject(vcpu, Injection::Nmi);
        }
    }
    fn attend(&self) {
        let mut held = self.held.lock().expect("one thread");
        *held -= 1;
        self.notes.note("attends".into());
        if *held == 0 {
            self.control.inject(0, Injection::Nmi);
        }
    }
}

#[expect(unsafe_code, reason = "a signal handler is installed")]
fn install_handler() {
    // An error means that another test did.
    // SAFETY: the function only returns a number.
    let _ = unsafe { sigbus::install(|_| 1) };
}

#[test]
fn an_access_to_lost_memory_is_taken_back_and_answered_before_the_next_entry() {
    install_handler();
    let bus = Losing::default();
    let mut script = Script::new([
        Step::MmioRead(0x7000, 4),
        Step::Other(|| Ok(Exit::MemoryFault { gpa: 0x5000, size: 4096, flags: 0, errno: libc::EHWPOISON })),
        Step::Other(|| Ok(Exit::ArmSea { esr: 0, gva: 0, gpa: Some(0x6000) })),
        Step::PortOut(1, 1, vec![9]),
    ]);
    assert_eq!(run(0, &mut script, &bus, &bus.control), End::TripleFault);
    assert_eq!(script.abandoned, 1, "only an access that was begun is taken back");
    assert_eq!(script.injected, [Injection::Nmi; 3]);
    let fault = sigbus::Fault { hva: 0x7000, log2_len: 12, action: sigbus::Action::Required };
    let told = [
        PoisonAccess::Signalled(fault),
        PoisonAccess::Named { gpa: 0x5000, size: 4096 },
        PoisonAccess::Unclaimed { gpa: Some(0x6000) },
    ];
    let told = told.map(|lost| format!("lost 0 {lost:?}"));
    assert_eq!(bus.notes.taken(), [&told[0], &told[1], &told[2], "out 0x1 [9]"]);
}

#[test]
fn a_held_vcpu_is_not_entered_before_it_has_an_exception_to_take() {
    install_handler();
    let bus = Losing { held: Mutex::new(3), ..Losing::default() };
    let mut script = Script::new([Step::MmioRead(0x7000, 4), Step::PortOut(1, 1, vec![9])]);
    assert_eq!(run(0, &mut script, &bus, &bus.control), End::TripleFault);
    assert_eq!(bus.notes.taken()[1..], ["attends", "attends", "attends", "out 0x1 [9]"]);
    assert_eq!(script.injected, [Injection::Nmi]);
    assert!(!bus.control.has_attention());
}

#[test]
fn a_held_vcpu_hears_of_a_stop_and_of_a_pause() {
    let control = Control::default();
    control.hold(0);
    control.set(RunState::Pause);
    std::thread::scope(|scope| {
        let vcpu = scope.spawn(|| run(0, &mut Script::new([]), &Notes::default(), &control));
        assert!(control.await_parked(1, std::time::Duration::from_secs(10)));
        control.set(RunState::Run);
        control.set(RunState::Stop);
        assert_eq!(vcpu.join().expect("no panic"), End::Stopped);
    });
}
