//! Accesses to memory whose pages may be poisoned or missing.
//!
//! # Use case
//! A device model copies from and to guest memory. If a page is poisoned, or the host cannot provide one, an ordinary access
//! raises SIGBUS and ends the process. These accesses return an error instead.
//!
//! # Mechanism
//! A few assembly routines contain every instruction that touches guest memory. A table lists the address ranges of these
//! instructions, with a recovery address for each. The SIGBUS handler ([`crate::sigbus`]) looks the interrupted instruction up,
//! stores what the signal said, and resumes the thread at the recovery address. Nothing is unwound: the routine returns to its
//! caller in the ordinary way, with the count of bytes that it has not copied.
//!
//! # Contract
//! The pointers belong to live mappings. [`crate::sigbus::install`] was called; before that a SIGBUS ends the process. One of the
//! two pointers is registered guest memory: an access to a poisoned page of this process's own memory is not recovered.
//!
//! # Guarantees
//! - Bytes are copied in ascending order, and all bytes before the one that is reported are copied.
//! - Loads and stores of 2, 4 and 8 bytes are single accesses, with acquire and release ordering.
//!
//! # Non-guarantees
//! - Copies are not atomic: bytes that a guest writes at the same time may be copied in part.
//! - A store that also touches the page after the poisoned one may have changed bytes after the one that is reported.
//! - SIGSEGV: an access to an unmapped address, or a write to a read-only mapping, ends the process.
//!
//! # Cost
//! Without a fault: a call, and `rep movsq` or a loop of 64 bytes. A fault costs one signal, or two in a long copy.

#[cfg(target_arch = "aarch64")]
#[path = "aarch64.rs"]
mod architecture;
#[cfg(target_arch = "x86_64")]
#[path = "x86_64.rs"]
mod architecture;

use std::cell::Cell;

thread_local! {
    /// The signal of this thread's last recovered access. The handler writes it only while the thread is inside an access, and
    /// the thread reads it after that. Const-initialised and without a destructor, so that a handler can access it at any time.
    static SIGNAL: Cell<Recovered> = const { Cell::new(Recovered { hva: 0, code: 0, log2_len: 0 }) };
}

/// The signal of a recovered access.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Recovered {
    /// `si_addr`.
    pub(crate) hva: u64,
    /// `si_code`.
    pub(crate) code: i32,
    /// `si_addr_lsb`. 0 if the code is not that of a poisoned page.
    pub(crate) log2_len: u8,
}

impl Recovered {
    /// Whether the page is poisoned. Otherwise the host cannot provide it.
    pub(crate) fn is_poisoned(&self) -> bool {
        self.code == libc::BUS_MCEERR_AR
    }
}

/// Where an access stopped.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stopped {
    /// Bytes that were copied.
    pub(crate) done: usize,
    /// What the signal reported.
    pub(crate) signal: Recovered,
}

/// Instructions that may fault, and their recovery address. Offsets from the table.
#[repr(C)]
struct Entry {
    first: i32,
    end: i32,
    recovery: i32,
}

#[expect(unsafe_code, reason = "the routines are written in assembly")]
// SAFETY: the signatures match the routines, which follow the C ABI of their architecture.
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
/// Both ranges are mapped, `to` is writable, and they do not overlap.
#[expect(unsafe_code, reason = "it takes raw pointers")]
pub(crate) unsafe fn copy(to: *mut u8, from: *const u8, len: usize) -> Result<(), Stopped> {
    // SAFETY: as the caller guarantees.
    let left = unsafe { ghest_recoverable_copy(to, from, len) };
    outcome(left, len - left)
}

/// Loads 8 aligned bytes in one access.
///
/// # Safety
/// The address is mapped and aligned.
#[expect(unsafe_code, reason = "it takes a raw pointer")]
pub(crate) unsafe fn load_u64(from: *const u64) -> Result<u64, Stopped> {
    let mut value = 0;
    // SAFETY: as the caller guarantees.
    outcome(unsafe { ghest_recoverable_load_u64(from, &raw mut value) }, 0).map(|()| value)
}

/// Stores 8 aligned bytes in one access.
///
/// # Safety
/// The address is mapped, writable and aligned.
#[expect(unsafe_code, reason = "it takes a raw pointer")]
pub(crate) unsafe fn store_u64(to: *mut u64, value: u64) -> Result<(), Stopped> {
    // SAFETY: as the caller guarantees.
    outcome(unsafe { ghest_recoverable_store_u64(to, value) }, 0)
}

/// Stores 4 aligned bytes in one access.
///
/// # Safety
/// The address is mapped, writable and aligned.
#[expect(unsafe_code, reason = "it takes a raw pointer")]
pub(crate) unsafe fn store_u32(to: *mut u32, value: u32) -> Result<(), Stopped> {
    // SAFETY: as the caller guarantees.
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
    if left == 0 { Ok(()) } else { Err(Stopped { done, signal: SIGNAL.get() }) }
}

/// Makes an interrupted thread resume at the recovery address of its access, which then reports the signal. Returns false if the
/// thread was not in one of these accesses. Async-signal-safe.
pub(crate) fn resume(context: &mut libc::ucontext_t, signal: Recovered) -> bool {
    let table = table();
    let base = std::ptr::from_ref(table) as u64;
    let at = architecture::program_counter(context);
    let place = |offset: i32| base.wrapping_add_signed(offset.into());
    let entry = table.iter().find(|entry| at >= place(entry.first) && at < place(entry.end));
    if let Some(entry) = entry {
        architecture::set_program_counter(context, place(entry.recovery));
        SIGNAL.set(signal);
    }
    entry.is_some()
}

#[expect(unsafe_code, reason = "the table is written in assembly")]
fn table() -> &'static [Entry; architecture::ENTRIES] {
    // SAFETY: the table has exactly this many entries, is aligned, and is never written.
    unsafe { &ghest_recoverable_table }
}
