//! From the SIGBUS to the exception that reports it, on real KVM, with a guest of a few instructions: one vCPU in real mode reads a
//! page in a memslot hole, takes an NMI, acknowledges its record, and writes to a port.
//!
//! The run loop, the signal handler, [`Reporting`] and its [`ActionExecutor`] are those of `ghest`.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use devices::InterruptLine;
use devices::ged::GenericEventDevice;
use guest_memory::{Backing, GuestRam, sigbus};
use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::{Kvm, VcpuFd, VmFd};
use machine_profile::OnReboot;
use ras_core::plan::{TablesView, plan, sources_wanted};
use ras_core::request::{Arch, OnMissingSupport, Repair, Request, TableSet};
use ras_core::vcpu_state::VcpuState;
use ras_core::{RecordArea, Response, Span};
use tempfile::TempDir;
use vcpu::{
    Control, Exit, Injected, Injection, IoBus, KickFlag, KvmPort, MemoryErrorHandler, PoisonAccess, RunError,
    RunState, Unmapped, VcpuEnvironment, VcpuExitReason, VcpuPort,
};
use vmm::journal::Journal;
use vmm::lifecycle::Lifecycle;
use vmm::ras::{ActionExecutor, Reporting};
use vmm::timings::Timings;

/// Bytes of the guest's memory.
const MEMORY: u64 = 1 << 20;
/// The record area: error block addresses, acknowledge registers and status blocks, 64 KiB each.
const RECORDS: u64 = 0x1_0000;
/// The page that no memory slot contains.
const POISONED: u64 = 0x9000;
/// The NMI's entry of the interrupt vector table.
const NMI_VECTOR: u64 = 2 * 4;
/// The code.
const CODE: u64 = 0x1000;
/// The NMI handler.
const HANDLER: u64 = 0x2000;
/// The port of two writes in a row, between which there is one exit and one entry.
const BARE: u16 = 0x10;
/// The port that is written at the end of a round.
const ROUND: u16 = 0x11;

/// `out 0x10, al` twice, `mov al, [0x9000]`, `out 0x11, al`, and again.
const LOOP: [u8; 11] = [0xe6, 0x10, 0xe6, 0x10, 0xa0, 0x00, 0x90, 0xe6, 0x11, 0xeb, 0xf5];
/// Sets the acknowledge register of the source (ds = 0x2000, byte 0 = 1), skips the read instruction of three bytes, and returns.
const ACKNOWLEDGE: [u8; 23] = [
    0x50, // push ax
    0x1e, // push ds
    0xb8, 0x00, 0x20, // mov ax, 0x2000
    0x8e, 0xd8, // mov ds, ax
    0xc6, 0x06, 0x00, 0x00, 0x01, // mov byte [0], 1
    0x1f, // pop ds
    0x55, // push bp
    0x89, 0xe5, // mov bp, sp
    0x83, 0x46, 0x04, 0x03, // add word [bp + 4], 3
    0x5d, // pop bp
    0x58, // pop ax
    0xcf, // iret
];

/// The times of one round, in nanoseconds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Round {
    /// One exit and entry for a port.
    pub(crate) bare: u64,
    /// From the exit at the poisoned page, through the signal and its handler, to the queued fault.
    pub(crate) signalled: u64,
    /// To abandon the vCPU's access, which only a simulated error needs.
    pub(crate) undone: u64,
    /// From the queued fault, without that, to the KVM_RUN that delivers the exception.
    pub(crate) answered: u64,
    /// From there to the exit after the guest has acknowledged the record.
    pub(crate) acknowledged: u64,
    /// Allocations of the vCPU's thread from the exit at the poisoned page to the next KVM_RUN.
    pub(crate) allocations: usize,
}

/// What the vCPU runs with, and what measures it.
struct Rig {
    reporting: Reporting,
    control: Arc<Control>,
    allocations: fn() -> usize,
    rounds: usize,
    start: Instant,
    /// The directory of the event file.
    _events: TempDir,
    /// An error was consumed, and the guest was not entered since.
    pending: AtomicBool,
    last: AtomicU64,
    count: AtomicU64,
    done: Mutex<(Round, Vec<Round>)>,
}

