//! Accesses to memory that may not be there.
//!
//! # What for
//! A device model copies from and to guest memory. Where the host has lost a page of it, or has no page to put there, the
//! access ends in a SIGBUS, and that in the end of the process. With these accesses it ends in an error instead.
//!
//! # How
//! The instructions that touch guest memory are a few, in assembly, and a table names them: from where, to where, and
//! where to go on. The process's SIGBUS handler ([`crate::sigbus`]) looks the interrupted instruction up, writes down what
//! the signal said, and lets the thread go on at the other place. Nothing is unwound and nothing is jumped across: the
//! routine returns to its caller in the ordinary way, with how many bytes it has not copied.
//!
//! # What callers promise
//! The pointers are of mappings that live. [`crate::sigbus::install`] was called; before that a SIGBUS ends the process.
//! One of the two pointers is of guest memory that is registered: a page that this process itself has lost is not made
//! good, since what was in it is gone.
//!
//! # What is promised
//! - Bytes are copied in ascending order, and all before the one that is told of are copied.
//! - Loads and stores of 2, 4 and 8 bytes are single accesses, and acquire and release.
//!
//! # What is not
//! - Copies are not atomic: a guest that writes at the same time is read in part.
//! - A store that reaches a page beyond the one that is lost may have changed bytes after the one that is told of.
//! - SIGSEGV: a mapping that is not there, or that may not be written, ends the process as ever.
//!
//! # What it costs
//! Nothing where memory is well: a call, and `rep movsb` or a loop of 8 bytes. A fault costs a signal, or two on aarch64.

#[cfg(target_arch = "aarch64")]
#[path = "aarch64.rs"]
mod architecture;
#[cfg(target_arch = "x86_64")]
#[path = "x86_64.rs"]
mod architecture;

use crate::sigbus::{self, Recovered};

/// Where an access stopped.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stopped {
    /// Bytes that were copied.
    pub(crate) done: usize,
    /// What the signal said.
    pub(crate) signal: Recovered,
}

/// Instructions that may fault, and where to go on. Relative to the table.
#[repr(C)]
struct Entry {
    first: i32,
    end: i32,
    recovery: i32,
}

#[expect(unsafe_code, reason = "the routines are written in assembly")]
// SAFETY: the signatures are those of the routines, which follow the C ABI of their architecture.
unsafe extern "C" {
    fn ghest_recoverable_copy(to: *mut u8, from: *const u8, len: usize) -> usize;
    fn ghest_recoverable_load_u64(from: *const u64, to: *mut u64) -> usize;
    fn ghest_recoverable_store_u64(to: *mut u64, value: u64) -> usize;
    fn ghest_recoverable_store_u32(to: *mut u32, value: u32) -> usize;
    fn ghest_recoverable_load_u16(from: *const u16, to: *mut u16) -> usize;
    fn ghest_recoverable_store_u16(to: *mut u16, value: u16) -> usize;
    static ghest_recoverable_table: [Entry; architecture::ENTRIES];
}

/// Copies bytes.
///
/// # Safety
/// Both places are mapped, `to` may be written, and they do not overlap.
#[expect(unsafe_code, reason = "it takes raw pointers")]
pub(crate) unsafe fn copy(to: *mut u8, from: *const u8, len: usize) -> Result<(), Stopped> {
    // SAFETY: as the caller promises.
    let left = unsafe { ghest_recoverable_copy(to, from, len) };
    outcome(left, len - left)
}

/// Loads 8 aligned bytes at once.
///
/// # Safety
/// The place is mapped, and aligned.
#[expect(unsafe_code, reason = "it takes a raw pointer")]
pub(crate) unsafe fn load_u64(from: *const u64) -> Result<u64, Stopped> {
    let mut value = 0;
    // SAFETY: as the caller promises.
    outcome(unsafe { ghest_recoverable_load_u64(from, &raw mut value) }, 0).map(|()| value)
}

/// Stores 8 aligned bytes at once.
///
/// # Safety
/// The place is mapped, may be written, and is aligned.
#[expect(unsafe_code, reason = "it takes a raw pointer")]
pub(crate) unsafe fn store_u64(to: *mut u64, value: u64) -> Result<(), Stopped> {
    // SAFETY: as the caller promises.
    outcome(unsafe { ghest_recoverable_store_u64(to, value) }, 0)
}

/// Stores 4 aligned bytes at once.
///
/// # Safety
/// The place is mapped, may be written, and is aligned.
#[expect(unsafe_code, reason = "it takes a raw pointer")]
pub(crate) unsafe fn store_u32(to: *mut u32, value: u32) -> Result<(), Stopped> {
    // SAFETY: as the caller promises.
    outcome(unsafe { ghest_recoverable_store_u32(to, value) }, 0)
}

/// Loads 2 aligned bytes in one access.
///
/// # Safety
/// The address is mapped and aligned.
#[expect(unsafe_code, reason = "it takes a raw pointer")]
pub(crate) unsafe fn load_u16(from: *const u16) -> Result<u16, Stopped> {
    let mut value = 0;
    // SAFETY: as the caller promises.
    outcome(unsafe { ghest_recoverable_load_u16(from, &raw mut value) }, 0).map(|()| value)
}

/// Stores 2 aligned bytes in one access.
///
/// # Safety
/// The address is mapped, writable and aligned.
#[expect(unsafe_code, reason = "it takes a raw pointer")]
pub(crate) unsafe fn store_u16(to: *mut u16, value: u16) -> Result<(), Stopped> {
    // SAFETY: as the caller promises.
    outcome(unsafe { ghest_recoverable_store_u16(to, value) }, 0)
}

fn outcome(left: usize, done: usize) -> Result<(), Stopped> {
    if left == 0 { Ok(()) } else { Err(Stopped { done, signal: sigbus::recovered() }) }
}

/// Lets an interrupted thread go on behind its access. False where it was at none. Async-signal-safe.
pub(crate) fn resume(context: &mut libc::ucontext_t) -> bool {
    let table = table();
    let base = std::ptr::from_ref(table) as u64;
    let at = architecture::program_counter(context);
    let place = |offset: i32| base.wrapping_add_signed(offset.into());
    let entry = table.iter().find(|entry| at >= place(entry.first) && at < place(entry.end));
    if let Some(entry) = entry {
        architecture::set_program_counter(context, place(entry.recovery));
    }
    entry.is_some()
}

#[expect(unsafe_code, reason = "the table is written in assembly")]
fn table() -> &'static [Entry; architecture::ENTRIES] {
    // SAFETY: as many entries as that are there, and nobody writes them.
    unsafe { &ghest_recoverable_table }
}
