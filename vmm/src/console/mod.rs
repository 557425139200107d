//! The guest's console on this process's standard input and output.
//!
//! - [`Output`] is what the serial port writes to: a bounded queue that a thread drains to standard output. If the reader is
//!   slow, the queue fills and the vCPU that writes waits.
//! - [`Input`] is a thread that feeds standard input to the serial port, as fast as the guest reads it.
//! - A virtio console can take the serial port's place: [`StreamInput`] and [`StreamOutput`] are the other end of its stream.
//! - If standard input is a terminal, it is in raw mode while the machine runs, so that every key reaches the guest, and
//!   `Ctrl-A` starts an escape sequence. The terminal's mode is restored however the process ends.
//! - A [`ConsoleObserver`] sees all output of the guest.

mod escape;
mod input;
mod output;
mod stream;
mod terminal;

use std::io;
use std::sync::Arc;

use vcpu::Control;

pub use input::Input;
pub use output::Output;
use output::Writer;
pub use stream::{StreamInput, StreamOutput};
use terminal::RawTerminal;
pub use terminal::size as terminal_size;

/// Sees what the guest writes to its console.
pub trait ConsoleObserver: Send + Sync {
    /// The guest writes these bytes. They need not be whole lines, nor UTF-8. Called on the vCPU's thread, before the bytes
    /// are queued: it must not block.
    fn output(&self, bytes: &[u8]);
}

/// Restores the terminal's mode in the handler of a signal that ends the process. Async-signal-safe.
pub fn restore_terminal_in_signal_handler() {
    terminal::restore_in_signal_handler();
}

/// Standard output, and the terminal behind standard input, while a machine runs.
pub struct Console {
    writer: Writer,
    terminal: Option<RawTerminal>,
}

impl Console {
    /// Takes over standard input and output. Once `control` requests a stop, a vCPU no longer waits for a slow reader.
    ///
    /// # Errors
    /// Returns an error if the writer's thread cannot be started.
    pub fn stdio(control: &Arc<Control>, observer: Arc<dyn ConsoleObserver>) -> io::Result<Self> {
        Ok(Console { writer: Writer::start(control, observer)?, terminal: RawTerminal::enter() })
    }

    /// A writer for the guest's output. All of them share one queue.
    #[must_use]
    pub fn output(&self) -> Output {
        self.writer.output()
    }

    /// Writes what is queued, unless the reader takes nothing for two seconds, and restores the terminal's mode.
    pub fn close(self) {
        self.writer.finish();
        drop(self.terminal);
    }
}

/// The serial port's writer moves to the vCPU threads.
const _: () = {
    const fn is_send<T: Send>() {}
    is_send::<Output>();
    is_send::<Console>();
};
