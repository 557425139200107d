//! The VMM's own memory, beside the guest's.
//!
//! Where transparent huge pages are enabled for all memory (`/sys/kernel/mm/transparent_hugepage/enabled` is `always`, as in Debian),
//! the first access to a large mapping makes a huge page of 2 MiB resident, for a stack of which a few KiB are ever used too. Guest
//! memory shall have huge pages, so prctl(2), PR_SET_THP_DISABLE, which holds for the whole process, is no remedy.

use std::mem::MaybeUninit;
use std::thread::Builder;

/// Bytes of a thread's stack: less than a huge page of 2 MiB.
const STACK_LEN: usize = 512 << 10;

/// A thread to be started, with a name (Linux shows 15 bytes of it) and a stack that no huge page of 2 MiB fits into.
pub fn thread(name: impl Into<String>) -> Builder {
    Builder::new().name(name.into()).stack_size(STACK_LEN)
}

/// Keeps memory that is reserved, and mostly never used, out of huge pages, by MADV_NOHUGEPAGE. A kernel without them refuses, which
/// changes nothing.
#[expect(unsafe_code, reason = "madvise(2) is called")]
pub fn avoid_huge_pages<T>(reserved: &mut [MaybeUninit<T>]) {
    let page = rustix::param::page_size();
    let memory = reserved.as_mut_ptr_range();
    let start = memory.start.addr().next_multiple_of(page);
    let len = (memory.end.addr() / page * page).saturating_sub(start);
    if len > 0 {
        // SAFETY: the range is part of the slice, and its contents do not change.
        unsafe { libc::madvise(start as *mut libc::c_void, len, libc::MADV_NOHUGEPAGE) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_memory_keeps_its_contents() {
        let mut items = Vec::with_capacity(100_000);
        items.extend(0..10_u64);
        avoid_huge_pages(items.spare_capacity_mut());
        items.extend(10..100_000);
        assert!(items.iter().copied().eq(0..100_000));
        avoid_huge_pages(Vec::<u64>::new().spare_capacity_mut());
    }

    #[test]
    fn a_thread_has_the_name() {
        let named = || std::thread::current().name().map(str::to_owned);
        assert_eq!(thread("vcpu0").spawn(named).unwrap().join().unwrap().as_deref(), Some("vcpu0"));
    }
}
