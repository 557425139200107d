//! The whole way: an error in, actions out, against a guest's memory that is really written and read.

use core::num::NonZeroU32;
use std::collections::BTreeMap;

use ras_core::abilities::{ArchAbilities, Fact, HostAbilities, MachineCheckAbilities, MemoryFailure, Vendor};
use ras_core::actions::{Action, FaultAddress, Mark, StopReason, Target};
use ras_core::plan::{TablesView, plan, sources_wanted};
use ras_core::reporters::Moment;
use ras_core::request::{Arch, Asynchronous, OnMissingSupport, Repair, Request, Synchronous, TableSet};
use ras_core::responder::{Responder, Scene, Side};
use ras_core::vcpu_state::{Access, Consumption, ExceptionLevel, MachineCheckState, VcpuState};
use ras_core::{Kind, MemoryError, Origin, RecordArea, Response, Span, StatusBlock};

const SECOND: u64 = 1_000_000_000;
const USER: VcpuState =
    VcpuState::Aarch64(Consumption { level: ExceptionLevel::El0, access: Access::Read, far: None });
const READY: MachineCheckState =
    MachineCheckState { in_progress: false, enabled: true, local: false, others_ready: true };

/// A machine without vCPUs: guest memory by page, and what was to be done.
struct Machine {
    responder: Responder,
    area: Option<RecordArea>,
    memory: BTreeMap<u64, u8>,
    done: Vec<String>,
    now: u64,
}

impl Machine {
    fn new(
        host: &HostAbilities,
        set: TableSet,
        synchronous: Synchronous,
        asynchronous: Asynchronous,
    ) -> Self {
        let request = Request {
            arch: host.architecture(),
            tables: set,
            synchronous,
            asynchronous,
            poll_interval_ms: NonZeroU32::new(1000).unwrap(),
            on_missing_support: OnMissingSupport::Refuse,
            repair: Repair::OnReset,
        };
        let sources: Vec<_> = sources_wanted(&request, host, Some(20)).collect();
        let area = RecordArea::lay_out(1 << 30, 1 << 20, &sources).ok();
        let tables = TablesView { set, record_area: area.as_ref(), error_device: set == TableSet::Acpi };
        let plan = plan(&request, host, &tables).unwrap();
        let responder = Responder::new(&plan, host, area.as_ref()).unwrap();
        let mut machine = Machine { responder, area, memory: BTreeMap::new(), done: Vec::new(), now: SECOND };
        machine.fill();
        machine
    }

    fn fill(&mut self) {
        if let Some(area) = &self.area {
            self.memory.extend((area.gpa()..).zip(area.initial_bytes()));
        }
    }

    fn read(&self, gpa: u64, len: u64) -> Vec<u8> {
        (gpa..gpa + len).map(|gpa| self.memory.get(&gpa).copied().unwrap_or_default()).collect()
    }

    fn word(&self, gpa: u64) -> u64 {
        u64::from_le_bytes(self.read(gpa, 8).try_into().unwrap())
    }

    fn scene(&mut self, vcpu: Option<VcpuState>) -> Scene {
        self.now += 1;
        let register = |side| self.responder.acknowledge_register(side).map_or(0, |gpa| self.word(gpa));
        Scene {
            moment: Moment {
                now_ns: self.now,
                unix_seconds: 1_545_416_260 + self.now / SECOND,
                acknowledge_register: register(Side::Consumed),
                vcpu,
            },
            found_register: register(Side::Found),
        }
    }

