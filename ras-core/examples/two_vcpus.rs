//! Two vCPUs access one poisoned page: which one is held, what the guest reads, and when the page may be repaired.
//!
//! `cargo run -p ghest-ras-core --example two_vcpus`

use std::num::NonZeroU32;

use ras_core::abilities::{Fact, HostAbilities, MemoryFailure};
use ras_core::actions::{Action, ActionFailed};
use ras_core::plan::{TablesView, plan, sources_wanted};
use ras_core::reporters::ReporterContext;
use ras_core::request::{Arch, OnMissingSupport, Repair, Request, TableSet};
use ras_core::responder::{Responder, ResponderContext, ResponderOptions};
use ras_core::vcpu_state::{Access, Consumption, ExceptionLevel, VcpuState};
use ras_core::{Kind, MemoryError, Origin, RecordArea, Response, Severity, Span};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let request = Request {
        arch: Arch::Aarch64,
        tables: TableSet::Acpi,
        synchronous: Some(Response::Sea),
        asynchronous: Some(Response::Polled),
        corrected: None,
        corrected_threshold: None,
        poll_interval_ms: NonZeroU32::MIN,
        on_missing_support: OnMissingSupport::Refuse,
        repair: Repair::WhenAcknowledged,
    };
    let mut host = HostAbilities::unknown(Arch::Aarch64);
    host.memory_failure = MemoryFailure { handled: Fact::Yes, recovery: Fact::Yes, early_kill: Fact::No };
    let sources: Vec<_> = sources_wanted(&request, &host, None).collect();
    let area = RecordArea::lay_out(0x4010_0000, 1 << 20, &sources)?;
    let tables = TablesView { set: TableSet::Acpi, record_area: Some(&area), error_device: true };
    let plan = plan(&request, &host, &tables)?;
    let mut responder = Responder::new(&plan, &host, Some(&area), ResponderOptions::new())?;

    for vcpu in [0, 1] {
        println!("vCPU {vcpu} reads 0x80001000:");
        responder.report(&access(vcpu), &context(u64::from(vcpu), false), &mut print);
    }
    println!("The guest has read and acknowledged the record:");
    responder.tick(&context(2, true), &mut print);
    println!("vCPU 1 runs again, and reads 0x80001000 again:");
    responder.report(&access(1), &context(3, true), &mut print);
    println!("may be repaired: {:x?}", responder.ledger().repairable().collect::<Vec<_>>());
    println!("The guest has acknowledged the second record:");
    responder.tick(&context(4, true), &mut print);
    println!("may be repaired: {:x?}", responder.ledger().repairable().collect::<Vec<_>>());
    Ok(())
}

fn access(vcpu: u32) -> MemoryError {
    MemoryError {
        span: Span::around(0x8000_1000, 12),
        gpa: 0x8000_1000,
        kind: Kind::ActionRequired,
        severity: Severity::Recoverable,
        vcpu: Some(vcpu),
        origin: Origin::Sigbus,
        time_ns: u64::from(vcpu),
    }
}

/// The context at a number of milliseconds after the start, with the last record acknowledged or not.
fn context(now_ms: u64, acknowledged: bool) -> ResponderContext {
    let consumption = Consumption { level: ExceptionLevel::El0, access: Access::Read, far: None };
    let context = ReporterContext {
        now_ns: now_ms * 1_000_000,
        unix_seconds: 1_545_416_260,
        acknowledge_register: acknowledged.into(),
        vcpu: Some(VcpuState::Aarch64(consumption)),
    };
    ResponderContext { context, detected_register: 1, ..Default::default() }
}

fn print(action: Action<'_>) -> Result<(), ActionFailed> {
    match action {
        Action::Write { gpa, bytes } => println!("    write {} bytes at {gpa:#x}", bytes.len()),
        Action::Event(event) => println!("    event {event:x?}"),
        action => println!("    {action:x?}"),
    }
    Ok(())
}