/// Runs a number of rounds. `allocations` returns the count of the calling thread.
///
/// # Errors
/// Returns an error if this machine has no usable KVM.
#[expect(unsafe_code, reason = "a signal handler is installed")]
pub(crate) fn rounds(rounds: usize, allocations: fn() -> usize) -> Result<Vec<Round>, String> {
    let kvm = Kvm::new().map_err(|error| format!("/dev/kvm: {error}"))?;
    let ram = GuestRam::allocate(&[(0, MEMORY)], Backing::Anonymous).map_err(|error| error.to_string())?;
    let (_vm, fd) = machine(&kvm, &ram).map_err(|error| format!("KVM: {error}"))?;
    // Fails if an earlier call has installed it.
    // SAFETY: the function only returns a number.
    let _ = unsafe { sigbus::install(|_| 1) };

    let rig = Arc::new(rig(&ram, rounds, allocations));
    ram.write(RECORDS, &area().initial_bytes()).expect("memory");
    let mut port = Timed { port: KvmPort::new(fd, ram.clone()), rig: &rig };
    let environment = VcpuEnvironment {
        io: Arc::clone(&rig) as _,
        memory_errors: Arc::clone(&rig) as _,
        observer: Arc::new(()),
    };
    let reason = vcpu::run(0, &mut port, &environment, &rig.control);
    assert_eq!(reason, VcpuExitReason::Stopped);
    Ok(std::mem::take(&mut rig.done.lock().expect("no panic").1))
}

fn area() -> RecordArea {
    let sources: Vec<_> = sources_wanted(&request(), &host(), None).collect();
    RecordArea::lay_out(RECORDS, MEMORY - RECORDS, &sources).expect("one source fits")
}

fn host() -> ras_core::abilities::HostAbilities {
    vcpu::abilities::of_this_host(Arch::X86_64)
}

fn request() -> Request {
    Request {
        arch: Arch::X86_64,
        tables: TableSet::Acpi,
        synchronous: Some(Response::Nmi),
        asynchronous: Some(Response::Ignore),
        corrected: None,
        corrected_threshold: None,
        poll_interval_ms: core::num::NonZeroU32::MIN,
        on_missing_support: OnMissingSupport::Degrade,
        repair: Repair::OnReset,
    }
}

fn rig(ram: &GuestRam, rounds: usize, allocations: fn() -> usize) -> Rig {
    let (area, host) = (area(), host());
    let tables = TablesView { set: TableSet::Acpi, record_area: Some(&area), error_device: true };
    let plan = plan(&request(), &host, &tables).expect("a plan");
    let clock = Arc::new(Timings::start());
    let directory = tempfile::tempdir().expect("a directory");
    let events = directory.path().join("events");
    let journal = Arc::new(Journal::start(Some(&events), Arc::clone(&clock)).expect("a new file"));
    let control = Arc::new(Control::default());
    let lifecycle = Lifecycle::new(Arc::clone(&control), Arc::clone(&clock), OnReboot::Exit);
    let reporting =
        Reporting::new(&plan, &host, Some(&area), ram.clone(), journal, clock).expect("a reporter");
    reporting.memslot_holes().insert(Span::around(POISONED, 12));
    reporting.attach(ActionExecutor {
        events: Arc::new(Mutex::new(GenericEventDevice::new(InterruptLine::new().expect("an eventfd")))),
        interrupts: Vec::new(),
        control: Arc::clone(&control),
        vcpus: 1,
        lifecycle: Arc::new(lifecycle.expect("an eventfd")),
    });
    Rig {
        reporting,
        control,
        allocations,
        rounds,
        start: Instant::now(),
        _events: directory,
        pending: AtomicBool::new(false),
        last: AtomicU64::new(0),
        count: AtomicU64::new(0),
        done: Mutex::new((Round::default(), Vec::with_capacity(rounds))),
    }
}

/// A vCPU at the start of the loop, and memory slots around the poisoned page.
#[expect(unsafe_code, reason = "memory slots are added")]
fn machine(kvm: &Kvm, ram: &GuestRam) -> Result<(VmFd, VcpuFd), kvm_ioctls::Error> {
    for (gpa, bytes) in [(CODE, &LOOP[..]), (HANDLER, &ACKNOWLEDGE[..])] {
        ram.write(gpa, bytes).expect("memory");
    }
    ram.write(NMI_VECTOR, &(HANDLER as u32).to_le_bytes()).expect("memory");
    let vm = kvm.create_vm()?;
    vm.set_tss_address(0xfffb_d000)?;
    vm.create_irq_chip()?;
    let hva = ram.host_address(0).expect("memory");
    for (slot, gpa, end) in [(0, 0, POISONED), (1, POISONED + 0x1000, MEMORY)] {
        // SAFETY: the range is within `ram`, which the caller drops after the machine.
        unsafe { add_memory(&vm, slot, gpa, end - gpa, hva + gpa)? };
    }
    let fd = vm.create_vcpu(0)?;
    let mut sregs = fd.get_sregs()?;
    (sregs.cs.base, sregs.cs.selector) = (0, 0);
    fd.set_sregs(&sregs)?;
    let mut regs = fd.get_regs()?;
    (regs.rip, regs.rsp, regs.rflags) = (CODE, 0x8000, 2);
    fd.set_regs(&regs)?;
    Ok((vm, fd))
}

