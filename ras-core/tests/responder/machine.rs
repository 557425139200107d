//! A machine without vCPUs, and a guest that reads its records.

use core::num::NonZeroU32;
use std::collections::BTreeMap;

use ras_core::abilities::{ArchAbilities, Fact, HostAbilities, MachineCheckAbilities, MemoryFailure, Vendor};
use ras_core::actions::{Action, ActionFailed, ErrorEvent, Target, Unacknowledged};
use ras_core::plan::{TablesView, plan, sources_wanted};
use ras_core::reporters::ReporterContext;
use ras_core::request::{Arch, OnMissingSupport, Repair, Request, TableSet};
use ras_core::responder::{Responder, ResponderContext, ResponderOptions};
use ras_core::vcpu_state::{Access, Consumption, ExceptionLevel, MachineCheckState, VcpuState};
use ras_core::{Kind, MemoryError, Origin, RecordArea, Response, Severity, Span, StatusBlock, Threshold};

pub(crate) const SECOND: u64 = 1_000_000_000;
pub(crate) const USER: VcpuState =
    VcpuState::Aarch64(Consumption { level: ExceptionLevel::El0, access: Access::Read, far: None });
pub(crate) const READY: MachineCheckState =
    MachineCheckState { in_progress: false, enabled: true, local: false, detected_unread: false };

/// A machine without vCPUs: guest memory by address, and the actions as text.
pub(crate) struct Machine {
    pub(crate) responder: Responder,
    pub(crate) area: Option<RecordArea>,
    pub(crate) memory: BTreeMap<u64, u8>,
    pub(crate) done: Vec<String>,
    pub(crate) now: u64,
    /// Whether the machine cannot carry out an action.
    pub(crate) fails: fn(&Action<'_>) -> bool,
}

impl Machine {
    pub(crate) fn new(
        host: &HostAbilities,
        set: TableSet,
        synchronous: Option<Response>,
        asynchronous: Option<Response>,
    ) -> Self {
        Machine::with_corrected(host, set, [synchronous, asynchronous, None], None)
    }

    /// With these responses to consumed, detected and corrected errors.
    pub(crate) fn with_corrected(
        host: &HostAbilities,
        set: TableSet,
        [synchronous, asynchronous, corrected]: [Option<Response>; 3],
        corrected_threshold: Option<Threshold>,
    ) -> Self {
        let request = Request {
            arch: host.architecture(),
            tables: set,
            synchronous,
            asynchronous,
            corrected,
            corrected_threshold,
            poll_interval_ms: NonZeroU32::new(1000).unwrap(),
            on_missing_support: OnMissingSupport::Refuse,
            repair: Repair::OnReset,
        };
        let sources: Vec<_> = sources_wanted(&request, host, Some(20)).collect();
        let area = RecordArea::lay_out(1 << 30, 1 << 20, &sources).ok();
        let tables = TablesView { set, record_area: area.as_ref(), error_device: set == TableSet::Acpi };
        let plan = plan(&request, host, &tables).unwrap();
        let responder = Responder::new(&plan, host, area.as_ref(), ResponderOptions::new()).unwrap();
        let (memory, done) = (BTreeMap::new(), Vec::new());
        let mut machine = Machine { responder, area, memory, done, now: SECOND, fails: |_| false };
        machine.fill();
        machine
    }

    pub(crate) fn fill(&mut self) {
        if let Some(area) = &self.area {
            self.memory.extend((area.gpa()..).zip(area.initial_bytes()));
        }
    }

    pub(crate) fn read(&self, gpa: u64, len: u64) -> Vec<u8> {
        (gpa..gpa + len).map(|gpa| self.memory.get(&gpa).copied().unwrap_or_default()).collect()
    }

    pub(crate) fn word(&self, gpa: u64) -> u64 {
        u64::from_le_bytes(self.read(gpa, 8).try_into().unwrap())
    }

    pub(crate) fn context(&mut self, vcpu: Option<VcpuState>) -> ResponderContext {
        self.now += 1;
        let register = |kind| self.responder.acknowledge_register(kind).map_or(0, |gpa| self.word(gpa));
        ResponderContext {
            context: ReporterContext {
                now_ns: self.now,
                unix_seconds: 1_545_416_260 + self.now / SECOND,
                acknowledge_register: register(Kind::ActionRequired),
                vcpu,
            },
            detected_register: register(Kind::ActionOptional),
            corrected_register: register(Kind::Corrected),
        }
    }

