//! SIGBUS: how the kernel notifies this process of poisoned pages, and how the process survives.
//!
//! | signal | handling |
//! |---|---|
//! | an access of [`GuestRam`](crate::GuestRam) itself touches a poisoned or missing page | the access returns an error |
//! | action optional (AO): an error that no thread has consumed | queued for the [`AoListener`] |
//! | action required (AR), inside [`capture_action_required`] | queued for the thread, see [`take_fault`] |
//! | any other | fatal-signal report, then the process exits |
//!
//! The handler stores to preallocated memory and makes one or two system calls. It does not lock, allocate or log.
//!
//! ```
//! use guest_memory::sigbus::{self, Action, Fault};
//!
//! // SAFETY: the function does nothing but return a number.
//! unsafe { sigbus::install(|_| 1)? };
//! let fault = Fault { hva: 0x7000_0000_0000, log2_len: 12, action: Action::Required };
//! // In place of a KVM_RUN whose guest touches a poisoned page.
//! sigbus::capture_action_required(|| sigbus::raise(fault))?;
//! assert_eq!(sigbus::take_fault(), Some(fault));
//! # Ok::<(), std::io::Error>(())
//! ```

mod ao_listener;
mod handler;
mod pagemap;
mod ring;
mod siginfo;

use std::io;

pub use self::ao_listener::AoListener;
pub(crate) use self::ao_listener::memory_replaced;

/// A poisoned page, as a SIGBUS reported it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// HVA in the page (`si_addr`).
    pub hva: u64,
    /// Base-two logarithm of the poisoned bytes (`si_addr_lsb`).
    pub log2_len: u8,
    /// Whether a thread has consumed the error.
    pub action: Action,
}

/// The action that a fault requires, from its `si_code`. Exhaustive: the kernel has these two codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// BUS_MCEERR_AR: the thread has consumed the error and cannot continue without the page.
    Required,
    /// BUS_MCEERR_AO: the error was detected; no thread has consumed it.
    Optional,
}

/// The SIGBUS that ends the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FatalSignal {
    /// HVA that was accessed (`si_addr`). 0 if a process sent the signal.
    pub hva: u64,
    /// `si_code`: BUS_MCEERR_AR (4) or BUS_MCEERR_AO (5) for a poisoned page, BUS_ADRERR (2) for a page that the host cannot
    /// provide. 0 or less if a process sent the signal.
    pub code: i32,
    /// Base-two logarithm of the poisoned bytes (`si_addr_lsb`). 0 for other codes than BUS_MCEERR_*.
    pub log2_len: u8,
    /// The GPA. `None` if the address is not guest memory.
    pub guest: Option<u64>,
    /// `si_pid`: the process that sent the signal. 0 if the kernel raised it, if the kernel had no memory for its siginfo, or if the process
    /// is outside this process's PID namespace.
    pub sender: i32,
}

/// `si_code` of a memory failure (Linux, `include/uapi/asm-generic/siginfo.h`).
const BUS_MCEERR_AR: i32 = 4;
const BUS_MCEERR_AO: i32 = 5;

/// Installs the process's SIGBUS handler, and unblocks the signal for this thread and the threads that it starts later. A thread that
/// blocks SIGBUS is killed by a fault of its own.
///
/// The handler calls `on_fatal` if the process cannot continue, and exits with the status that it returns.
///
/// # Safety
/// `on_fatal` runs in a signal handler that may have interrupted any code of this process. It must be async-signal-safe
/// (signal-safety(7)): it must not allocate, lock, unwind, or access data that the interrupted code may have been changing, other
/// than atomically.
///
/// # Errors
/// `AlreadyExists` if it is installed; or the error of sigaction(2) or pthread_sigmask(3), after which it can be called again.
#[expect(unsafe_code, reason = "the caller's function runs in a signal handler")]
pub unsafe fn install(on_fatal: fn(&FatalSignal) -> i32) -> io::Result<()> {
    handler::install(on_fatal)
}

/// Runs `enter` (KVM_RUN, madvise) and meanwhile queues action-required faults for [`take_fault`], so that the thread continues.
/// System calls that the signal interrupts return `EINTR`.
///
/// The faults must come from the kernel's work for this thread. If an instruction of `enter` itself touches a poisoned page, it
/// faults again each time it is resumed: on guest memory without end, on other memory until the queue is full and the process exits.
pub fn capture_action_required<R>(enter: impl FnOnce() -> R) -> R {
    handler::capture_action_required(enter)
}

/// Removes the oldest fault from this thread's queue. The queue holds 16 faults; further ones are [counted](overflowed) and dropped.
#[must_use]
pub fn take_fault() -> Option<Fault> {
    handler::take_fault()
}

/// The number of faults that were dropped since the process started, because a thread's queue or the [`AoListener`]'s was full.
#[must_use]
pub fn overflowed() -> u64 {
    handler::overflowed()
}

/// Sends a SIGBUS as the kernel would: [`Action::Required`] to this thread, before this returns; [`Action::Optional`] to the thread
/// of the [`AoListener`], which sends it to itself shortly after, because a thread may only forge a kernel signal to itself.
///
/// # Errors
/// `NotFound` if no [`AoListener`] is running; or the error of rt_tgsigqueueinfo(2).
pub fn raise(fault: Fault) -> io::Result<()> {
    match fault.action {
        Action::Required => siginfo::send_to_this_thread(BUS_MCEERR_AR, fault),
        Action::Optional => ao_listener::raise(fault),
    }
}
