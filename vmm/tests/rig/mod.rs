//! The way from a signal to the exception that answers it, on real KVM, with a guest of a few instructions: one vCPU in real
//! mode that reads a page which is in no memory slot, takes an NMI, acknowledges its record, and says so at a port.
//!
//! What answers is what answers in `ghest`: the run loop, the signal's handler, [`Reporting`] and its hands.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use devices::InterruptLine;
use devices::ged::GenericEventDevice;
use guest_memory::{Backing, GuestRam, sigbus};
use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::{Kvm, VcpuFd, VmFd};
use ras_core::plan::{TablesView, plan, sources_wanted};
use ras_core::request::{Arch, OnMissingSupport, Repair, Request, TableSet};
use ras_core::vcpu_state::VcpuState;
use ras_core::{RecordArea, Response, Span};
use vcpu::{Bus, Control, Exit, Injected, Injection, KvmPort, PoisonAccess, RunError, RunState, VcpuPort};
use vmm::journal::Journal;
use vmm::lifecycle::Lifecycle;
use vmm::ras::{ActionExecutor, Reporting};
use vmm::timings::Timings;

/// Bytes of the guest's memory.
const MEMORY: u64 = 1 << 20;
/// Where the record area is: cells, acknowledge registers and blocks, 64 KiB each.
const RECORDS: u64 = 0x1_0000;
/// The page that is in no slot.
const LOST: u64 = 0x9000;
/// The interrupt vector table's entry of the NMI, in real mode.
const NMI_VECTOR: u64 = 2 * 4;
/// Where the code is.
const CODE: u64 = 0x1000;
/// Where the NMI's handler is.
const HANDLER: u64 = 0x2000;
/// Written twice in a row: the time between the two is one exit and one entry.
const BARE: u16 = 0x10;
/// Written when a round is over.
const ROUND: u16 = 0x11;

/// `out 0x10, al` twice, `mov al, [0x9000]`, `out 0x11, al`, and again.
const LOOP: [u8; 11] = [0xe6, 0x10, 0xe6, 0x10, 0xa0, 0x00, 0x90, 0xe6, 0x11, 0xeb, 0xf5];
/// Sets the acknowledge register of the source (ds = 0x2000, byte 0 = 1), steps over the read of three bytes, and returns.
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

/// Nanoseconds of one round.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Round {
    /// From one exit to the next, where nothing is answered but a port.
    pub(crate) bare: u64,
    /// From the exit at the poisoned page, through the signal and its handler, to what the handler left.
    pub(crate) signalled: u64,
    /// Of the vCPU's access, taken back: only a simulated loss has one.
    pub(crate) undone: u64,
    /// From what the handler left, without that, to the exception that the vCPU was given.
    pub(crate) answered: u64,
    /// From there to the exit that the guest makes when it has acknowledged the record.
    pub(crate) acknowledged: u64,
    /// Allocations of the vCPU's thread from the exit at the poisoned page to the exception.
    pub(crate) allocations: usize,
}

/// What the vCPU's thread runs on.
struct Rig {
    reporting: Reporting,
    control: Arc<Control>,
    allocations: fn() -> usize,
    rounds: usize,
    start: Instant,
    /// A loss was met, and not flush yet.
    pending: AtomicBool,
    last: AtomicU64,
    count: AtomicU64,
    done: Mutex<(Round, Vec<Round>)>,
}

/// Runs so many rounds. `allocations` counts those of the calling thread so far.
///
/// # Errors
/// Where this machine has no KVM that can be used.
pub(crate) fn rounds(rounds: usize, allocations: fn() -> usize) -> Result<Vec<Round>, String> {
    let kvm = Kvm::new().map_err(|error| format!("/dev/kvm: {error}"))?;
    let ram = GuestRam::allocate(&[(0, MEMORY)], Backing::Anonymous).map_err(|error| error.to_string())?;
    let (_vm, fd) = machine(&kvm, &ram).map_err(|error| format!("KVM: {error}"))?;
    // Fails where it was installed by another round.
    let _ = sigbus::install(|_| 1);

    let rig = rig(&ram, rounds, allocations);
    ram.write(RECORDS, &area().initial_bytes()).expect("memory");
    let mut port = Timed { port: KvmPort::new(fd, ram.clone()), rig: &rig };
    let end = vcpu::run(0, &mut port, &rig, &rig.control);
    assert_eq!(end, vcpu::End::Stopped);
    Ok(rig.done.into_inner().expect("no panic").1)
}