    /// Runs `call`, writes what is to be written, and gives the rest in words.
    fn run(
        &mut self,
        call: impl FnOnce(&mut Responder, &mut dyn ras_core::actions::ActionSink),
    ) -> Vec<String> {
        let (memory, done) = (&mut self.memory, &mut self.done);
        let mut sink = |action: Action<'_>| match action {
            Action::Write { gpa, bytes } => memory.extend((gpa..).zip(bytes.iter().copied())),
            Action::Mark(Mark::Answered { response, .. }) => done.push(format!("answered {response}")),
            Action::Mark(Mark::RecordWritten { source, .. }) => done.push(format!("record {source}")),
            Action::Mark(Mark::Acknowledged { source, .. }) => done.push(format!("acknowledged {source}")),
            Action::Mark(Mark::Queued { source, .. }) => done.push(format!("queued {source}")),
            Action::Mark(Mark::Coalesced { source, .. }) => done.push(format!("coalesced {source}")),
            Action::Mark(Mark::Overdue { source, .. }) => done.push(format!("overdue {source}")),
            Action::Mark(Mark::Overflowed { source, times, .. }) => {
                done.push(format!("overflowed {source} {times}"))
            }
            Action::InjectAbort { vcpu, esr, far } => done.push(format!("abort {vcpu} {esr:#x} {far:?}")),
            Action::InjectSerror { vcpu, syndrome } => done.push(format!("serror {vcpu} {syndrome:x?}")),
            Action::InjectNmi { vcpu } => done.push(format!("nmi {vcpu}")),
            Action::Hold { vcpu } => done.push(format!("hold {vcpu}")),
            Action::Release { vcpu } => done.push(format!("release {vcpu}")),
            Action::RaiseErrorEvent => done.push("error event".into()),
            Action::RaiseInterrupt { gsi } => done.push(format!("interrupt {gsi}")),
            Action::Stop { account } => done.push(format!("stop {} {:?}", account.status(), account.reason)),
            Action::MachineCheck { target: Target::Vcpu(vcpu), registers } => done.push(format!(
                "mce {vcpu} bank {} {:#x} {:#x} {:#x} {:#x}",
                registers.bank, registers.status, registers.addr, registers.misc, registers.mcg_status
            )),
            Action::MachineCheck { target: Target::AllBut(vcpu), registers } => {
                done.push(format!("mce all but {vcpu} {:#x} {:#x}", registers.status, registers.mcg_status));
            }
        };
        call(&mut self.responder, &mut sink);
        std::mem::take(&mut self.done)
    }

    fn consumed(&mut self, gpa: u64, log2_len: u8, vcpu: u32, state: VcpuState) -> Vec<String> {
        let error = MemoryError {
            span: Span::around(gpa, log2_len),
            gpa,
            kind: Kind::ActionRequired,
            vcpu: Some(vcpu),
            origin: Origin::Sigbus,
            time_ns: self.now,
        };
        let scene = self.scene(Some(state));
        self.run(|responder, sink| responder.report(&error, &scene, sink))
    }

    fn found(&mut self, gpa: u64, log2_len: u8, state: Option<VcpuState>) -> Vec<String> {
        let span = Span::around(gpa, log2_len);
        let error = MemoryError {
            span,
            gpa: span.gpa,
            kind: Kind::ActionOptional,
            vcpu: None,
            origin: Origin::Sigbus,
            time_ns: self.now,
        };
        let scene = self.scene(state);
        self.run(|responder, sink| responder.report(&error, &scene, sink))
    }

    fn tick(&mut self) -> Vec<String> {
        let scene = self.scene(None);
        self.run(|responder, sink| responder.tick(&scene, sink))
    }

    /// What Linux does: reads the block that the cell points at, then clears its first field, then acknowledges.
    fn guest_takes(&mut self, source: u16) -> Vec<u64> {
        let slot = self.area.as_ref().unwrap().slot(source).unwrap();
        assert_eq!(self.word(slot.cell_gpa), slot.block_gpa);
        let bytes = self.read(slot.block_gpa, u64::from(slot.block_len));
        if bytes[..4] == [0; 4] {
            return Vec::new();
        }
        let block = StatusBlock::read(&bytes).unwrap();
        let pages = pages_of(&block);
        self.memory.extend((slot.block_gpa..).zip([0; 4]));
        self.memory.extend((slot.ack_gpa..).zip(1_u64.to_le_bytes()));
        pages
    }
}

/// The addresses in a block's memory sections, where they are at 16.
fn pages_of(block: &StatusBlock<'_>) -> Vec<u64> {
    let page = |payload: &[u8]| u64::from_le_bytes(payload[16..24].try_into().unwrap());
    block.entries().map(|entry| page(entry.payload)).collect()
}

fn arm() -> HostAbilities {
    let mut host = HostAbilities::unknown(Arch::Aarch64);
    host.memory_failure = MemoryFailure { handled: Fact::Yes, recovery: Fact::Yes, early_kill: Fact::No };
    if let ArchAbilities::Aarch64(host) = &mut host.arch {
        (host.vcpu_events, host.inject_serror_esr, host.vcpu_ras) = (Fact::Yes, Fact::Yes, Fact::Yes);
        host.far_not_valid = Fact::Yes;
    }
    host
}

