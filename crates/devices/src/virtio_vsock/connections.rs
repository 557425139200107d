//! The connections of a device: by token, by ports, and those that may have a packet for the guest.

use std::collections::{BTreeMap, VecDeque};

use super::connection::Connection;
use super::packet::{Header, Ports, RST};

/// Connections that exist at the same time.
pub const MAX_CONNECTIONS: usize = 256;
/// RSTs that wait for a buffer of the guest. While there are so many, no packet of the guest is taken (VIRTIO 1.2, 5.10.6.2).
pub(super) const MAX_RESETS: usize = 256;

/// Where the ports of the host's clients begin, as in Firecracker: the guest may take lower ones for well-known.
const FIRST_HOST_PORT: u32 = 1 << 30;
/// The last one.
const LAST_HOST_PORT: u32 = u32::MAX >> 1;

/// The connections of a device.
pub(super) struct Connections {
    cid: u32,
    by_token: BTreeMap<u32, Connection>,
    by_ports: BTreeMap<Ports, u32>,
    /// Tokens, each once, of connections that may have a packet for the guest. Some may have ended.
    queue: VecDeque<u32>,
    /// Packets that wait for a buffer of the guest, and belong to no connection. Connections that end add to them, one each: there are
    /// at most [`MAX_RESETS`] and [`MAX_CONNECTIONS`] together, since no connection becomes known to the guest while there are any.
    resets: VecDeque<Header>,
    next_host_port: u32,
}

impl Connections {
    pub(super) fn new(cid: u32) -> Self {
        Connections {
            cid,
            by_token: BTreeMap::new(),
            by_ports: BTreeMap::new(),
            queue: VecDeque::new(),
            resets: VecDeque::new(),
            next_host_port: FIRST_HOST_PORT,
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Connection)> {
        self.by_token.iter().map(|(&token, connection)| (token, connection))
    }

    pub(super) fn get(&mut self, token: u32) -> Option<&mut Connection> {
        self.by_token.get_mut(&token)
    }

    pub(super) fn token(&self, ports: Ports) -> Option<u32> {
        self.by_ports.get(&ports).copied()
    }

    pub(super) fn contains(&self, token: u32) -> bool {
        self.by_token.contains_key(&token)
    }

    /// Makes space for another connection, at the expense of one that only waits for the guest's RST. False if there is none.
    pub(super) fn make_space(&mut self) -> bool {
        if self.by_token.len() < MAX_CONNECTIONS {
            return true;
        }
        let closing = self.by_token.iter().find(|(_, connection)| connection.is_closing());
        let Some((&token, _)) = closing else { return false };
        self.reset(token);
        true
    }

    /// A port for a client of the host that connects to a port of the guest.
    pub(super) fn new_ports(&mut self, guest: u32) -> Ports {
        // There are far more ports than connections.
        loop {
            let ports = Ports { host: self.next_host_port, guest };
            self.next_host_port = if ports.host == LAST_HOST_PORT { FIRST_HOST_PORT } else { ports.host + 1 };
            if !self.by_ports.contains_key(&ports) {
                return ports;
            }
        }
    }

    /// Adds a connection whose token and ports are free.
    pub(super) fn insert(&mut self, token: u32, connection: Connection) {
        self.by_ports.insert(connection.ports, token);
        self.by_token.insert(token, connection);
        self.changed(token);
    }

    /// Ends a connection without a packet to the guest.
    pub(super) fn remove(&mut self, token: u32) -> Option<Connection> {
        let connection = self.by_token.remove(&token)?;
        // The guest may have used the ports of one that lingers again.
        if self.by_ports.get(&connection.ports) == Some(&token) {
            self.by_ports.remove(&connection.ports);
        }
        Some(connection)
    }

    /// The guest has ended a connection.
    pub(super) fn end_by_guest(&mut self, token: u32) {
        let Some(connection) = self.by_token.get_mut(&token) else { return };
        if connection.lingers() {
            self.by_ports.remove(&connection.ports);
        } else {
            self.remove(token);
        }
    }

    /// Ends a connection with RST, if the guest knows of it.
    pub(super) fn reset(&mut self, token: u32) {
        if let Some(connection) = self.remove(token).filter(Connection::is_known) {
            self.resets.push_back(Header::to_guest(self.cid, connection.ports, RST, 0));
        }
    }

    /// Queues the RST that answers a packet which belongs to no connection.
    pub(super) fn reject(&mut self, header: &Header) {
        self.resets.push_back(header.reset_of());
    }

    /// Whether no packet of the guest is taken.
    pub(super) fn is_congested(&self) -> bool {
        self.resets.len() >= MAX_RESETS
    }

    /// Something about a connection has changed: it ends, or is queued if it has a packet for the guest.
    pub(super) fn changed(&mut self, token: u32) {
        let Some(connection) = self.by_token.get_mut(&token) else { return };
        if connection.is_over() {
            self.reset(token);
        } else if !connection.is_queued && connection.next().is_some() {
            connection.is_queued = true;
            self.queue.push_back(token);
        }
    }

    /// The RST to send first.
    pub(super) fn first_reset(&self) -> Option<Header> {
        self.resets.front().copied()
    }

    pub(super) fn reset_was_sent(&mut self) {
        self.resets.pop_front();
    }

    /// The first connection that has a packet for the guest.
    pub(super) fn first_queued(&mut self) -> Option<(u32, &mut Connection)> {
        // Looked up twice: the borrow checker does not accept a reference that is returned from a loop.
        let token = loop {
            let token = *self.queue.front()?;
            if self.get(token).is_some_and(|connection| connection.next().is_some()) {
                break token;
            }
            self.unqueue();
        };
        Some((token, self.get(token)?))
    }

    /// The first connection of the queue has had its packet, or has none: it is queued behind the others if it has one.
    pub(super) fn unqueue(&mut self) {
        let Some(token) = self.queue.pop_front() else { return };
        if let Some(connection) = self.get(token) {
            connection.is_queued = false;
        }
        self.changed(token);
    }
}