fn area() -> RecordArea {
    let sources: Vec<_> = sources_wanted(&request(), &host(), None).collect();
    RecordArea::lay_out(RECORDS, MEMORY - RECORDS, &sources).expect("room for one source")
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
    let journal = Arc::new(Journal::new(None, Arc::clone(&clock)).expect("no file"));
    let control = Arc::new(Control::default());
    let lifecycle = Lifecycle::new(Arc::clone(&control), Arc::clone(&journal), Arc::clone(&clock));
    let reporting =
        Reporting::new(&plan, &host, Some(&area), ram.clone(), journal, clock).expect("a reporter");
    reporting.memslot_holes().punch_hole(Span::around(LOST, 12));
    reporting.attach(ActionExecutor {
        events: Arc::new(Mutex::new(GenericEventDevice::new(InterruptLine::new().expect("an eventfd")))),
        external: None,
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
        pending: AtomicBool::new(false),
        last: AtomicU64::new(0),
        count: AtomicU64::new(0),
        done: Mutex::new((Round::default(), Vec::with_capacity(rounds))),
    }
}

/// A vCPU that stands at the loop, and memory without the poisoned page.
fn machine(kvm: &Kvm, ram: &GuestRam) -> Result<(VmFd, VcpuFd), kvm_ioctls::Error> {
    for (gpa, bytes) in [(CODE, &LOOP[..]), (HANDLER, &ACKNOWLEDGE[..])] {
        ram.write(gpa, bytes).expect("memory");
    }
    ram.write(NMI_VECTOR, &(HANDLER as u32).to_le_bytes()).expect("memory");
    let vm = kvm.create_vm()?;
    vm.set_tss_address(0xfffb_d000)?;
    vm.create_irq_chip()?;
    let hva = ram.host_address(0).expect("memory");
    for (slot, gpa, end) in [(0, 0, LOST), (1, LOST + 0x1000, MEMORY)] {
        add_memory(&vm, slot, gpa, end - gpa, hva + gpa)?;
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

#[expect(unsafe_code, reason = "KVM is given host addresses")]
fn add_memory(vm: &VmFd, slot: u32, gpa: u64, len: u64, hva: u64) -> Result<(), kvm_ioctls::Error> {
    let region = kvm_userspace_memory_region {
        slot,
        flags: 0,
        guest_phys_addr: gpa,
        memory_size: len,
        userspace_addr: hva,
    };
    // SAFETY: the caller's `GuestRam` maps it and outlives the machine.
    unsafe { vm.set_user_memory_region(region) }
}

impl Rig {
    fn now(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    /// Time since the last call, which this is for the next.
    fn lap(&self) -> u64 {
        let now = self.now();
        now - self.last.swap(now, Ordering::Relaxed)
    }

    fn with(&self, change: impl FnOnce(&mut Round, &mut Vec<Round>)) {
        let mut done = self.done.lock().expect("one thread");
        let (round, rounds) = &mut *done;
        change(round, rounds);
    }

    fn touched(&self, gpa: u64) {
        self.count.store((self.allocations)() as u64, Ordering::Relaxed);
        self.lap();
        assert!(self.reporting.touched_lost(gpa), "{gpa:#x} is the poisoned page");
        self.pending.store(true, Ordering::Relaxed);
    }
}

impl Bus for Rig {
    fn port_in(&self, _: u16, _: &mut [u8]) {}

    fn port_out(&self, port: u16, _: &[u8]) {
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
            _ => {}
        }
    }

    fn mmio_read(&self, gpa: u64, _: &mut [u8]) {
        self.touched(gpa);
    }

    fn mmio_write(&self, _: u64, _: &[u8]) {}

    fn memory_error(&self, vcpu: u32, lost: PoisonAccess, state: &mut dyn FnMut() -> Option<VcpuState>) {
        self.reporting.consumed(vcpu, lost, state);
    }

    fn flush(&self) {
        if self.pending.swap(false, Ordering::Relaxed) {
            let lap = self.lap();
            let allocations = (self.allocations)() - self.count.load(Ordering::Relaxed) as usize;
            self.with(|round, _| (round.answered, round.allocations) = (lap, allocations));
            self.reporting.flush();
            // What is written down is not the guest's time.
            self.lap();
        }
    }

    fn attend(&self) {
        self.reporting.tick();
    }
}

/// KVM's vCPU, and the time that an access takes to be taken back: the first thing that is done about a signal here.
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
        self.port.run()
    }

    fn inject(&mut self, injection: Injection) -> Result<Injected, RunError> {
        self.port.inject(injection)
    }

    fn state(&mut self, lost: Option<&PoisonAccess>) -> Option<VcpuState> {
        self.port.state(lost)
    }

    fn clear_kick(&mut self) {
        self.port.clear_kick();
    }

    fn kick_flag(&mut self) -> *mut u8 {
        self.port.kick_flag()
    }

    fn registers(&mut self) -> String {
        self.port.registers()
    }
}
