//! The cost of planning, of a look-up in the ledger, and of an error from its report to the last action. Times depend on the machine: each
//! is the minimum of many runs.

mod minimum;

use core::num::NonZeroU32;
use std::hint::black_box;

use minimum::minimum_ns;
use ras_core::abilities::{ArchAbilities, Fact, HostAbilities, MachineCheckAbilities, MemoryFailure};
use ras_core::actions::Action;
use ras_core::ledger::Ledger;
use ras_core::plan::{TablesView, plan, sources_wanted};
use ras_core::reporters::ReporterContext;
use ras_core::request::{Arch, OnMissingSupport, Repair, Request, TableSet};
use ras_core::responder::{Responder, ResponderContext, ResponderOptions};
use ras_core::vcpu_state::{Access, Consumption, ExceptionLevel, MachineCheckState, VcpuState};
use ras_core::{Kind, MemoryBlocks, MemoryError, MemoryReport, Origin, RecordArea, Response, Severity, Span};

const PAGES: u64 = 100_000;
const ARM: VcpuState =
    VcpuState::Aarch64(Consumption { level: ExceptionLevel::El0, access: Access::Read, far: None });
const X86: VcpuState = VcpuState::X86_64(MachineCheckState {
    in_progress: false,
    enabled: true,
    local: false,
    detected_unread: false,
});

fn main() {
    let mut block = [0; 0x1000];
    let record = MemoryReport::uncorrected(Kind::ActionRequired, 1_786_270_272, 17);
    let page = Span::around(0x4020_0000, 12);
    let one = minimum_ns(|| MemoryBlocks::new(black_box(page), record).write_next(&mut block));
    let show = |what: &str, time: f64| println!("{what:44} {time:>9.1} ns {:>8.2} records", time / one);
    show("encode one record", one);

    for (name, arch) in [("plan, arm64", Arch::Aarch64), ("plan, x86_64", Arch::X86_64)] {
        let (request, host) = (request(arch), host(arch));
        let area = area(&request, &host);
        let tables = TablesView { set: request.tables, record_area: area.as_ref(), error_device: true };
        show(name, minimum_ns(|| plan(black_box(&request), &host, &tables).is_ok()));
    }

    let mut ledger = Ledger::with_capacity(PAGES as usize);
    (0..PAGES).for_each(|page| ledger.record(&error(page << 13)));
    let mut page = 0;
    let mut next = |factor: u64| {
        page = (page + factor) % (2 * PAGES);
        page << 12
    };
    show("ledger, look-up among 100,000 pages", minimum_ns(|| ledger.at(black_box(next(77_773))).is_some()));
    show("ledger, known page reported again", minimum_ns(|| ledger.record(&error(next(77_774)))));

    for (name, arch, vcpu, response) in [
        ("report to last action, SEA", Arch::Aarch64, ARM, Response::Sea),
        ("report to last action, machine check", Arch::X86_64, X86, Response::Mce),
    ] {
        let (request, host) = (request(arch), host(arch));
        let area = area(&request, &host);
        let tables = TablesView { set: request.tables, record_area: area.as_ref(), error_device: true };
        let Ok(plan) = plan(&request, &host, &tables) else { return println!("no plan for {arch}") };
        assert_eq!(plan.consumed.chosen, response);
        let Ok(mut responder) = Responder::new(&plan, &host, area.as_ref(), ResponderOptions::new()) else {
            return;
        };
        let (mut time, mut actions) = (0_u64, 0_u64);
        let took = minimum_ns(|| {
            // One second after the error before, which the guest has acknowledged: the next of 512 pages.
            time += 1_000_000_000;
            let context = ReporterContext {
                now_ns: time,
                unix_seconds: time >> 30,
                acknowledge_register: 1,
                vcpu: Some(vcpu),
            };
            let error = MemoryError { time_ns: time, ..error((time >> 9 << 12) & 0x1f_f000) };
            responder.report(
                &error,
                &ResponderContext { context, detected_register: 1, ..Default::default() },
                &mut |action: Action<'_>| {
                    black_box(action);
                    actions += 1;
                    Ok(())
                },
            );
        });
        show(name, took);
        println!("{:44} {:>9.1}", "  actions each", actions as f64 / (time / 1_000_000_000) as f64);
    }
}

fn error(gpa: u64) -> MemoryError {
    let span = Span::around(gpa, 12);
    MemoryError {
        span,
        gpa,
        kind: Kind::ActionRequired,
        severity: Severity::Recoverable,
        vcpu: Some(0),
        origin: Origin::Sigbus,
        time_ns: 7,
    }
}

fn request(arch: Arch) -> Request {
    Request {
        arch,
        tables: TableSet::Acpi,
        synchronous: None,
        asynchronous: None,
        corrected: None,
        corrected_threshold: None,
        poll_interval_ms: NonZeroU32::MIN,
        on_missing_support: OnMissingSupport::Degrade,
        repair: Repair::OnReset,
    }
}

fn host(arch: Arch) -> HostAbilities {
    let mut host = HostAbilities::unknown(arch);
    host.memory_failure = MemoryFailure { handled: Fact::Yes, recovery: Fact::Yes, early_kill: Fact::No };
    match &mut host.arch {
        ArchAbilities::Aarch64(host) => host.vcpu_events = Fact::Yes,
        ArchAbilities::X86_64(host) => {
            host.mce = Some(MachineCheckAbilities { supported: MachineCheckAbilities::SER_P, banks: 32 });
        }
    }
    host
}

fn area(request: &Request, host: &HostAbilities) -> Option<RecordArea> {
    let sources: Vec<_> = sources_wanted(request, host, Some(20)).collect();
    RecordArea::lay_out(1 << 30, 1 << 20, &sources).ok()
}