/// Adds a memory slot.
///
/// # Safety
/// The host memory from `hva` on must exist as long as the machine.
#[expect(unsafe_code, reason = "KVM accesses host memory")]
unsafe fn add_memory(vm: &VmFd, slot: u32, gpa: u64, len: u64, hva: u64) -> Result<(), kvm_ioctls::Error> {
    let region = kvm_userspace_memory_region {
        slot,
        flags: 0,
        guest_phys_addr: gpa,
        memory_size: len,
        userspace_addr: hva,
    };
    // SAFETY: as the caller guarantees.
    unsafe { vm.set_user_memory_region(region) }
}

impl Rig {
    fn now(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    /// The time since the last call.
    fn lap(&self) -> u64 {
        let now = self.now();
        now - self.last.swap(now, Ordering::Relaxed)
    }

    /// Ends the response to an error: the next thing is KVM_RUN.
    fn before_entry(&self) {
        if self.pending.swap(false, Ordering::Relaxed) {
            let lap = self.lap();
            let allocations = (self.allocations)() - self.count.load(Ordering::Relaxed) as usize;
            self.with(|round, _| (round.answered, round.allocations) = (lap, allocations));
        }
    }

    fn with(&self, change: impl FnOnce(&mut Round, &mut Vec<Round>)) {
        let mut done = self.done.lock().expect("one thread");
        let (round, rounds) = &mut *done;
        change(round, rounds);
    }
}

impl IoBus for Rig {
    fn port_out(&self, port: u16, _: &[u8]) -> Result<(), Unmapped> {
        let lap = self.lap();
        match port {
            BARE => self.with(|round, _| round.bare = lap),
            ROUND => self.with(|round, rounds| {
                round.acknowledged = lap;
                rounds.push(*round);
                if rounds.len() == self.rounds {
                    self.control.set(RunState::Stop);
                }
            }),
            _ => return Err(Unmapped),
        }
        Ok(())
    }
}

impl MemoryErrorHandler for Rig {
    fn unmapped_access(&self, gpa: u64) -> bool {
        self.count.store((self.allocations)() as u64, Ordering::Relaxed);
        self.lap();
        assert!(self.reporting.unmapped_access(gpa), "{gpa:#x} is the poisoned page");
        self.pending.store(true, Ordering::Relaxed);
        true
    }

    fn consumed(&self, vcpu: u32, access: PoisonAccess, state: &mut dyn FnMut() -> Option<VcpuState>) {
        self.reporting.consumed(vcpu, access, state);
    }

    fn poll(&self) {
        self.reporting.poll();
    }
}

/// KVM's vCPU, which measures how long an access takes to be abandoned: the first step after the signal.
struct Timed<'r> {
    port: KvmPort,
    rig: &'r Rig,
}

impl VcpuPort for Timed<'_> {
    fn abandon_access(&mut self) -> Result<(), RunError> {
        let signalled = self.rig.lap();
        let abandoned = self.port.abandon_access();
        let undone = self.rig.lap();
        self.rig.with(|round, _| (round.signalled, round.undone) = (signalled, undone));
        abandoned
    }

    fn run(&mut self) -> Result<Exit<'_>, RunError> {
        self.rig.before_entry();
        self.port.run()
    }

    fn inject(&mut self, injection: Injection) -> Result<Injected, RunError> {
        self.port.inject(injection)
    }

    fn state(&mut self, access: Option<&PoisonAccess>) -> Option<VcpuState> {
        self.port.state(access)
    }

    fn clear_kick(&mut self) {
        self.port.clear_kick();
    }

    fn kick_flag(&mut self) -> io::Result<Option<KickFlag>> {
        self.port.kick_flag()
    }

    fn registers(&mut self) -> String {
        self.port.registers()
    }
}
