//! What the guest and the host know of each other's end of a named port.
//!
//! Control messages to the guest follow from this state, one after the other: however many a guest provokes, none is queued.

use super::control::{PORT_ADD, PORT_NAME, PORT_OPEN};

/// The link of a port to its driver.
#[derive(Debug, Default)]
pub(super) struct Link {
    /// The driver is to be notified that the port exists; of its name.
    add_due: bool,
    name_due: bool,
    /// The driver has the port.
    is_ready: bool,
    /// The driver has been notified that the host's end is open.
    is_announced: bool,
    /// The host's end was closed since. Another client may have come already.
    close_due: bool,
    /// The guest's end is open.
    is_open: bool,
}

impl Link {
    /// The driver is ready for ports.
    pub(super) fn device_ready(&mut self) {
        self.add_due = true;
    }

    /// The driver has the port, or could not add it.
    pub(super) fn port_ready(&mut self, is_ready: bool) {
        *self = Link {
            add_due: self.add_due,
            is_open: self.is_open,
            is_ready,
            name_due: is_ready,
            ..Link::default()
        };
    }

    /// The guest has opened or closed its end.
    pub(super) fn guest_open(&mut self, is_open: bool) {
        self.is_open = is_open;
    }

    /// The host's end was closed.
    pub(super) fn host_closed(&mut self) {
        self.close_due = self.is_announced;
    }

    /// Whether the guest's end is open.
    pub(super) fn is_guest_open(&self) -> bool {
        self.is_open
    }

    /// Whether both ends are open and know it.
    pub(super) fn is_open(&self) -> bool {
        self.is_open && self.is_announced && !self.close_due
    }

    /// The event and value of the next message to the driver.
    pub(super) fn next(&self, has_client: bool) -> Option<(u16, bool)> {
        match () {
            () if self.add_due => Some((PORT_ADD, true)),
            () if self.name_due => Some((PORT_NAME, true)),
            () if self.close_due => Some((PORT_OPEN, false)),
            () if self.is_ready && has_client && !self.is_announced => Some((PORT_OPEN, true)),
            () => None,
        }
    }

    /// The message was sent.
    pub(super) fn sent(&mut self, event: u16, value: bool) {
        match event {
            PORT_ADD => self.add_due = false,
            PORT_NAME => self.name_due = false,
            _ => (self.is_announced, self.close_due) = (value, false),
        }
    }
}
