//! The handler, and what it writes down for its thread.

use std::cell::Cell;
use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::ring::Ring;
use super::siginfo::BusInfo;
use super::{Action, BUS_MCEERR_AO, BUS_MCEERR_AR, FatalSignal, Fault, ao_listener};
use crate::{ranges, recoverable};

/// Faults that are kept for a thread. One guest entry gives one or two.
const KEPT: usize = 16;

static FATAL_SIGNAL_REPORT: OnceLock<fn(&FatalSignal) -> i32> = OnceLock::new();

static OVERFLOWED: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// Needs no initialisation and no destructor, so that a handler finds it in place.
    static THREAD: Thread = const {
        Thread {
            is_listening: AtomicBool::new(false),
            faults: Ring::new(),
            recovered: Cell::new(Recovered { hva: 0, code: 0, log2_len: 0 }),
        }
    };
}

/// What a thread and its handler share.
struct Thread {
    is_listening: AtomicBool,
    faults: Ring<KEPT>,
    recovered: Cell<Recovered>,
}

/// What the signal of a recovered access said.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Recovered {
    /// `si_addr`.
    pub(crate) hva: u64,
    /// `si_code`.
    pub(crate) code: i32,
    /// `si_addr_lsb`, where the code is of a poisoned page.
    pub(crate) log2_len: u8,
}

impl Recovered {
    /// Whether the host has lost the page, rather than has none.
    pub(crate) fn is_poisoned(&self) -> bool {
        self.code == BUS_MCEERR_AR
    }
}

/// What the signal of this thread's last recovered access said.
pub(crate) fn recovered() -> Recovered {
    THREAD.with(|thread| thread.recovered.get())
}

pub(super) fn install(fatal_signal: fn(&FatalSignal) -> i32) -> io::Result<()> {
    FATAL_SIGNAL_REPORT.set(fatal_signal).map_err(|_| io::ErrorKind::AlreadyExists)?;
    register()
}

#[expect(unsafe_code, reason = "sigaction(2) and pthread_sigmask(3) are called")]
fn register() -> io::Result<()> {
    let handler: extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void) = on_sigbus;
    // SAFETY: an all-zero sigaction and an all-zero set are valid values of theirs.
    let (mut action, mut set): (libc::sigaction, libc::sigset_t) =
        unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
    action.sa_sigaction = handler as usize;
    // A thread's stack may be what is lost: threads of the standard library have another for signals.
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    // SAFETY: sets of this function's own are emptied and filled, and the handler has the signature of SA_SIGINFO.
    let outcome = unsafe {
        libc::sigemptyset(&raw mut action.sa_mask);
        libc::sigaction(libc::SIGBUS, &raw const action, std::ptr::null_mut())
    };
    if outcome != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: as before.
    let outcome = unsafe {
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGBUS);
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const set, std::ptr::null_mut())
    };
    if outcome == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(outcome)) }
}

pub(super) fn listening<R>(enter: impl FnOnce() -> R) -> R {
    /// Restores what was, also where `enter` panics.
    struct Before(bool);
    impl Drop for Before {
        fn drop(&mut self) {
            THREAD.with(|thread| thread.is_listening.store(self.0, Ordering::SeqCst));
        }
    }
    let _before = Before(THREAD.with(|thread| thread.is_listening.swap(true, Ordering::SeqCst)));
    enter()
}

pub(super) fn take() -> Option<Fault> {
    THREAD.with(|thread| thread.faults.take())
}

pub(super) fn overflowed() -> u64 {
    OVERFLOWED.load(Ordering::Relaxed)
}

#[expect(unsafe_code, reason = "what the kernel gives a handler are pointers")]
extern "C" fn on_sigbus(_: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: with SA_SIGINFO these are a siginfo_t, here of SIGBUS, and a ucontext_t, and nobody else's meanwhile.
    let (info, context) = unsafe { (&*info.cast::<BusInfo>(), &mut *context.cast::<libc::ucontext_t>()) };
    // SAFETY: the C library gives each thread a place for it.
    let errno = unsafe { &mut *libc::__errno_location() };
    let before = *errno;
    if !is_dealt_with(info, context) {
        let signal = FatalSignal {
            hva: if info.code > 0 { info.address } else { 0 },
            code: info.code,
            log2_len: log2_len(info),
            guest: (info.code > 0).then(|| ranges::guest_address(info.address)).flatten(),
        };
        let status = FATAL_SIGNAL_REPORT.get().map_or(1, |fatal_signal| fatal_signal(&signal));
        // SAFETY: _exit(2) is made for this.
        unsafe { libc::_exit(status) };
    }
    *errno = before;
}

/// False where the process cannot go on. Async-signal-safe.
fn is_dealt_with(info: &BusInfo, context: &mut libc::ucontext_t) -> bool {
    if info.code == BUS_MCEERR_AO {
        let fault = Fault { hva: info.address, log2_len: log2_len(info), action: Action::Optional };
        if !ao_listener::put(fault) {
            OVERFLOWED.fetch_add(1, Ordering::Relaxed);
        }
        return true;
    }
    // Sent by a process: it says nothing of memory.
    if info.code <= 0 {
        return false;
    }
    let is_guests = ranges::guest_address(info.address).is_some();
    THREAD.with(|thread| {
        if is_guests && recoverable::resume(context) {
            let (hva, code, log2_len) = (info.address, info.code, log2_len(info));
            thread.recovered.set(Recovered { hva, code, log2_len });
            return true;
        }
        if info.code != BUS_MCEERR_AR || !thread.is_listening.load(Ordering::SeqCst) {
            return false;
        }
        let fault = Fault { hva: info.address, log2_len: log2_len(info), action: Action::Required };
        if thread.faults.put(fault) {
            return true;
        }
        OVERFLOWED.fetch_add(1, Ordering::Relaxed);
        // An instruction of the thread's own that faults for ever, on memory of this process, must not do so in silence.
        is_guests
    })
}

fn log2_len(info: &BusInfo) -> u8 {
    let is_set = matches!(info.code, BUS_MCEERR_AR | BUS_MCEERR_AO);
    if is_set { u8::try_from(info.address_lsb).unwrap_or(0) } else { 0 }
}