fn x86(supported: u64, vendor: Vendor) -> HostAbilities {
    let mut host = HostAbilities::unknown(Arch::X86_64);
    host.memory_failure = MemoryFailure { handled: Fact::Yes, recovery: Fact::Yes, early_kill: Fact::No };
    if let ArchAbilities::X86_64(host) = &mut host.arch {
        host.user_nmi = Fact::Yes;
        host.mce = Some(MachineCheckAbilities { supported, banks: 32 });
        host.vendor = Some(vendor);
    }
    host
}

const SER_P: u64 = MachineCheckAbilities::SER_P;

#[test]
fn a_record_and_an_abort_for_the_vcpu_that_consumed_it() {
    let mut machine = Machine::new(&arm(), TableSet::Acpi, Synchronous::Auto, Asynchronous::Auto);
    let told = machine.consumed(0x8000_1234, 12, 1, USER);
    assert_eq!(told, ["record 0", "abort 1 0x92000410 NotValid", "answered sea"]);
    assert_eq!(machine.guest_takes(0), [0x8000_1000]);
    assert_eq!(machine.tick(), ["acknowledged 0"]);
    let entry = machine.responder.ledger().at(0x8000_1fff).unwrap();
    assert_eq!((entry.answered, entry.acknowledged_ns), (Some(Response::Sea), Some(SECOND + 2)));
}

#[test]
fn a_second_vcpu_waits_for_its_record() {
    let mut machine = Machine::new(&arm(), TableSet::Acpi, Synchronous::Sea, Asynchronous::Gsiv);
    machine.consumed(0x8000_1000, 12, 0, USER);
    assert_eq!(machine.consumed(0x8000_5000, 12, 1, USER), ["queued 0", "hold 1"]);
    assert_eq!(machine.consumed(0x8000_1000, 12, 2, USER), ["coalesced 0", "hold 2"]);
    assert_eq!(machine.tick(), [""; 0]);
    assert_eq!(machine.guest_takes(0), [0x8000_1000]);
    assert_eq!(
        machine.tick(),
        ["acknowledged 0", "release 2", "record 0", "abort 1 0x92000410 NotValid", "answered sea"]
    );
    assert_eq!(machine.guest_takes(0), [0x8000_5000]);
}

#[test]
fn a_guest_that_does_not_acknowledge_gets_plain_aborts() {
    let mut machine = Machine::new(&arm(), TableSet::Acpi, Synchronous::Sea, Asynchronous::Gsiv);
    let scene = machine.scene(None);
    machine.responder.driver_up(&scene);
    machine.consumed(0x8000_1000, 12, 0, USER);
    machine.consumed(0x8000_5000, 12, 1, USER);
    machine.now = machine.responder.deadline_ns().unwrap();
    assert_eq!(machine.tick(), ["overdue 0", "abort 1 0x92000410 NotValid", "answered abort"]);
    assert_eq!(machine.consumed(0x8000_9000, 12, 2, USER), ["abort 2 0x92000410 NotValid", "answered abort"]);
    // A kernel that starts later, after a crash, finds the record and answers: records flow again.
    assert_eq!(machine.guest_takes(0), [0x8000_1000]);
    assert_eq!(
        machine.consumed(0x8000_9000, 12, 2, USER),
        ["acknowledged 0", "record 0", "abort 2 0x92000410 NotValid", "answered sea"]
    );
}

#[test]
fn what_was_lost_with_it_is_told_as_found() {
    let mut machine = Machine::new(&arm(), TableSet::Acpi, Synchronous::Sea, Asynchronous::Gsiv);
    let told = machine.consumed(0x8020_5678, 21, 0, USER);
    assert_eq!(told[..3], ["record 0", "abort 0 0x92000410 NotValid", "answered sea"]);
    assert_eq!(told[3..6], ["record 1", "error event", "answered gsiv"]);
    let mut pages = machine.guest_takes(0);
    assert!(pages.contains(&0x8020_5000));
    loop {
        let more = machine.guest_takes(1);
        if more.is_empty() {
            break;
        }
        pages.extend(more);
        machine.tick();
    }
    pages.sort_unstable();
    assert_eq!(pages, (0..512).map(|page| 0x8020_0000 + (page << 12)).collect::<Vec<u64>>());
    let ledger = machine.responder.ledger();
    assert!(ledger.entries().iter().all(|entry| entry.acknowledged_ns.is_some()));
    assert_eq!((ledger.entries().len(), ledger.bytes_lost()), (32, 2 << 20));
}

