//! Plans for a few guests and prints each answer with its reason; then answers one error as planned.
//!
//! `cargo run -p ras-core --example plan`

use std::num::NonZeroU32;

use ras_core::abilities::{ArchAbilities, Fact, HostAbilities, MachineCheckAbilities, MemoryFailure, Vendor};
use ras_core::actions::Action;
use ras_core::plan::{Answer, Plan, TablesView, plan, sources_wanted};
use ras_core::reporters::ReporterContext;
use ras_core::request::{Arch, Asynchronous, OnMissingSupport, Repair, Request, Synchronous, TableSet};
use ras_core::responder::{Responder, ResponderContext};
use ras_core::vcpu_state::{Access, Consumption, ExceptionLevel, VcpuState};
use ras_core::{Kind, MemoryError, Origin, RecordArea, Response, Span};

fn main() {
    for (name, request) in [
        ("arm64, ACPI", request(Arch::Aarch64, TableSet::Acpi, Synchronous::Auto)),
        ("arm64, devicetree", request(Arch::Aarch64, TableSet::Devicetree, Synchronous::Auto)),
        ("x86_64, ACPI", request(Arch::X86_64, TableSet::Acpi, Synchronous::Auto)),
        ("x86_64, MP table", request(Arch::X86_64, TableSet::MpTable, Synchronous::Auto)),
        ("arm64, devicetree, records wanted", request(Arch::Aarch64, TableSet::Devicetree, Synchronous::Sea)),
    ] {
        println!("{name}");
        let host = host(request.arch);
        let area = record_area(&request, &host);
        let tables = TablesView {
            set: request.tables,
            record_area: area.as_ref(),
            error_device: request.tables == TableSet::Acpi,
        };
        match plan(&request, &host, &tables) {
            Ok(plan) => {
                print(&plan);
                if plan.consumed.chosen == Response::Sea {
                    answer_one(&plan, &host, area.as_ref());
                }
            }
            Err(refusal) => println!("  refused: {refusal}"),
        }
        println!();
    }
}

fn request(arch: Arch, tables: TableSet, synchronous: Synchronous) -> Request {
    Request {
        arch,
        tables,
        synchronous,
        asynchronous: Asynchronous::Auto,
        poll_interval_ms: NonZeroU32::new(1_000).unwrap_or(NonZeroU32::MIN),
        on_missing_support: OnMissingSupport::Degrade,
        repair: Repair::OnReset,
    }
}

/// A host as its VMM would describe it; `ghest probe` asks a real one.
fn host(arch: Arch) -> HostAbilities {
    let mut host = HostAbilities::unknown(arch);
    host.kvm = Fact::Yes;
    host.memory_failure = MemoryFailure { handled: Fact::Yes, recovery: Fact::Yes, early_kill: Fact::No };
    match &mut host.arch {
        ArchAbilities::Aarch64(host) => host.vcpu_events = Fact::Yes,
        ArchAbilities::X86_64(host) => {
            host.user_nmi = Fact::Yes;
            host.vendor = Some(Vendor::Intel);
            // A KVM without software recovery: `auto` has to look further.
            host.mce = Some(MachineCheckAbilities { supported: 0x100, banks: 32 });
        }
    }
    host
}

/// Where the table builder would have put the records.
fn record_area(request: &Request, host: &HostAbilities) -> Option<RecordArea> {
    let sources: Vec<_> = sources_wanted(request, host, None).collect();
    RecordArea::lay_out(0x4010_0000, RecordArea::bytes_needed(sources.len()), &sources).ok()
}

fn print(plan: &Plan) {
    for answer in [&plan.consumed, &plan.detected, &plan.touched_by_device, &plan.own_memory] {
        let Answer { class, asked, chosen, because, unacknowledged, .. } = answer;
        println!("  {}", class.title());
        println!("    asked    {}", asked.map_or("auto", Response::word));
        println!("    chosen   {chosen}{}", if answer.degraded { " (degraded)" } else { "" });
        println!("    because  {because}");
        if let Some(instead) = unacknowledged {
            let seconds = answer.timeouts.acknowledge_ms / 1_000;
            println!("    instead  {instead}, once the guest has not acknowledged for {seconds} s");
        }
    }
    for note in &plan.notes {
        println!("  note: {note}");
    }
}

/// A program on vCPU 0 touches poisoned memory.
fn answer_one(plan: &Plan, host: &HostAbilities, area: Option<&RecordArea>) {
    let mut responder = match Responder::new(plan, host, area) {
        Ok(responder) => responder,
        Err(error) => return println!("  {error}"),
    };
    let error = MemoryError {
        span: Span::around(0x4765_4321, 12),
        gpa: 0x4765_4321,
        kind: Kind::ActionRequired,
        vcpu: Some(0),
        origin: Origin::Sigbus,
        time_ns: 1_000,
    };
    let consumption = Consumption { level: ExceptionLevel::El0, access: Access::Read, far: None };
    let context = ReporterContext {
        now_ns: 1_000,
        unix_seconds: 1_545_416_260,
        acknowledge_register: 1,
        vcpu: Some(VcpuState::Aarch64(consumption)),
    };
    println!("  then, for an error at {:#x}:", error.gpa);
    responder.report(&error, &ResponderContext { context, detected_register: 1 }, &mut |action: Action<
        '_,
    >| match action {
        Action::Write { gpa, bytes } => println!("    write {} bytes at {gpa:#x}", bytes.len()),
        action => println!("    {action:?}"),
    });
}