    /// Runs `call`, carries out its writes, and returns the other actions as text.
    pub(crate) fn run(
        &mut self,
        call: impl FnOnce(&mut Responder, &mut dyn ras_core::actions::ActionSink),
    ) -> Vec<String> {
        let (memory, done, fails) = (&mut self.memory, &mut self.done, self.fails);
        let mut sink = |action: Action<'_>| {
            if fails(&action) {
                return Err(ActionFailed);
            }
            match action {
                Action::Write { gpa, bytes } => memory.extend((gpa..).zip(bytes.iter().copied())),
                Action::Event(ErrorEvent::Handled { response, .. }) => {
                    done.push(format!("handled {response}"))
                }
                Action::Event(ErrorEvent::RecordWritten { source, .. }) => {
                    done.push(format!("record {source}"))
                }
                Action::Event(ErrorEvent::Acknowledged { source, .. }) => {
                    done.push(format!("acknowledged {source}"))
                }
                Action::Event(ErrorEvent::Queued { source, .. }) => done.push(format!("queued {source}")),
                Action::Event(ErrorEvent::Coalesced { source, .. }) => {
                    done.push(format!("coalesced {source}"))
                }
                Action::Event(ErrorEvent::NotReported { source, .. }) => {
                    done.push(format!("not reported {source}"));
                }
                Action::Event(ErrorEvent::Overdue(Unacknowledged { source, consumed_by, .. })) => {
                    let what = source.map_or("mce".into(), |source| source.to_string());
                    done.push(match consumed_by {
                        Some(vcpu) => format!("overdue {what}, consumed by {vcpu}"),
                        None => format!("overdue {what}"),
                    });
                }
                Action::Event(ErrorEvent::ThresholdExceeded { source, span, errors }) => {
                    done.push(format!("threshold {source} {:#x} {errors}", span.gpa))
                }
                Action::Event(ErrorEvent::Overflowed { source, times, .. }) => {
                    done.push(format!("overflowed {source} {times}"))
                }
                Action::InjectAbort { vcpu, esr, far } => done.push(format!("abort {vcpu} {esr:#x} {far:?}")),
                Action::InjectSerror { vcpu, syndrome } => done.push(format!("serror {vcpu} {syndrome:x?}")),
                Action::InjectNmi { vcpu } => done.push(format!("nmi {vcpu}")),
                Action::Hold { vcpu } => done.push(format!("hold {vcpu}")),
                Action::Release { vcpu } => done.push(format!("release {vcpu}")),
                Action::RaiseErrorEvent => done.push("error event".into()),
                Action::RaiseInterrupt { gsi } => done.push(format!("interrupt {gsi}")),
                Action::Stop { report } => done.push(format!("stop {:?}", report.reason)),
                Action::MachineCheck { target: Target::Vcpu(vcpu), registers } => done.push(format!(
                    "mce {vcpu} bank {} {:#x} {:#x} {:#x} {:#x}",
                    registers.bank, registers.status, registers.addr, registers.misc, registers.mcg_status
                )),
                Action::MachineCheck { target: Target::AllBut(vcpu), registers } => {
                    done.push(format!(
                        "mce all but {vcpu} {:#x} {:#x}",
                        registers.status, registers.mcg_status
                    ));
                }
            }
            Ok(())
        };
        call(&mut self.responder, &mut sink);
        std::mem::take(&mut self.done)
    }

    pub(crate) fn consumed(&mut self, gpa: u64, log2_len: u8, vcpu: u32, state: VcpuState) -> Vec<String> {
        let error = MemoryError {
            span: Span::around(gpa, log2_len),
            gpa,
            kind: Kind::ActionRequired,
            severity: Severity::Recoverable,
            vcpu: Some(vcpu),
            origin: Origin::Sigbus,
            time_ns: self.now,
        };
        let context = self.context(Some(state));
        self.run(|responder, sink| responder.report(&error, &context, sink))
    }

    pub(crate) fn detected(&mut self, gpa: u64, log2_len: u8, state: Option<VcpuState>) -> Vec<String> {
        let span = Span::around(gpa, log2_len);
        let error = MemoryError {
            span,
            gpa: span.gpa,
            kind: Kind::ActionOptional,
            severity: Severity::Recoverable,
            vcpu: None,
            origin: Origin::Sigbus,
            time_ns: self.now,
        };
        let context = self.context(state);
        self.run(|responder, sink| responder.report(&error, &context, sink))
    }

    pub(crate) fn corrected(&mut self, gpa: u64) -> Vec<String> {
        let error = MemoryError {
            span: Span::around(gpa, 12),
            gpa,
            kind: Kind::Corrected,
            severity: Severity::Corrected,
            vcpu: None,
            origin: Origin::Injected,
            time_ns: self.now,
        };
        let context = self.context(None);
        self.run(|responder, sink| responder.report(&error, &context, sink))
    }

    pub(crate) fn tick(&mut self) -> Vec<String> {
        self.tick_in(None)
    }

    pub(crate) fn tick_in(&mut self, state: Option<VcpuState>) -> Vec<String> {
        let context = self.context(state);
        self.run(|responder, sink| responder.tick(&context, sink))
    }

    /// Does what Linux does: reads the block at the cell's address, clears its first field, and acknowledges. Returns the pages.
    pub(crate) fn guest_reads(&mut self, source: u16) -> Vec<u64> {
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

/// The addresses in a block's memory sections, at offset 16 of each.
pub(crate) fn pages_of(block: &StatusBlock<'_>) -> Vec<u64> {
    let page = |payload: &[u8]| u64::from_le_bytes(payload[16..24].try_into().unwrap());
    block.entries().map(|entry| page(entry.payload)).collect()
}

pub(crate) fn arm() -> HostAbilities {
    let mut host = HostAbilities::unknown(Arch::Aarch64);
    host.memory_failure = MemoryFailure { handled: Fact::Yes, recovery: Fact::Yes, early_kill: Fact::No };
    if let ArchAbilities::Aarch64(host) = &mut host.arch {
        (host.vcpu_events, host.inject_serror_esr, host.vcpu_ras) = (Fact::Yes, Fact::Yes, Fact::Yes);
        host.far_not_valid = Fact::Yes;
    }
    host
}

pub(crate) fn x86(supported: u64, vendor: Vendor) -> HostAbilities {
    let mut host = HostAbilities::unknown(Arch::X86_64);
    host.memory_failure = MemoryFailure { handled: Fact::Yes, recovery: Fact::Yes, early_kill: Fact::No };
    if let ArchAbilities::X86_64(host) = &mut host.arch {
        host.user_nmi = Fact::Yes;
        host.mce = Some(MachineCheckAbilities { supported, banks: 32 });
        host.vendor = Some(vendor);
    }
    host
}

pub(crate) const SER_P: u64 = MachineCheckAbilities::SER_P;
