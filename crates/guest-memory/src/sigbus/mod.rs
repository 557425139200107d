//! SIGBUS: how the kernel tells of a page that the host has lost, and how this process lives on.
//!
//! | signal | what becomes of it |
//! |---|---|
//! | an access of [`GuestRam`](crate::GuestRam)'s own meets a page that is not there | the access ends in an error |
//! | action optional: an error that nobody has consumed | kept, and told to the [`AoListener`] |
//! | action required, while the thread is [`listening`] | kept for the thread to [`take`] |
//! | any other | fatal-signal report, and the end of the process |
//!
//! The handler stores to places that were there before, and makes a system call or two. Nothing in it locks, allocates or
//! logs.
//!
//! ```
//! use guest_memory::sigbus::{self, Action, Fault};
//!
//! sigbus::install(|_| 1)?;
//! let fault = Fault { hva: 0x7000_0000_0000, log2_len: 12, action: Action::Required };
//! // Stands for KVM_RUN, whose guest touches a page that the host has lost.
//! sigbus::listening(|| sigbus::raise(fault))?;
//! assert_eq!(sigbus::take(), Some(fault));
//! # Ok::<(), std::io::Error>(())
//! ```

mod ao_listener;
mod handler;
mod pagemap;
mod ring;
mod siginfo;

use std::io;

pub use self::ao_listener::AoListener;
pub(crate) use self::ao_listener::forget;
pub(crate) use self::handler::{Recovered, recovered};

/// A page that the host has lost, as a signal told of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// HVA in it (`si_addr`).
    pub hva: u64,
    /// log2 of how many bytes are lost (`si_addr_lsb`).
    pub log2_len: u8,
    /// Whether somebody waits.
    pub action: Action,
}

/// What a fault asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The thread has touched the page and cannot go on without it (BUS_MCEERR_AR).
    Required,
    /// Nobody has touched it yet (BUS_MCEERR_AO).
    Optional,
}

/// Why the process cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FatalSignal {
    /// HVA that was touched (`si_addr`); 0 where the signal was sent by a process.
    pub hva: u64,
    /// `si_code`: BUS_MCEERR_AR (4) for a page that the host has lost, BUS_ADRERR (2) for one that it does not have. 0 and
    /// less where a process sent the signal.
    pub code: i32,
    /// log2 of how many bytes are lost (`si_addr_lsb`); 0 where that does not apply.
    pub log2_len: u8,
    /// The GPA, where the address is a guest's memory.
    pub guest: Option<u64>,
}

/// `si_code` of the kernel's memory failures (Linux, `include/uapi/asm-generic/siginfo.h`).
const BUS_MCEERR_AR: i32 = 4;
const BUS_MCEERR_AO: i32 = 5;

/// Installs the handler, once a process, and unblocks the signal for this thread and those that it starts: a thread that
/// blocks it is killed by a fault of its own, and told of no other.
///
/// `fatal_signal` is called in the handler where the process cannot go on. It may make async-signal-safe calls only. What
/// it returns is the process's exit status.
///
/// # Errors
/// Where it was installed before, or the host refuses.
pub fn install(fatal_signal: fn(&FatalSignal) -> i32) -> io::Result<()> {
    handler::install(fatal_signal)
}

/// Runs `enter` (KVM_RUN, madvise), during which a fault whose action is required is not one of this thread's own
/// instructions: it is kept for [`take`], and the thread goes on. System calls that it interrupts return `EINTR`.
pub fn listening<R>(enter: impl FnOnce() -> R) -> R {
    handler::listening(enter)
}

/// The oldest fault that is kept for this thread. It keeps 16; what comes while all are kept is [counted](overflowed).
#[must_use]
pub fn take() -> Option<Fault> {
    handler::take()
}

/// How many faults could not be kept, for a thread or for the [`AoListener`], since the process began.
#[must_use]
pub fn overflowed() -> u64 {
    handler::overflowed()
}

/// Sends a signal as the kernel would: to this thread, and for [`Action::Optional`] to the [`AoListener`]'s. That thread sends it
/// to itself, soon: a thread may feign the kernel's signals to itself only.
///
/// # Errors
/// `NotFound` where there is no [`AoListener`]; or what the host says.
pub fn raise(fault: Fault) -> io::Result<()> {
    match fault.action {
        Action::Required => siginfo::send_to_this_thread(BUS_MCEERR_AR, fault),
        Action::Optional => ao_listener::raise(fault),
    }
}
