//! The signal handler allocates nothing: it may have interrupted the allocator.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use guest_memory::sigbus::{self, Action, Fault};
use guest_memory::{AccessError, Backing, GuestRam};
use vm_memory::{GuestMemoryBackend, GuestMemoryRegion};

thread_local! {
    /// Allocations of this thread: the test runner has other threads.
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

#[expect(unsafe_code, reason = "allocations are counted; each is passed to the system allocator")]
// SAFETY: each call is passed on unchanged; counting neither allocates nor unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
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
#[expect(unsafe_code, reason = "a signal handler is installed")]
fn the_handler_allocates_nothing() {
    // SAFETY: the function only returns a number.
    unsafe { sigbus::install(|_| 99) }.expect("a handler");
    let ram = GuestRam::allocate(&[(0, 8192)], Backing::Memfd).expect("memory");
    ram.memory().iter().for_each(|region| {
        region.file_offset().expect("a file").file().set_len(4096).expect("shorter");
    });
    let hva = ram.host_address(0).expect("memory");

    // On a new thread, so that lazy initialisation of a thread is counted too.
    let counted = std::thread::spawn(move || {
        let before = ALLOCATIONS.get();
        for _ in 0..20 {
            sigbus::capture_action_required(|| {
                sigbus::raise(Fault { hva, log2_len: 12, action: Action::Required })
            })
            .expect("sent");
        }
        let error = ram.read(4090, &mut [0; 16]);
        let allocations = ALLOCATIONS.get() - before;
        assert_eq!(error, Err(AccessError::Host { gpa: 4096, code: 2 }));
        assert_eq!(std::iter::from_fn(sigbus::take_fault).count(), 16);
        allocations
    });
    assert_eq!(counted.join().expect("no panic"), 0);
}
