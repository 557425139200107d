//! The loop that every vCPU thread runs.

use std::time::Duration;

use guest_memory::{GuestRam, sigbus};
use ras_core::Span;
use ras_core::vcpu_state::VcpuState;

use crate::control::{Control, Wish};
use crate::exit::Exit;
use crate::port::{RunError, VcpuPort};

/// What answers a guest's accesses to ports and to addresses without memory. Shared by all vCPUs.
pub trait Bus: Send + Sync {
    /// Fills `data` (1, 2 or 4 bytes) from a port; all ones where nothing listens.
    fn port_in(&self, port: u16, data: &mut [u8]);
    /// Takes `data` (1, 2 or 4 bytes) to a port; nothing where nothing listens.
    fn port_out(&self, port: u16, data: &[u8]);
    /// Fills `data` (1 to 8 bytes) from an address; all ones where nothing listens.
    fn mmio_read(&self, gpa: u64, data: &mut [u8]);
    /// Takes `data` (1 to 8 bytes) to an address; nothing where nothing listens.
    fn mmio_write(&self, gpa: u64, data: &[u8]);
    /// The guest touched `gpa`, where no memory is, by an instruction that KVM can not take apart, or fetched one from there.
    /// True where it is to stand at that instruction again; false where it can not go on.
    fn undecoded_access(&self, gpa: u64) -> bool {
        let _ = gpa;
        false
    }
    /// A vCPU met memory that the host lost, standing as `state` says. What it is to take for it, or that it is held, was
    /// left with the [`Control`] when this returns.
    fn lost_memory(&self, vcpu: u32, lost: Lost, state: Option<VcpuState>) {
        let _ = (vcpu, lost, state);
    }
    /// A vCPU is about to enter the guest: whoever has to know how it stands asks now, and leaves what it is to take with the
    /// [`Control`]. Called at every entry.
    fn ask(&self, vcpu: u32, state: &mut dyn FnMut() -> Option<VcpuState>) {
        let _ = (vcpu, state);
    }
    /// What [`lost_memory`](Self::lost_memory) left for the vCPU was carried out: there is time now to write it down. Called at
    /// every entry.
    fn settled(&self) {}
    /// A vCPU is held: whether there is still a reason to can be looked at.
    fn attend(&self) {}
    /// aarch64: the guest asked for power-off, reset or reports a crash. The wish is looked at afterwards.
    fn system_event(&self, kind: u32) {
        let _ = kind;
    }
    /// A vCPU is about to enter the guest for the first time.
    fn vcpu_started(&self, vcpu: u32) {
        let _ = vcpu;
    }
    /// The first exit of a vCPU that was the guest's own doing, before it is answered.
    fn first_exit(&self, vcpu: u32, exit: &'static str) {
        let _ = (vcpu, exit);
    }
}

/// Memory that the host lost, as a vCPU met it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// A signal named it by its address in this process.
    Signalled(sigbus::Fault),
    /// KVM named it by its guest address (KVM_EXIT_MEMORY_FAULT with EHWPOISON).
    Named {
        /// First GPA.
        gpa: u64,
        /// Bytes.
        size: u64,
    },
    /// The hardware's own abort came through (KVM_EXIT_ARM_SEA): the host has not taken the page out of use.
    Unclaimed {
        /// The GPA that was touched, where KVM knows it.
        gpa: Option<u64>,
    },
}

impl Lost {
    /// The guest's memory that was lost; none where it is not the guest's, or where nobody knows.
    #[cfg_attr(not(target_arch = "aarch64"), expect(dead_code, reason = "x86_64 asks for no address"))]
    pub(crate) fn span(&self, ram: &GuestRam) -> Option<Span> {
        let log2 = |bytes: u64| (u64::BITS - bytes.saturating_sub(1).leading_zeros()) as u8;
        match *self {
            Lost::Signalled(fault) => Some(Span::around(ram.guest_address(fault.hva)?, fault.log2_len)),
            Lost::Named { gpa, size } => Some(Span::around(gpa, log2(size))),
            Lost::Unclaimed { gpa } => Some(Span::around(gpa?, log2(ram.backing().page_size()))),
        }
    }
}