#[test]
fn what_was_parked_before_a_reset_is_told_after_it() {
    let mut machine = Machine::new(&arm(), TableSet::Acpi, Synchronous::Sea, Asynchronous::Polled);
    assert_eq!(machine.found(0x9000_0000, 12, None), ["record 1", "answered polled"]);
    assert_eq!(machine.found(0x9000_4000, 12, None), ["queued 1"]);
    machine.fill();
    let scene = machine.scene(None);
    assert_eq!(machine.run(|responder, sink| responder.reset(true, &scene, sink)), [""; 0]);
    assert_eq!(machine.guest_takes(1), [0_u64; 0]);
    assert_eq!(machine.tick(), ["record 1", "answered polled"]);
    assert_eq!(machine.guest_takes(1), [0x9000_0000]);
    assert_eq!(machine.tick(), ["acknowledged 1", "record 1", "answered polled"]);
    assert_eq!(machine.guest_takes(1), [0x9000_4000]);
}

#[test]
fn no_two_records_are_alike() {
    let mut machine = Machine::new(&arm(), TableSet::Acpi, Synchronous::Sea, Asynchronous::Gsiv);
    let mut seen = std::collections::HashSet::new();
    for source in [0, 1, 0, 1] {
        if source == 0 {
            machine.consumed(0x8000_1000, 12, 0, USER);
        } else {
            machine.found(0x8000_1000, 12, None);
        }
        let block = machine.area.as_ref().unwrap().slot(source).unwrap().block_gpa;
        assert!(seen.insert(machine.read(block, 172)));
        machine.guest_takes(source);
        machine.tick();
    }
}

#[test]
fn a_devicetree_guest_gets_the_exception_alone() {
    let known = VcpuState::Aarch64(Consumption {
        level: ExceptionLevel::El1,
        access: Access::Write,
        far: Some(0xffff_0000_1234_5678),
    });
    let mut machine = Machine::new(&arm(), TableSet::Devicetree, Synchronous::Auto, Asynchronous::Auto);
    let far = FaultAddress::At(0xffff_0000_1234_5678);
    assert_eq!(
        machine.consumed(0x8000_1000, 12, 3, known),
        [format!("abort 3 0x96000050 {far:?}"), "answered abort".into()]
    );
    assert_eq!(machine.found(0x8000_1000, 12, None), ["answered ignore"]);
    let mut machine = Machine::new(&arm(), TableSet::Devicetree, Synchronous::Serror, Asynchronous::Stop);
    assert_eq!(machine.consumed(0x8000_1000, 12, 3, known), ["serror 3 Some(c11)", "answered serror"]);
    assert_eq!(
        machine.found(0x8000_1000, 12, None),
        ["answered stop".into(), format!("stop 10 {:?}", StopReason::Planned)]
    );
}

#[test]
fn machine_checks_are_those_of_the_vendor() {
    let ready = VcpuState::X86_64(READY);
    let mut intel =
        Machine::new(&x86(SER_P, Vendor::Intel), TableSet::MpTable, Synchronous::Auto, Asynchronous::Auto);
    assert_eq!(
        intel.consumed(0x1234_5678, 12, 1, ready),
        [
            "mce all but 1 0xa000000000000000 0x5",
            "mce 1 bank 9 0xbd80000000000134 0x12345000 0x8c 0x7",
            "answered mce"
        ]
    );
    assert_eq!(
        intel.found(0x1234_5000, 12, Some(ready))[1],
        "mce 0 bank 8 0xbd000000000000c0 0x12345000 0x8c 0x5"
    );
    let mut amd = Machine::new(&x86(SER_P, Vendor::Amd), TableSet::Acpi, Synchronous::Mce, Asynchronous::Mce);
    assert_eq!(
        amd.consumed(0x1234_5678, 12, 1, ready),
        ["mce 1 bank 9 0xbc00080000000000 0x12345000 0x8c 0x7", "answered mce"]
    );
    assert_eq!(
        amd.found(0x1234_5000, 12, Some(ready))[0],
        "mce 0 bank 8 0x9c00180000000000 0x12345000 0x8c 0x5"
    );
}

