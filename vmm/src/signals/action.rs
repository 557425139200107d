//! sigaction(2): the handler of this process's signals.
#![expect(unsafe_code, reason = "signal handlers are installed")]

use std::io;
use std::sync::OnceLock;
use std::time::Duration;

use super::{After, on_signal};

/// The action of SIGSEGV before: the standard library reports an overflow of a thread's stack there.
static FAULT: OnceLock<libc::sigaction> = OnceLock::new();

/// Installs the handler for a signal, unless the signal is ignored; for SIGALRM in any case.
pub(super) fn handle(signal: i32) -> io::Result<()> {
    let before = current(signal)?;
    // SIGALRM limits the time of a stop, whatever the parent did with it.
    if before.sa_sigaction == libc::SIG_IGN && signal != libc::SIGALRM {
        return Ok(());
    }
    if signal == libc::SIGSEGV {
        // An error means that the handler was installed before.
        let _ = FAULT.set(before);
    }
    let handler: extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void) = handler;
    let mut action = default_action();
    action.sa_sigaction = handler as usize;
    // Threads of the standard library have an alternate signal stack. Interrupted system calls are restarted.
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESTART;
    // SAFETY: the pointer is to a local. All signals wait while the handler runs, SIGTTOU too, which tcsetattr(3) would raise.
    unsafe { libc::sigfillset(&raw mut action.sa_mask) };
    set(signal, &action)
}

/// Ignores a signal.
pub(super) fn ignore(signal: i32) -> io::Result<()> {
    let mut action = default_action();
    action.sa_sigaction = libc::SIG_IGN;
    set(signal, &action)
}

/// Requests a SIGALRM after whole seconds; of none, cancels the request.
pub(super) fn alarm(after: Duration) {
    // SAFETY: the system call takes a number.
    unsafe { libc::alarm(u32::try_from(after.as_secs()).unwrap_or(u32::MAX)) };
}

extern "C" fn handler(signal: i32, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the C library returns this thread's errno, which nothing else accesses while the handler runs.
    let errno = unsafe { &mut *libc::__errno_location() };
    let before = *errno;
    // SAFETY: with SA_SIGINFO the kernel passes a siginfo_t, which belongs to the handler while it runs.
    let is_fault = signal == libc::SIGSEGV && unsafe { (*info).si_code } > 0;
    match on_signal(signal) {
        After::Continue => {}
        // SAFETY: _exit(2) is async-signal-safe and does not return.
        After::Exit(status) => unsafe { libc::_exit(status) },
        // The instruction faults again when this returns. Nothing can be done about an error of either call.
        After::Default if is_fault => drop(set(signal, FAULT.get().unwrap_or(&default_action()))),
        After::Default => {
            let _ = set(signal, &default_action());
            // SAFETY: async-signal-safe. The signal, which is masked, takes effect when the handler returns.
            unsafe { libc::raise(signal) };
        }
    }
    *errno = before;
}

fn default_action() -> libc::sigaction {
    // SAFETY: a plain C structure for which all zeros are a valid value: SIG_DFL, no flags, an empty mask.
    unsafe { std::mem::zeroed() }
}

fn current(signal: i32) -> io::Result<libc::sigaction> {
    let mut action = default_action();
    // SAFETY: the pointer is to a local, and no action is set.
    outcome(unsafe { libc::sigaction(signal, std::ptr::null(), &raw mut action) }).map(|()| action)
}

/// Async-signal-safe.
fn set(signal: i32, action: &libc::sigaction) -> io::Result<()> {
    // SAFETY: the action is the default one, SIG_IGN, one that was set before, or `handler`, which is async-signal-safe.
    outcome(unsafe { libc::sigaction(signal, action, std::ptr::null_mut()) })
}

fn outcome(returned: i32) -> io::Result<()> {
    if returned == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
