//! Plans for a few guests and prints each response with its reason; then responds to one error as planned.
//!
//! `cargo run -p ghest-ras-core --example plan`

use std::num::NonZeroU32;

use ras_core::abilities::{ArchAbilities, Fact, HostAbilities, MachineCheckAbilities, MemoryFailure, Vendor};
use ras_core::actions::Action;
use ras_core::plan::{Plan, ResponsePlan, TablesView, plan, sources_wanted};
use ras_core::reporters::ReporterContext;
use ras_core::request::{Arch, OnMissingSupport, Repair, Request, TableSet};
use ras_core::responder::{Responder, ResponderContext, ResponderOptions};
use ras_core::vcpu_state::{Access, Consumption, ExceptionLevel, VcpuState};
use ras_core::{Kind, MemoryError, Origin, RecordArea, Response, Severity, Span};

fn main() {
    for (name, request) in [
        ("arm64, ACPI", request(Arch::Aarch64, TableSet::Acpi, None)),
        ("arm64, devicetree", request(Arch::Aarch64, TableSet::Devicetree, None)),
        ("x86_64, ACPI", request(Arch::X86_64, TableSet::Acpi, None)),
        ("x86_64, MP table", request(Arch::X86_64, TableSet::MpTable, None)),
        (
            "arm64, devicetree, records requested",
            request(Arch::Aarch64, TableSet::Devicetree, Some(Response::Sea)),
        ),
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
                    respond_to_one(&plan, &host, area.as_ref());
                }
            }
            Err(error) => println!("  no plan: {error}"),
        }
        println!();
    }
}

fn request(arch: Arch, tables: TableSet, synchronous: Option<Response>) -> Request {
    Request {
        arch,
        tables,
        synchronous,
        asynchronous: None,
        corrected: None,
        corrected_threshold: None,
        poll_interval_ms: NonZeroU32::new(1_000).unwrap_or(NonZeroU32::MIN),
        on_missing_support: OnMissingSupport::Degrade,
        repair: Repair::OnReset,
    }
}

/// A host as its VMM would describe it.
fn host(arch: Arch) -> HostAbilities {
    let mut host = HostAbilities::unknown(arch);
    host.kvm = Fact::Yes;
    host.memory_failure = MemoryFailure { handled: Fact::Yes, recovery: Fact::Yes, early_kill: Fact::No };
    match &mut host.arch {
        ArchAbilities::Aarch64(host) => host.vcpu_events = Fact::Yes,
        ArchAbilities::X86_64(host) => {
            host.user_nmi = Fact::Yes;
            host.vendor = Some(Vendor::Intel);
            // A KVM without software recovery: `auto` uses another response.
            host.mce = Some(MachineCheckAbilities { supported: 0x100, banks: 32 });
        }
    }
    host
}

/// Lays out the records, as the table builder would.
fn record_area(request: &Request, host: &HostAbilities) -> Option<RecordArea> {
    let sources: Vec<_> = sources_wanted(request, host, None).collect();
    RecordArea::lay_out(0x4010_0000, RecordArea::bytes_needed(sources.len()), &sources).ok()
}

fn print(plan: &Plan) {
    for response in [&plan.consumed, &plan.detected, &plan.touched_by_device, &plan.own_memory] {
        let ResponsePlan { class, requested, chosen, reason, unacknowledged, timeouts, .. } = response;
        println!("  error {}", class.description());
        println!("    requested  {}", requested.map_or("auto", Response::name));
        println!("    chosen     {chosen}{}", if response.degraded { " (degraded)" } else { "" });
        println!("    reason     {reason}");
        if let Some(fallback) = unacknowledged {
            let seconds = timeouts.acknowledge_ms / 1_000;
            println!("    fallback   {fallback}, if the guest does not acknowledge within {seconds} s");
        }
    }
    for note in &plan.notes {
        println!("  note: {note}");
    }
}

/// A process on vCPU 0 accesses poisoned memory.
fn respond_to_one(plan: &Plan, host: &HostAbilities, area: Option<&RecordArea>) {
    let mut responder = match Responder::new(plan, host, area, ResponderOptions::new()) {
        Ok(responder) => responder,
        Err(error) => return println!("  {error}"),
    };
    let error = MemoryError {
        span: Span::around(0x4765_4321, 12),
        gpa: 0x4765_4321,
        kind: Kind::ActionRequired,
        severity: Severity::Recoverable,
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
    println!("  actions for an error at {:#x}:", error.gpa);
    responder.report(
        &error,
        &ResponderContext { context, detected_register: 1, ..Default::default() },
        &mut |action: Action<'_>| {
            match action {
                Action::Write { gpa, bytes } => println!("    write {} bytes at {gpa:#x}", bytes.len()),
                action => println!("    {action:?}"),
            }
            Ok(())
        },
    );
}
