//! The console of the profile that is on standard input and output, in place of the serial port.

use std::io;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};

use devices::kind::Backend;
#[cfg(feature = "virtio-console")]
use devices::virtio_console::ConsoleBackend;
use devices::{ConsolePort, ConsoleSize};

use crate::console::{self, Output, StreamInput, StreamOutput};

/// The console.
pub(super) struct Terminal {
    /// What the guest writes and reads. It does not block.
    stream: UnixStream,
    size: ConsoleSize,
}

impl Terminal {
    /// Starts to pass on what the guest writes. Returns where its input goes, too.
    ///
    /// # Errors
    /// Returns an error if a descriptor or the thread cannot be created.
    pub(super) fn start(&self, output: Output) -> io::Result<(Arc<Mutex<dyn ConsolePort>>, StreamOutput)> {
        self.follow_size();
        let input = StreamInput::new(self.stream.try_clone()?)?;
        let output = StreamOutput::start(self.stream.try_clone()?, output)?;
        Ok((Arc::new(Mutex::new(input)), output))
    }

    /// Notifies the guest of the size of the terminal behind standard input, if there is one.
    pub(super) fn follow_size(&self) {
        if let Some((columns, rows)) = console::terminal_size() {
            self.size.set(columns, rows);
        }
    }
}

/// The console among the machine's devices that is the terminal. `None` if it is the serial port.
///
/// # Errors
/// Returns the error of dup(2).
#[cfg(feature = "virtio-console")]
pub(super) fn of(backends: &[Backend]) -> io::Result<Option<Terminal>> {
    let consoles = backends.iter().filter_map(|backend| backend.downcast_ref::<ConsoleBackend>());
    let mut terminals =
        consoles.filter_map(|console| Some((console.terminal()?.try_clone(), console.size()?.clone())));
    let Some((stream, size)) = terminals.next() else { return Ok(None) };
    Ok(Some(Terminal { stream: stream?, size }))
}

/// A build without consoles.
#[cfg(not(feature = "virtio-console"))]
pub(super) fn of(_: &[Backend]) -> io::Result<Option<Terminal>> {
    Ok(None)
}
