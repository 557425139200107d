//! What signals do to a process that runs a machine.
//!
//! | signal | effect |
//! |---|---|
//! | SIGHUP, SIGINT, SIGQUIT, SIGTERM | while [stops are requests](Signals::stops_are_requests), a request to stop the machine, and the end of the process if that takes longer than [`STOP_TIMEOUT`]; otherwise its immediate end |
//! | the others that end a process by default, SIGBUS excepted | the same as without a handler, after the terminal is restored and the sockets' files are removed |
//! | SIGWINCH | while a machine runs whose console is the terminal, the console has its size |
//! | SIGBUS | see [`fatal_signal`] |
//! | SIGXFSZ | ignored: a write beyond RLIMIT_FSIZE returns EFBIG, and is an I/O error of whoever writes |
//!
//! A signal that is ignored when the process starts stays ignored: nohup(1) ignores SIGHUP, and a shell without job control SIGINT
//! and SIGQUIT in the background; SIGALRM is this process's own all the same. Stop signals, SIGALRM and SIGBUS that the parent has blocked
//! are unblocked.

mod action;
mod name;

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::Duration;

use devices::socket_file;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};
use vmm_sys_util::signal::{SIGRTMAX, SIGRTMIN, unblock_signal};

use crate::console;
use crate::ras::fatal_signal;

pub use name::SignalName;

/// The signals that request a stop.
const STOP: [i32; 4] = [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM];

/// The other standard signals that end a process by default and can be handled, but for SIGBUS, SIGPIPE and SIGXFSZ. So do the
/// real-time signals.
const FATAL: [i32; 15] = [
    libc::SIGABRT,
    libc::SIGALRM,
    libc::SIGFPE,
    libc::SIGILL,
    libc::SIGIO,
    libc::SIGPROF,
    libc::SIGPWR,
    libc::SIGSEGV,
    libc::SIGSTKFLT,
    libc::SIGSYS,
    libc::SIGTRAP,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGVTALRM,
    libc::SIGXCPU,
];

/// How long a machine may take to stop after a signal has requested it. Far more than it takes.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(20);
/// How long the process may take after that, for its files.
const END_TIMEOUT: Duration = Duration::from_secs(4);

/// Pending signals that this process needs to be able to have: those of memory errors, which carry an address.
const MIN_PENDING: u64 = 64;

/// Whether a stop signal is a request.
static IS_REQUEST: AtomicBool = AtomicBool::new(false);
/// The stop signal that was received last. 0 if there was none since the last call of [`Signals::take_pending`].
static REQUESTED: AtomicU8 = AtomicU8::new(0);
/// The stop signal that was received first: the process ends by it if the machine does not stop in time. 0 if there was none.
static OVERDUE: AtomicU8 = AtomicU8::new(0);
/// Whether the terminal was resized since the last call of [`Signals::take_resized`].
static RESIZED: AtomicBool = AtomicBool::new(false);
/// Signalled when a stop was requested, or the terminal was resized. Never closed: a handler may be about to write to it.
static WAKE: OnceLock<EventFd> = OnceLock::new();

/// Unblocks the signals that end this process, SIGALRM, which limits the time of a stop, and SIGBUS, which any thread may get. Call it
/// before any other thread is started.
pub fn unblock() {
    for signal in STOP.into_iter().chain([libc::SIGALRM, libc::SIGBUS]) {
        // Fails for an invalid number only.
        let _ = unblock_signal(signal);
    }
}

/// The handlers cannot be installed.
#[derive(Debug, thiserror::Error)]
#[error("{call}: {source}")]
pub struct InstallError {
    /// The system call.
    pub call: &'static str,
    /// Its errno.
    pub source: io::Error,
}

/// The handlers of this process's signals. They stay installed until it ends.
#[derive(Debug)]
pub struct Signals {
    wake: &'static EventFd,
}

impl Signals {
    /// Installs the handlers. From now on a stop signal ends the process immediately, with a message and the exit status
    /// 128 + signal.
    ///
    /// # Errors
    /// Returns an error if eventfd(2) or sigaction(2) fails.
    pub fn install() -> Result<Self, InstallError> {
        let failed = |call| move |source| InstallError { call, source };
        let wake = match WAKE.get() {
            Some(wake) => wake,
            None => {
                let wake = EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK).map_err(failed("eventfd(2)"))?;
                WAKE.get_or_init(|| wake)
            }
        };
        action::ignore(libc::SIGXFSZ).map_err(failed("sigaction(2)"))?;
        for signal in STOP.into_iter().chain(FATAL).chain([libc::SIGWINCH]).chain(SIGRTMIN()..=SIGRTMAX()) {
            action::handle(signal).map_err(failed("sigaction(2)"))?;
        }
        raise_pending_limit();
        Ok(Signals { wake })
    }

    /// Makes stop signals requests, which [`take_pending`](Self::take_pending) returns, until the result is dropped. After that they
    /// end the process immediately again, and if there was one before, the process has a few seconds left.
    pub fn stops_are_requests(&self) -> impl Drop + use<> {
        struct Requests;
        impl Drop for Requests {
            fn drop(&mut self) {
                IS_REQUEST.store(false, Ordering::SeqCst);
                if OVERDUE.load(Ordering::SeqCst) != 0 {
                    action::alarm(END_TIMEOUT);
                }
            }
        }
        IS_REQUEST.store(true, Ordering::SeqCst);
        Requests
    }

    /// Takes the last stop signal that was received. `None` if there was none since the last call.
    pub fn take_pending(&mut self) -> Option<u8> {
        // An error means that it was read already.
        let _ = self.wake.read();
        Some(REQUESTED.swap(0, Ordering::SeqCst)).filter(|&signal| signal != 0)
    }

    /// Whether the terminal was resized since the last call. Call it after [`take_pending`](Self::take_pending), which clears the event.
    pub fn take_resized(&mut self) -> bool {
        RESIZED.swap(false, Ordering::SeqCst)
    }
}