#[test]
fn a_local_machine_check_takes_one_vcpu_where_guest_and_host_have_it() {
    let local = VcpuState::X86_64(MachineCheckState { local: true, others_ready: false, ..READY });
    let lmce = x86(SER_P | MachineCheckAbilities::LMCE_P, Vendor::Intel);
    let mut machine = Machine::new(&lmce, TableSet::MpTable, Synchronous::Mce, Asynchronous::Ignore);
    assert_eq!(
        machine.consumed(0x1000, 12, 1, local),
        ["mce 1 bank 9 0xbd80000000000134 0x1000 0x8c 0xf", "answered mce"]
    );
    let mut machine =
        Machine::new(&x86(SER_P, Vendor::Intel), TableSet::MpTable, Synchronous::Mce, Asynchronous::Ignore);
    assert_eq!(machine.consumed(0x1000, 12, 1, local), ["answered stop", "stop 10 Unacknowledged"]);
}

#[test]
fn a_machine_check_that_would_end_the_guest_is_not_tried() {
    let busy = VcpuState::X86_64(MachineCheckState { in_progress: true, ..READY });
    let off = VcpuState::X86_64(MachineCheckState { enabled: false, ..READY });
    let cmci = x86(SER_P | MachineCheckAbilities::CMCI_P, Vendor::Intel);
    for (host, found) in [
        (&cmci, vec!["mce 0 bank 8 0xbc000000000000c0 0x1000 0x8c 0x0", "answered mce"]),
        (&x86(SER_P, Vendor::Intel), vec!["answered ignore"]),
        (&x86(SER_P | MachineCheckAbilities::CMCI_P, Vendor::Amd), vec!["answered ignore"]),
    ] {
        let mut machine = Machine::new(host, TableSet::MpTable, Synchronous::Mce, Asynchronous::Mce);
        assert_eq!(machine.consumed(0x1000, 12, 1, busy), ["answered stop", "stop 10 Unacknowledged"]);
        assert_eq!(machine.consumed(0x1000, 12, 1, off), ["answered stop", "stop 10 NotDeliverable"]);
        assert_eq!(machine.found(0x1000, 12, Some(busy)), found);
    }
}

#[test]
fn an_x86_guest_without_recovery_gets_a_record_and_an_nmi() {
    let mut machine =
        Machine::new(&x86(0, Vendor::Amd), TableSet::Acpi, Synchronous::Auto, Asynchronous::External);
    assert_eq!(
        machine.consumed(0x1234, 12, 1, VcpuState::X86_64(READY)),
        ["record 0", "nmi 1", "answered nmi"]
    );
    assert_eq!(machine.guest_takes(0), [0x1000]);
    assert_eq!(machine.found(0x5000, 12, None), ["record 1", "interrupt 20", "answered external"]);
    assert_eq!(machine.guest_takes(1), [0x5000]);
}

#[test]
fn a_vcpu_that_gets_nowhere_stops_the_vm() {
    let mut machine = Machine::new(&arm(), TableSet::Devicetree, Synchronous::Abort, Asynchronous::Ignore);
    let mut touches = 0;
    let last = loop {
        touches += 1;
        machine.now += SECOND / 10;
        let done = machine.consumed(0x8000_1000, 12, 0, USER);
        if done.iter().any(|done| done.starts_with("stop")) {
            break done;
        }
        assert!(touches < 1_000);
    };
    assert_eq!(last.last().unwrap(), "stop 10 NoProgress");
    assert!(touches > 32, "{touches} touches are not many");
}

#[test]
fn what_a_device_touched_is_told_as_found() {
    let mut machine = Machine::new(&arm(), TableSet::Acpi, Synchronous::Sea, Asynchronous::Gsiv);
    let error = MemoryError {
        span: Span::around(0x8000_1000, 12),
        gpa: 0x8000_1000,
        kind: Kind::ActionRequired,
        vcpu: None,
        origin: Origin::Device,
        time_ns: 5,
    };
    let scene = machine.scene(None);
    let done = machine.run(|responder, sink| responder.report(&error, &scene, sink));
    assert_eq!(done, ["record 1", "error event", "answered gsiv"]);
}
