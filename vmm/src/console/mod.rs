//! The guest's console on this process's standard input and output.
//!
//! - [`Output`] is the serial port's writer: a bounded queue that a thread of its own empties to standard output. When
//!   the reader is slow, the queue fills and the vCPU that writes waits.
//! - [`Input`] is a thread that gives standard input to the serial port, as fast as the guest takes it.
//! - Where standard input is a terminal, it is put into raw mode while the machine runs, so that every key reaches the
//!   guest, and `Ctrl-A` starts an escape. The terminal is as it was after every way out.

mod escape;
mod input;
mod output;
mod terminal;

use std::io;
use std::sync::Arc;

use vcpu::Control;

use crate::ras::inject::Schedule;

pub use input::Input;
pub use output::Output;
use output::Writer;
use terminal::RawTerminal;

/// Puts the terminal back from within the handler of a signal that the process does not survive.
pub fn put_back_in_a_handler() {
    terminal::restore_in_a_handler();
}

/// Standard output, and the terminal behind standard input, while a machine runs.
pub struct Console {
    writer: Writer,
    terminal: Option<RawTerminal>,
}

impl Console {
    /// Takes standard input and output. Output stops waiting for its reader once `control` says stop. `listener` hears all
    /// that the guest says.
    ///
    /// # Errors
    /// Where the writer's thread cannot be started.
    pub fn stdio(control: &Arc<Control>, listener: Arc<Schedule>) -> io::Result<Self> {
        Ok(Console { writer: Writer::start(control, listener)?, terminal: RawTerminal::enter() })
    }

    /// A writer for the guest's output.
    #[must_use]
    pub fn output(&self) -> Output {
        self.writer.output()
    }

    /// Writes what the guest has said so far, for as long as the reader takes it, and puts the terminal back.
    pub fn close(self) {
        self.writer.finish();
        drop(self.terminal);
    }
}
