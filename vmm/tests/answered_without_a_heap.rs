//! From a vCPU's touch of poisoned memory to the exception that answers it nothing is allocated: memory may be failing all around.
#![cfg(target_arch = "x86_64")]

mod rig;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    /// Of this thread: the test's runner has others.
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

#[expect(
    unsafe_code,
    reason = "there is no other way to see allocations; all is handed to the system's allocator"
)]
// SAFETY: each call is passed on as it came; counting neither allocates nor unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promises are the callee's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are the callee's, which allocated it.
        unsafe { System.dealloc(place, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn an_error_is_answered_without_allocating() {
    let rounds = match rig::rounds(50, || ALLOCATIONS.with(Cell::get)) {
        Ok(rounds) => rounds,
        Err(why) => return eprintln!("SKIPPED, this machine lacks KVM: {why}"),
    };
    assert_eq!(rounds.len(), 50);
    let allocated: Vec<usize> = rounds.iter().map(|round| round.allocations).collect();
    assert_eq!(allocated, [0; 50]);
}
