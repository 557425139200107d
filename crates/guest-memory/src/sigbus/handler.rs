//! The SIGBUS handler, and the per-thread queue that it stores to.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use super::ring::Ring;
use super::siginfo::{self, BusInfo};
use super::{Action, BUS_MCEERR_AO, BUS_MCEERR_AR, FatalSignal, Fault, ao_listener};
use crate::ranges;
use crate::recoverable::{self, Recovered};

/// Faults that are queued for a thread. One guest entry causes one or two.
const THREAD_FAULT_CAPACITY: usize = 16;

/// Set once the handler is installed.
static ON_FATAL: OnceLock<fn(&FatalSignal) -> i32> = OnceLock::new();

/// Serialises installations. The handler does not take it.
static INSTALLING: Mutex<()> = Mutex::new(());

/// Faults that were dropped.
static OVERFLOWED: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// Const-initialised and without a destructor, so that a handler can access it at any time.
    static THREAD: Thread = const {
        Thread {
            captures: AtomicBool::new(false),
            faults: Ring::new(),
        }
    };
}

/// What a thread shares with the handler that runs on it.
struct Thread {
    /// Whether action-required faults are queued.
    captures: AtomicBool,
    faults: Ring<THREAD_FAULT_CAPACITY>,
}

pub(super) fn install(on_fatal: fn(&FatalSignal) -> i32) -> io::Result<()> {
    let _installing = INSTALLING.lock().unwrap_or_else(PoisonError::into_inner);
    if ON_FATAL.get().is_some() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    register()?;
    // A fatal signal between the two exits with status 1, without a report. Set before `register`, a failure of that would be final.
    ON_FATAL.set(on_fatal).map_err(|_| io::ErrorKind::AlreadyExists.into())
}

#[expect(unsafe_code, reason = "sigaction(2) is called")]
fn register() -> io::Result<()> {
    let handler: extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void) = on_sigbus;
    // SAFETY: a plain C structure for which all zeros are a valid value.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler as usize;
    // The poisoned page may be in the thread's stack. Threads of the standard library have an alternate signal stack.
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    // SAFETY: the pointers are to locals, and the handler has the signature that SA_SIGINFO requires. All signals wait while it runs:
    // a fatal signal's function may restore a terminal, which SIGTTOU would stop, and determines the exit status.
    let outcome = unsafe {
        libc::sigfillset(&raw mut action.sa_mask);
        libc::sigaction(libc::SIGBUS, &raw const action, std::ptr::null_mut())
    };
    if outcome == 0 { siginfo::unblock() } else { Err(io::Error::last_os_error()) }
}

pub(super) fn capture_action_required<R>(enter: impl FnOnce() -> R) -> R {
    /// Restores the previous state, also if `enter` panics.
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            THREAD.with(|thread| thread.captures.store(self.0, Ordering::SeqCst));
        }
    }
    let _restore = Restore(THREAD.with(|thread| thread.captures.swap(true, Ordering::SeqCst)));
    enter()
}

pub(super) fn take_fault() -> Option<Fault> {
    THREAD.with(|thread| thread.faults.pop())
}

pub(super) fn overflowed() -> u64 {
    OVERFLOWED.load(Ordering::Relaxed)
}

#[expect(unsafe_code, reason = "a signal handler receives raw pointers")]
extern "C" fn on_sigbus(_: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: with SA_SIGINFO the kernel passes a siginfo_t, here of SIGBUS, and a ucontext_t, which belong to the handler while it runs.
    let (info, context) = unsafe { (&*info.cast::<BusInfo>(), &mut *context.cast::<libc::ucontext_t>()) };
    // SAFETY: the C library returns this thread's errno, which nothing else accesses while the handler runs.
    let errno = unsafe { &mut *libc::__errno_location() };
    let before = *errno;
    if !handle(info, context) {
        let signal = FatalSignal {
            hva: if info.code > 0 { info.address } else { 0 },
            code: info.code,
            log2_len: log2_len(info),
            guest: (info.code > 0).then(|| ranges::guest_address(info.address)).flatten(),
            sender: if info.code > 0 { 0 } else { info.sender() },
        };
        let status = ON_FATAL.get().map_or(1, |on_fatal| on_fatal(&signal));
        // SAFETY: _exit(2) is async-signal-safe and does not return.
        unsafe { libc::_exit(status) };
    }
    *errno = before;
}

/// Returns false if the process cannot continue. Async-signal-safe.
fn handle(info: &BusInfo, context: &mut libc::ucontext_t) -> bool {
    if info.code == BUS_MCEERR_AO {
        let fault = Fault { hva: info.address, log2_len: log2_len(info), action: Action::Optional };
        if !ao_listener::push(fault) {
            OVERFLOWED.fetch_add(1, Ordering::Relaxed);
        }
        return true;
    }
    // Sent by a process: it carries no address.
    if info.code <= 0 {
        return false;
    }
    let is_guest_memory = ranges::guest_address(info.address).is_some();
    let signal = Recovered { hva: info.address, code: info.code, log2_len: log2_len(info) };
    if is_guest_memory && recoverable::resume(context, signal) {
        return true;
    }
    THREAD.with(|thread| {
        if info.code != BUS_MCEERR_AR || !thread.captures.load(Ordering::SeqCst) {
            return false;
        }
        let fault = Fault { hva: info.address, log2_len: log2_len(info), action: Action::Required };
        if thread.faults.push(fault) {
            return true;
        }
        OVERFLOWED.fetch_add(1, Ordering::Relaxed);
        // Not guest memory: an instruction of the thread itself that faults without end must not do so silently.
        is_guest_memory
    })
}

fn log2_len(info: &BusInfo) -> u8 {
    let is_set = matches!(info.code, BUS_MCEERR_AR | BUS_MCEERR_AO);
    if is_set { u8::try_from(info.address_lsb).unwrap_or(0) } else { 0 }
}
