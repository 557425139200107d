//! The size of the terminal of a running machine's console, for the control socket.

use std::num::NonZeroU16;

use devices::ConsoleSize;
use devices::kind::Backend;
#[cfg(feature = "virtio-console")]
use devices::virtio_console::ConsoleBackend;

use super::device_choice::{ChoiceError, Subject, choose};

const SUBJECT: Subject = Subject {
    noun: "console with a size",
    plural: "consoles",
    section: "of type `virtio-console` with a `socket`",
};

/// Sets the size of the console at a position among the profile's devices, or of the only one.
///
/// # Errors
/// Returns an error if there is no such console, or one of several is to be chosen.
pub(super) fn set(
    backends: &[Backend],
    columns: NonZeroU16,
    rows: NonZeroU16,
    device: Option<usize>,
) -> Result<(), ChoiceError> {
    let consoles = backends.iter().enumerate().filter_map(|(at, backend)| Some((at, size(backend)?)));
    choose(SUBJECT, consoles, device)?.set(columns.get(), rows.get());
    Ok(())
}

#[cfg(feature = "virtio-console")]
fn size(backend: &Backend) -> Option<&ConsoleSize> {
    backend.downcast_ref::<ConsoleBackend>()?.size()
}

/// A build without consoles.
#[cfg(not(feature = "virtio-console"))]
fn size(_: &Backend) -> Option<&ConsoleSize> {
    None
}
