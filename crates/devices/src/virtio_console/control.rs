//! Control messages (VIRTIO 1.2, 5.3.6.2).

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// `struct virtio_console_control` (VIRTIO 1.2, 5.3.6.2).
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub(super) struct Message {
    /// The number of the port.
    pub(super) id: U32,
    pub(super) event: U16,
    pub(super) value: U16,
}

const _: () = assert!(size_of::<Message>() == 8);

// `event` (VIRTIO 1.2, 5.3.6.2).
pub(super) const DEVICE_READY: u16 = 0;
/// VIRTIO_CONSOLE_DEVICE_ADD.
pub(super) const PORT_ADD: u16 = 1;
pub(super) const PORT_READY: u16 = 3;
pub(super) const PORT_OPEN: u16 = 6;
/// The name of the port follows, without a NUL.
pub(super) const PORT_NAME: u16 = 7;

impl Message {
    pub(super) fn new(port: u32, event: u16, value: bool) -> Self {
        Message { id: U32::new(port), event: U16::new(event), value: U16::new(value.into()) }
    }
}
