//! The terminal in raw mode.

use std::io::stdin;
use std::sync::{Mutex, Once, PoisonError, TryLockError};

use rustix::termios::{OptionalActions, OutputModes, Termios, isatty, tcgetattr, tcgetpgrp, tcsetattr};

/// The terminal behind standard input, in raw mode for as long as this lives.
#[derive(Debug)]
pub(super) struct RawTerminal(());

/// The terminal's mode before raw mode.
static SAVED_MODE: Mutex<Option<Termios>> = Mutex::new(None);

impl RawTerminal {
    /// Enters raw mode. Returns `None` if standard input is not a terminal, or this process is in its background. Line ends
    /// in the output are still translated, so that logs stay readable.
    pub(super) fn enter() -> Option<Self> {
        let stdin = stdin();
        // A background process that changes a terminal's mode is stopped by SIGTTOU.
        let foreground = tcgetpgrp(&stdin).is_ok_and(|group| group == rustix::process::getpgrp());
        if !isatty(&stdin) || !foreground {
            return None;
        }
        let before = tcgetattr(&stdin).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        raw.output_modes |= OutputModes::OPOST | OutputModes::ONLCR;
        restore_on_panic();
        *SAVED_MODE.lock().unwrap_or_else(PoisonError::into_inner) = Some(before);
        // Not `Drain`: a terminal whose output is stopped would keep the machine from its start.
        if tcsetattr(&stdin, OptionalActions::Now, &raw).is_err() {
            restore();
            return None;
        }
        Some(RawTerminal(()))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        restore();
    }
}

/// Restores the terminal's mode, once.
fn restore() {
    if let Some(before) = SAVED_MODE.lock().unwrap_or_else(PoisonError::into_inner).take() {
        // An error means that the terminal is gone.
        let _ = tcsetattr(stdin(), OptionalActions::Now, &before);
    }
}

/// Restores the terminal's mode in a signal handler, which must not wait for a lock: a thread that holds it is restoring the
/// mode itself.
pub(super) fn restore_in_signal_handler() {
    let before = match SAVED_MODE.try_lock() {
        Ok(before) => before,
        Err(TryLockError::Poisoned(before)) => before.into_inner(),
        Err(TryLockError::WouldBlock) => return,
    };
    if let Some(before) = before.as_ref() {
        let _ = tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, before);
    }
}

/// Makes a panic on any thread restore the terminal's mode before its message is printed.
fn restore_on_panic() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let print = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            restore();
            print(panic);
        }));
    });
}
