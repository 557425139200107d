//! The terminal in raw mode.

use std::io::stdin;
use std::sync::{Mutex, Once, PoisonError, TryLockError};

use rustix::termios::{OptionalActions, OutputModes, Termios, isatty, tcgetattr, tcgetpgrp, tcsetattr};

/// The terminal behind standard input, in raw mode for as long as this lives.
#[derive(Debug)]
pub(super) struct RawTerminal(());

/// How the terminal was before.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

impl RawTerminal {
    /// Enters raw mode, where standard input is a terminal and this process may read from it. Line ends that are
    /// written are still translated, so that logs stay readable.
    pub(super) fn enter() -> Option<Self> {
        let stdin = stdin();
        // In the background, changing a terminal's mode stops the process.
        let foreground = tcgetpgrp(&stdin).is_ok_and(|group| group == rustix::process::getpgrp());
        if !isatty(&stdin) || !foreground {
            return None;
        }
        let before = tcgetattr(&stdin).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        raw.output_modes |= OutputModes::OPOST | OutputModes::ONLCR;
        restore_on_panic();
        *BEFORE.lock().unwrap_or_else(PoisonError::into_inner) = Some(before);
        if tcsetattr(&stdin, OptionalActions::Drain, &raw).is_err() {
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

/// Puts the terminal back, once.
fn restore() {
    if let Some(before) = BEFORE.lock().unwrap_or_else(PoisonError::into_inner).take() {
        // There is nothing left to do where the terminal has gone.
        let _ = tcsetattr(stdin(), OptionalActions::Now, &before);
    }
}

/// Puts the terminal back from within a signal's handler, which cannot wait: whoever holds the lock is doing it.
pub(super) fn restore_in_a_handler() {
    let before = match BEFORE.try_lock() {
        Ok(before) => before,
        Err(TryLockError::Poisoned(before)) => before.into_inner(),
        Err(TryLockError::WouldBlock) => return,
    };
    if let Some(before) = before.as_ref() {
        let _ = tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, before);
    }
}

/// A panic on any thread puts the terminal back before its message is printed.
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