impl AsRawFd for Signals {
    /// Readable if a signal may be pending.
    fn as_raw_fd(&self) -> RawFd {
        self.wake.as_raw_fd()
    }
}

/// The kernels before 6.12 (since 5.14) deliver a signal without its siginfo, so without the address of a memory error, if the user
/// has more signals pending than this limit.
fn raise_pending_limit() {
    let Rlimit { current, maximum } = getrlimit(Resource::Sigpending);
    if current.is_none_or(|current| current >= MIN_PENDING) {
        return;
    }
    // Lowers nothing: the maximum is never less.
    let _ = setrlimit(Resource::Sigpending, Rlimit { current: maximum, maximum });
    if let Some(limit) = maximum.filter(|maximum| *maximum < MIN_PENDING) {
        tracing::warn!(
            limit,
            "RLIMIT_SIGPENDING is less than {MIN_PENDING}: the host's kernel may drop the address of a memory error, which then ends the \
             machine; raise it with `ulimit -i`"
        );
    }
}

/// Undoes what outlives this process: the terminal's mode and the files of its sockets. Async-signal-safe.
pub(crate) fn clean_up_in_signal_handler() {
    console::restore_terminal_in_signal_handler();
    socket_file::remove_all_in_signal_handler();
}

/// What a handler does when it returns.
enum After {
    /// The interrupted code continues.
    Continue,
    /// The process ends with this status.
    Exit(i32),
    /// The signal has its default effect.
    Default,
}

/// Handles a signal. Async-signal-safe: atomics, and system calls that do not wait.
fn on_signal(signal: i32) -> After {
    let number = u8::try_from(signal).unwrap_or(u8::MAX);
    let overdue = OVERDUE.load(Ordering::SeqCst);
    let is_request = IS_REQUEST.load(Ordering::SeqCst);
    if STOP.contains(&signal) && is_request {
        if OVERDUE.compare_exchange(0, number, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
            action::alarm(STOP_TIMEOUT);
        }
        REQUESTED.store(number, Ordering::SeqCst);
        wake();
        return After::Continue;
    }
    if signal == libc::SIGWINCH {
        RESIZED.store(true, Ordering::SeqCst);
        wake();
        return After::Continue;
    }
    clean_up_in_signal_handler();
    if signal == libc::SIGALRM && overdue != 0 {
        fatal_signal::report_overdue_stop(overdue);
        return After::Exit(128 + i32::from(overdue));
    }
    fatal_signal::report_stop(number);
    if STOP.contains(&signal) { After::Exit(128 + signal) } else { After::Default }
}

/// Has the main thread look. Async-signal-safe.
fn wake() {
    if let Some(wake) = WAKE.get() {
        // Fails only if the counter would overflow.
        let _ = wake.write(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_signal_is_taken_once() {
        let mut signals = Signals::install().expect("handlers");
        let requests = signals.stops_are_requests();
        assert_eq!(signals.take_pending(), None);
        vmm_sys_util::signal::Killable::kill(&std::thread::spawn(std::thread::park), libc::SIGHUP)
            .expect("a signal to a thread");
        while signals.take_pending() != Some(libc::SIGHUP as u8) {
            std::thread::yield_now();
        }
        assert_eq!(signals.take_pending(), None);
        // The test process is not ended by it.
        drop(requests);
        action::alarm(Duration::ZERO);
    }

    #[test]
    fn every_signal_that_ends_a_process_is_handled_or_excepted() {
        // signal(7): those whose default action is Ign, Stop or Cont, and those that cannot be handled.
        let others = [
            libc::SIGCHLD,
            libc::SIGURG,
            libc::SIGWINCH,
            libc::SIGSTOP,
            libc::SIGTSTP,
            libc::SIGTTIN,
            libc::SIGTTOU,
            libc::SIGCONT,
            libc::SIGKILL,
        ];
        let excepted = [libc::SIGBUS, libc::SIGPIPE, libc::SIGXFSZ];
        let mut all = [&STOP[..], &FATAL, &others, &excepted].concat();
        all.sort_unstable();
        assert_eq!(all, (1..=libc::SIGSYS).collect::<Vec<_>>());
    }
}
