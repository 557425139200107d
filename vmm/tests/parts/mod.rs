//! [`Reporting`] and its parts without vCPUs: what it queues for them is looked at, not run.

use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};

use devices::InterruptLine;
use devices::ged::GenericEventDevice;
use guest_memory::{Backing, GuestRam, sigbus};
use machine_profile::OnReboot;
use platform::{MemoryMap, Range, Region, RegionKind};
use ras_core::abilities::{ArchAbilities, Fact, HostAbilities, MachineCheckAbilities, MemoryFailure};
use ras_core::plan::{TablesView, plan, sources_wanted};
use ras_core::request::{Arch, OnMissingSupport, Repair, Request, TableSet};
use ras_core::{RecordArea, Response, Span};
use vcpu::{Control, PoisonAccess};
use vmm::journal::Journal;
use vmm::lifecycle::Lifecycle;
use vmm::ras::{ActionExecutor, PlatformMemory, Reporting};
use vmm::timings::Timings;

/// Bytes of guest memory.
pub(crate) const MEMORY: u64 = 4 << 20;
/// Where the record area is, in reserved memory.
pub(crate) const RECORDS: u64 = 2 << 20;
/// A firmware table, in reserved memory of its own.
pub(crate) const TABLE: u64 = 1 << 20;
/// Its byte.
pub(crate) const TABLE_BYTE: u8 = 0x7a;

/// A machine that is about to boot.
pub(crate) struct Parts {
    pub(crate) reporting: Reporting,
    pub(crate) ram: GuestRam,
    #[allow(dead_code, reason = "not every test reads its counts")]
    pub(crate) journal: Arc<Journal>,
    pub(crate) control: Arc<Control>,
    pub(crate) area: Option<RecordArea>,
    clock: Arc<Timings>,
    vcpus: u32,
}

/// `None` if the plan is refused: then the guest cannot be given these responses.
pub(crate) fn parts(
    arch: Arch,
    responses: [Option<Response>; 2],
    vcpus: u32,
    backing: Backing,
) -> Option<Parts> {
    install_handler();
    let request = Request {
        arch,
        tables: TableSet::Acpi,
        synchronous: responses[0],
        asynchronous: responses[1],
        corrected: None,
        corrected_threshold: None,
        poll_interval_ms: NonZeroU32::MIN,
        on_missing_support: OnMissingSupport::Refuse,
        repair: Repair::OnReset,
    };
    let host = host(arch);
    let sources: Vec<_> = sources_wanted(&request, &host, Some(20)).collect();
    let area = RecordArea::lay_out(RECORDS, MEMORY - RECORDS, &sources).ok();
    let tables = TablesView { set: TableSet::Acpi, record_area: area.as_ref(), error_device: true };
    let plan = plan(&request, &host, &tables).ok()?;
    let ram = GuestRam::allocate(&[(0, MEMORY)], backing).expect("memory");
    let clock = Arc::new(Timings::start());
    let journal = Arc::new(Journal::start(None, Arc::clone(&clock)).expect("a writer"));
    let reporting =
        Reporting::new(&plan, &host, area.as_ref(), ram.clone(), Arc::clone(&journal), Arc::clone(&clock));
    let control = Arc::new(Control::default());
    let reporting = reporting.expect("a reporter");
    let mut parts = Parts { reporting, ram, journal, control, area, clock, vcpus };
    parts.boot();
    Some(parts)
}

impl Parts {
    /// Loads the reserved memory, and attaches a new machine.
    pub(crate) fn boot(&mut self) {
        let region = |start, len, kind| Region { range: Range { start, len }, kind };
        let records = self.area.as_ref().map(|area| region(RECORDS, area.bytes(), RegionKind::AcpiNvs));
        let table = region(TABLE, 0x1000, RegionKind::Reserved);
        let map = MemoryMap {
            ram: vec![Range { start: 0, len: MEMORY }],
            regions: [region(0, TABLE, RegionKind::Usable), table].into_iter().chain(records).collect(),
            tables: table.range,
            devicetree: None,
            records: None,
            boot_record: None,
            error_log: None,
        };
        let area = self.area.iter().map(|area| (area.gpa(), area.initial_bytes()));
        let loaded: Vec<_> = [(TABLE, vec![TABLE_BYTE; 0x1000])].into_iter().chain(area).collect();
        for (gpa, bytes) in &loaded {
            self.ram.write(*gpa, bytes).expect("memory");
        }
        self.reporting.loaded(PlatformMemory::new(&map, self.area.as_ref(), loaded));
        self.control = Arc::new(Control::default());
        self.control.reserve(self.vcpus as usize);
        let lifecycle = Lifecycle::new(Arc::clone(&self.control), Arc::clone(&self.clock), OnReboot::Exit);
        let line = || InterruptLine::new().expect("an eventfd");
        self.reporting.attach(ActionExecutor {
            events: Arc::new(Mutex::new(GenericEventDevice::new(line()))),
            interrupts: vec![(20, line())],
            control: Arc::clone(&self.control),
            vcpus: self.vcpus,
            lifecycle: Arc::new(lifecycle.expect("an eventfd")),
        });
    }

    /// The access of a vCPU to a page that is in a memslot hole, which stands for a poisoned one.
    pub(crate) fn access(&self, gpa: u64) -> PoisonAccess {
        PoisonAccess::Sigbus(self.fault(gpa, sigbus::Action::Required))
    }

    /// The signal of such a page.
    pub(crate) fn fault(&self, gpa: u64, action: sigbus::Action) -> sigbus::Fault {
        let hva = self.ram.host_address(gpa).expect("memory");
        if !self.reporting.memslot_holes().contains(gpa) && action == sigbus::Action::Required {
            self.reporting.memslot_holes().insert(Span::around(gpa, 12));
        }
        sigbus::Fault { hva, log2_len: 12, action }
    }
}

fn host(arch: Arch) -> HostAbilities {
    let mut host = HostAbilities::unknown(arch);
    (host.kvm, host.privileged) = (Fact::Yes, Fact::Yes);
    host.memory_failure = MemoryFailure { handled: Fact::Yes, recovery: Fact::Yes, early_kill: Fact::No };
    match &mut host.arch {
        ArchAbilities::Aarch64(host) => {
            (host.vcpu_events, host.inject_serror_esr, host.vcpu_ras) = (Fact::Yes, Fact::Yes, Fact::Yes);
        }
        ArchAbilities::X86_64(host) => {
            host.user_nmi = Fact::Yes;
            host.mce = Some(MachineCheckAbilities { supported: MachineCheckAbilities::SER_P, banks: 32 });
        }
    }
    host
}

#[expect(unsafe_code, reason = "a signal handler is installed")]
fn install_handler() {
    // Fails if an earlier call has installed it.
    // SAFETY: the function only returns a number.
    let _ = unsafe { sigbus::install(|_| 1) };
}
