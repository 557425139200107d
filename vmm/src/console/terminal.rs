//! The terminal in raw mode.

use std::io::stdin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Once, OnceLock};

use rustix::termios::{
    OptionalActions, OutputModes, Termios, isatty, tcgetattr, tcgetpgrp, tcgetwinsize, tcsetattr,
};
use vmm_sys_util::signal::block_signal;

/// The terminal behind standard input, in raw mode for as long as this lives.
#[derive(Debug)]
pub(super) struct RawTerminal(());

/// The terminal's mode when the process first changed it. Set once, so that a signal handler reads it without a lock.
static SAVED_MODE: OnceLock<Termios> = OnceLock::new();
/// Whether the terminal is in raw mode, or about to be.
static IS_RAW: AtomicBool = AtomicBool::new(false);

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
        let mut raw = SAVED_MODE.get_or_init(|| before).clone();
        raw.make_raw();
        raw.output_modes |= OutputModes::OPOST | OutputModes::ONLCR;
        restore_on_panic();
        IS_RAW.store(true, Ordering::SeqCst);
        // Not after the output is drained: a terminal whose output is stopped (Ctrl-S) would stop the start.
        if tcsetattr(&stdin, OptionalActions::Now, &raw).is_err() {
            restore();
            return None;
        }
        Some(RawTerminal(()))
    }
}

/// Columns and rows of the terminal behind standard input. `None` if there is none, or it has no size.
#[must_use]
pub fn size() -> Option<(u16, u16)> {
    let size = tcgetwinsize(stdin()).ok()?;
    (size.ws_col > 0 && size.ws_row > 0).then_some((size.ws_col, size.ws_row))
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        restore();
    }
}

/// Restores the terminal's mode.
fn restore() {
    // The process may be in the background by now: SIGTTOU would stop it here. An error means that the signal is blocked.
    let _ = block_signal(libc::SIGTTOU);
    restore_in_signal_handler();
    IS_RAW.store(false, Ordering::SeqCst);
}

/// Restores the terminal's mode in a signal handler, with SIGTTOU blocked.
pub(super) fn restore_in_signal_handler() {
    if let Some(before) = SAVED_MODE.get().filter(|_| IS_RAW.load(Ordering::SeqCst)) {
        // An error means that the terminal is gone.
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
