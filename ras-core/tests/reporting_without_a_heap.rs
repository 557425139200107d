//! Responding to an error allocates no memory, from the ledger to the last action: a vCPU is waiting meanwhile.

use core::cell::Cell;
use core::num::NonZeroU32;
use std::alloc::{GlobalAlloc, Layout, System};

use ras_core::abilities::{ArchAbilities, Fact, HostAbilities, MachineCheckAbilities};
use ras_core::actions::Action;
use ras_core::plan::decision::{ErrorClass, responses};
use ras_core::plan::{TablesView, plan, sources_wanted};
use ras_core::reporters::ReporterContext;
use ras_core::request::{Arch, OnMissingSupport, Repair, Request, TableSet};
use ras_core::responder::{Responder, ResponderContext, ResponderOptions};
use ras_core::vcpu_state::{Access, Consumption, ExceptionLevel, MachineCheckState, VcpuState};
use ras_core::{Kind, MemoryError, Origin, RecordArea, Response, Severity, Span, Threshold};

thread_local! {
    /// Of this thread: the test runner has others.
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

#[expect(
    unsafe_code,
    reason = "allocations can only be counted by an allocator; it passes every call on to the system's"
)]
// SAFETY: each call is passed on unchanged; counting neither allocates nor unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's contract is the callee's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's contract is the callee's, which allocated it.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn host(arch: Arch) -> HostAbilities {
    let mut host = HostAbilities::unknown(arch);
    match &mut host.arch {
        ArchAbilities::Aarch64(host) => host.vcpu_events = Fact::Yes,
        ArchAbilities::X86_64(host) => {
            host.user_nmi = Fact::Yes;
            host.mce = Some(MachineCheckAbilities { supported: MachineCheckAbilities::SER_P, banks: 32 });
        }
    }
    host
}

/// `auto`, and every response that any guest can be given to that class of error.
fn requests(class: ErrorClass) -> impl Iterator<Item = Option<Response>> {
    std::iter::once(None).chain(responses(class).map(Some))
}

#[test]
fn no_response_allocates_memory() {
    let arm = VcpuState::Aarch64(Consumption { level: ExceptionLevel::El0, access: Access::Read, far: None });
    let x86 = VcpuState::X86_64(MachineCheckState {
        in_progress: false,
        enabled: true,
        local: false,
        detected_unread: false,
    });
    let mut plans = 0;
    for (arch, state) in [(Arch::Aarch64, arm), (Arch::X86_64, x86)] {
        let host = host(arch);
        for synchronous in requests(ErrorClass::Consumed) {
            for asynchronous in requests(ErrorClass::Detected) {
                let request = Request {
                    arch,
                    tables: TableSet::Acpi,
                    synchronous,
                    asynchronous,
                    corrected: Some(Response::Gsiv),
                    corrected_threshold: Some(Threshold {
                        errors: NonZeroU32::new(3).unwrap(),
                        window_ms: NonZeroU32::MAX,
                    }),
                    poll_interval_ms: NonZeroU32::MIN,
                    on_missing_support: OnMissingSupport::Degrade,
                    repair: Repair::OnReset,
                };
                let sources: Vec<_> = sources_wanted(&request, &host, Some(20)).collect();
                let area = RecordArea::lay_out(1 << 30, 1 << 20, &sources).ok();
                let tables =
                    TablesView { set: TableSet::Acpi, record_area: area.as_ref(), error_device: true };
                let Ok(plan) = plan(&request, &host, &tables) else { continue };
                let mut responder =
                    Responder::new(&plan, &host, area.as_ref(), ResponderOptions::new()).unwrap();
                plans += 1;
                let mut actions = 0_usize;
                let before = ALLOCATIONS.get();
                let mut sink = |_: Action<'_>| {
                    actions += 1;
                    Ok(())
                };
                let context = |now_ns| ResponderContext {
                    context: ReporterContext {
                        now_ns,
                        unix_seconds: 7,
                        acknowledge_register: 0,
                        vcpu: Some(state),
                    },
                    detected_register: 0,
                    corrected_register: 0,
                };
                for page in 0..200_u64 {
                    let gpa = 0x8000_0000 + (page << 21);
                    let kind = if page % 3 == 0 { Kind::ActionOptional } else { Kind::ActionRequired };
                    // Every fourteenth error is of 2 MiB, a part of which is known.
                    let log2_len = if page % 7 == 0 { 21 } else { 12 };
                    let error = |gpa, log2_len| MemoryError {
                        span: Span::around(gpa, log2_len),
                        gpa,
                        kind,
                        severity: Severity::Recoverable,
                        vcpu: Some((page % 4) as u32),
                        origin: Origin::Sigbus,
                        time_ns: page,
                    };
                    if page % 14 == 0 {
                        responder.report(&error(gpa + 0x5_3000, 12), &context(page), &mut sink);
                        responder.report(&error(gpa + 0x1f_0000, 14), &context(page), &mut sink);
                    }
                    responder.report(&error(gpa, log2_len), &context(page), &mut sink);
                    let (kind, severity) = (Kind::Corrected, Severity::Corrected);
                    let corrected = MemoryError { kind, severity, ..error(gpa / 5, 12) };
                    responder.report(&corrected, &context(page), &mut sink);
                    responder.tick(&context(page), &mut sink);
                }
                // The largest error, over pages that are known and some that are not; and again, when all of it is known.
                for time_ns in [1_000, 2_000] {
                    let widest = MemoryError {
                        span: Span::around(0x8000_0000, 30),
                        gpa: 0x8000_3000,
                        kind: Kind::ActionRequired,
                        severity: Severity::Recoverable,
                        vcpu: Some(1),
                        origin: Origin::Sigbus,
                        time_ns,
                    };
                    responder.report(&widest, &context(time_ns), &mut sink);
                }
                responder.tick(&context(u64::MAX), &mut sink);
                responder.reset(true, &mut sink);
                responder.tick(&context(u64::MAX), &mut sink);
                assert_eq!(ALLOCATIONS.get() - before, 0, "{synchronous:?} {asynchronous:?} on {arch}");
                assert!(actions > 100);
            }
        }
    }
    assert!(plans > 50, "{plans}");
    // The counter works.
    let before = ALLOCATIONS.get();
    drop(std::hint::black_box(Box::new(7)));
    assert_eq!(ALLOCATIONS.get() - before, 1);
}
