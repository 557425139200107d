//! Nothing is allocated between a vCPU's access to poisoned memory and the KVM_RUN that delivers the exception: other memory may
//! fail too.
#![cfg(target_arch = "x86_64")]

mod rig;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

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

#[test]
fn a_consumed_error_is_reported_without_an_allocation() {
    let rounds = match rig::rounds(50, || ALLOCATIONS.with(Cell::get)) {
        Ok(rounds) => rounds,
        Err(why) => return eprintln!("SKIPPED, this machine has no KVM: {why}"),
    };
    assert_eq!(rounds.len(), 50);
    let allocated: Vec<usize> = rounds.iter().map(|round| round.allocations).collect();
    assert_eq!(allocated, [0; 50]);
}