/// Why a vCPU left its run loop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// It was told to.
    Stopped,
    /// x86: a triple fault.
    TripleFault,
    /// KVM could not resolve a fault on guest memory.
    MemoryFault {
        /// First GPA.
        gpa: u64,
        /// Bytes.
        size: u64,
        /// EFAULT or EHWPOISON.
        errno: i32,
    },
    /// The processor refused to enter the guest, with its own code.
    EntryFailed(u64),
    /// KVM met what it can not handle, with KVM's suberror.
    InternalError(u32),
    /// An instruction that can not be taken apart touched this GPA, where no memory is.
    UndecodedAccess(u64),
    /// An exit that nobody handles, with KVM's number for it.
    UnhandledExit(u32),
    /// KVM_RUN itself failed.
    RunFailed(String),
    /// An exception that the guest must take can not be injected.
    NotInjected(String),
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            End::Stopped => write!(f, "stopped"),
            End::TripleFault => write!(f, "triple fault"),
            End::MemoryFault { gpa, size, errno } => {
                write!(f, "fault on {size} bytes of guest memory at {gpa:#x} (errno {errno})")
            }
            End::EntryFailed(reason) => {
                write!(f, "the processor refused to enter the guest (reason {reason:#x})")
            }
            End::InternalError(suberror) => {
                let what = match suberror {
                    1 => "an instruction it can not emulate",
                    2 => "simultaneous exceptions",
                    3 => "an event it can not deliver",
                    4 => "an unexpected hardware exit",
                    _ => "an internal error",
                };
                write!(f, "KVM met {what} (suberror {suberror})")
            }
            End::UndecodedAccess(gpa) => {
                write!(f, "an instruction that KVM can not take apart touched {gpa:#x}, where no memory is")
            }
            End::UnhandledExit(reason) => write!(f, "unhandled exit {reason}"),
            End::RunFailed(error) => f.write_str(error),
            End::NotInjected(error) => write!(f, "an exception can not be injected: {error}"),
        }
    }
}

/// How often a held vCPU looks whether it still has to be.
const ATTENTION: Duration = Duration::from_millis(1);

/// Runs the vCPU of index `vcpu` until it is told to stop, or can not go on.
pub fn run(vcpu: u32, port: &mut impl VcpuPort, bus: &dyn Bus, control: &Control) -> End {
    let mut progress = Progress::Fresh;
    loop {
        // The order matters: a kick that comes after the flag was cleared ends the next entry at once, and one that
        // came before has its reason in the wish that is read now.
        port.clear_kick();
        match control.wish() {
            Wish::Run => {}
            Wish::Pause => {
                control.park();
                continue;
            }
            Wish::Stop => return End::Stopped,
        }
        if control.is_held(vcpu) {
            bus.settled();
            control.await_release(vcpu, ATTENTION);
            bus.attend();
            continue;
        }
        if progress == Progress::Fresh {
            bus.vcpu_started(vcpu);
            progress = Progress::Entered;
        }
        bus.ask(vcpu, &mut || port.state(None));
        while let Some(injection) = control.take_injection(vcpu) {
            if let Err(error) = port.inject(injection) {
                return End::NotInjected(error.0.to_string());
            }
        }
        bus.settled();
        let answered = match sigbus::listening(|| port.run()) {
            Ok(Exit::Interrupted) => Answered::Done,
            Ok(exit) => {
                if progress == Progress::Entered {
                    bus.first_exit(vcpu, exit.name());
                    progress = Progress::Exited;
                }
                answer(exit, bus)
            }
            Err(error) => return End::RunFailed(error.to_string()),
        };
        let met = match answered {
            Answered::Done | Answered::Access => None,
            Answered::Lost(lost) => Some(lost),
            Answered::End(end) => return end,
        };
        let is_access = matches!(answered, Answered::Access);
        if let Err(error) = tell_of_losses(vcpu, port, bus, met, is_access) {
            return End::RunFailed(error.to_string());
        }
    }
}

