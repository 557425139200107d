//! Nothing is allocated between a vCPU's access to poisoned memory and the KVM_RUN that delivers the exception: other memory may
//! fail too.

mod parts;
#[cfg(target_arch = "x86_64")]
mod rig;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::process::ExitCode;

use guest_memory::Backing;
use libtest_mimic::{Arguments, Failed, Trial};
use ras_core::Response;
use ras_core::plan::decision::{ErrorClass, responses};
use ras_core::request::Arch;
use ras_core::vcpu_state::{Access, Consumption, ExceptionLevel, MachineCheckState, VcpuState};

thread_local! {
    /// Allocations of this thread: the test runner has other threads.
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

#[expect(unsafe_code, reason = "allocations are counted; each is passed to the system allocator")]
// SAFETY: each call is passed on unchanged; counting neither allocates nor unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller guarantees what the callee requires.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        // SAFETY: the caller guarantees what the callee requires; `System` allocated it.
        unsafe { System.dealloc(place, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn main() -> ExitCode {
    let tests = vec![
        Trial::test("no_response_allocates_memory", no_response_allocates_memory),
        #[cfg(target_arch = "x86_64")]
        Trial::ignorable_test("a_consumed_error_is_reported_without_an_allocation", on_real_kvm),
    ];
    libtest_mimic::run(&Arguments::from_args(), tests).exit_code()
}

/// vCPUs of a machine whose broadcasts take more entries than any fixed number.
const VCPUS: u32 = 300;

/// Every response of both architectures to consumed errors, from the signal to the queued exception, without vCPUs: in memory of the
/// guest and of the VMM, with a broadcast to many vCPUs, and when a record waits for the one before.
fn no_response_allocates_memory() -> Result<(), Failed> {
    let arm = VcpuState::Aarch64(Consumption { level: ExceptionLevel::El0, access: Access::Read, far: None });
    let x86 = VcpuState::X86_64(MachineCheckState {
        in_progress: false,
        enabled: true,
        local: false,
        detected_unread: false,
    });
    let mut seen = Vec::new();
    for (arch, state) in [(Arch::Aarch64, arm), (Arch::X86_64, x86)] {
        for response in responses(ErrorClass::Consumed) {
            let asynchronous = [None, Some(Response::Ignore)];
            let parts = asynchronous.into_iter().find_map(|detected| {
                parts::parts(arch, [Some(response), detected], VCPUS, Backing::Anonymous)
            });
            let Some(parts) = parts else { continue };
            seen.push((arch, response));
            let block = parts.area.as_ref().and_then(|area| area.slots().next()).map(|slot| slot.block_gpa);
            let pages = [Some(0x5000), Some(0x6000), Some(0x5000), Some(parts::TABLE), block];
            for (gpa, vcpu) in pages.into_iter().flatten().zip(0..) {
                let access = parts.access(gpa);
                let before = ALLOCATIONS.with(Cell::get);
                parts.reporting.consumed(vcpu, access, &mut || Some(state));
                let allocated = ALLOCATIONS.with(Cell::get) - before;
                if allocated > 0 {
                    return Err(format!("{response} on {arch}: {allocated} allocations at {gpa:#x}").into());
                }
                parts.reporting.reserve();
            }
        }
    }
    for expected in [Response::Sea, Response::Sei, Response::Abort, Response::Serror, Response::Stop] {
        assert!(seen.contains(&(Arch::Aarch64, expected)), "{expected}: {seen:?}");
    }
    for expected in [Response::Mce, Response::Nmi, Response::Stop] {
        assert!(seen.contains(&(Arch::X86_64, expected)), "{expected}: {seen:?}");
    }
    Ok(())
}

/// The same on real KVM, from the exit to the injected exception.
#[cfg(target_arch = "x86_64")]
fn on_real_kvm() -> Result<libtest_mimic::Completion, Failed> {
    let rounds = match rig::rounds(50, || ALLOCATIONS.with(Cell::get)) {
        Ok(rounds) => rounds,
        Err(why) => {
            eprintln!("*** NOT TESTED: this machine has no KVM: {why} ***");
            return Ok(libtest_mimic::Completion::ignored_with(format!("this machine has no KVM: {why}")));
        }
    };
    assert_eq!(rounds.len(), 50);
    let allocated: Vec<usize> = rounds.iter().map(|round| round.allocations).collect();
    assert_eq!(allocated, [0; 50]);
    Ok(libtest_mimic::Completion::Completed)
}