/// What became of an exit.
enum Answered {
    /// It was answered.
    Done,
    /// It was an access to an address without memory, which was answered. It is not complete before the next entry.
    Access,
    /// The guest can not go on without memory that was lost.
    Lost(Lost),
    /// It was the last.
    End(End),
}

/// Tells of the memory that the last exit, or a signal that came with it, found lost.
fn tell_of_losses(
    vcpu: u32,
    port: &mut impl VcpuPort,
    bus: &dyn Bus,
    met: Option<Lost>,
    is_access: bool,
) -> Result<(), RunError> {
    let mut signalled = sigbus::take();
    // An access is only made where memory was left out on purpose, so that whoever answered it raised the signal.
    if is_access && signalled.is_some() {
        port.abandon_access()?;
    }
    if let Some(lost) = met {
        bus.lost_memory(vcpu, lost, port.state(Some(&lost)));
    }
    while let Some(fault) = signalled {
        let lost = Lost::Signalled(fault);
        bus.lost_memory(vcpu, lost, port.state(Some(&lost)));
        signalled = sigbus::take();
    }
    Ok(())
}

/// How far a vCPU has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    Fresh,
    Entered,
    Exited,
}

/// Answers an exit.
fn answer(exit: Exit<'_>, bus: &dyn Bus) -> Answered {
    match exit {
        Exit::PortIn { port, width, data } => {
            data.chunks_mut(width.max(1)).for_each(|access| bus.port_in(port, access));
        }
        Exit::PortOut { port, width, data } => {
            data.chunks(width.max(1)).for_each(|access| bus.port_out(port, access));
        }
        Exit::MmioRead { gpa, data } => {
            bus.mmio_read(gpa, data);
            return Answered::Access;
        }
        Exit::MmioWrite { gpa, data } => {
            bus.mmio_write(gpa, data);
            return Answered::Access;
        }
        Exit::SystemEvent { kind } => bus.system_event(kind),
        Exit::Interrupted => {}
        Exit::MemoryFault { gpa, size, errno: libc::EHWPOISON, .. } => {
            return Answered::Lost(Lost::Named { gpa, size });
        }
        Exit::ArmSea { gpa, .. } => return Answered::Lost(Lost::Unclaimed { gpa }),
        Exit::UndecodedAccess { gpa } | Exit::InternalError { at: Some(gpa), .. }
            if bus.undecoded_access(gpa) => {}
        Exit::UndecodedAccess { gpa } => return Answered::End(End::UndecodedAccess(gpa)),
        Exit::Shutdown => return Answered::End(End::TripleFault),
        Exit::MemoryFault { gpa, size, errno, .. } => {
            return Answered::End(End::MemoryFault { gpa, size, errno });
        }
        Exit::EntryFailed { reason } => return Answered::End(End::EntryFailed(reason)),
        Exit::InternalError { suberror, .. } => return Answered::End(End::InternalError(suberror)),
        Exit::Unexpected { reason } => return Answered::End(End::UnhandledExit(reason)),
    }
    Answered::Done
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Mutex;

    use super::*;
    use crate::port::{Injection, RunError};

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

        fn inject(&mut self, injection: Injection) -> Result<(), RunError> {
            self.injected.push(injection);
            Ok(())
        }

        fn state(&mut self, _: Option<&Lost>) -> Option<VcpuState> {
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
        control.set(Wish::Stop);
        control.set(Wish::Run);
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
                self.0.set(Wish::Stop);
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
        control.set(Wish::Pause);
        std::thread::scope(|scope| {
            let vcpu = scope.spawn(|| run(0, &mut Script::new([]), &Notes::default(), &control));
            assert!(control.await_parked(1, std::time::Duration::from_secs(10)));
            control.set(Wish::Run);
            assert_eq!(vcpu.join().expect("no panic"), End::TripleFault);
        });
    }
}
