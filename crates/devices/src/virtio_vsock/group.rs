//! The device's thread: the three queues, the clients of the host, and the sockets of the connections.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};
use zerocopy::little_endian::U32;
use zerocopy::{FromZeros, IntoBytes};

use super::client::{Asked, Client};
use super::connection::{Connection, Next};
use super::connections::Connections;
use super::host::HostSocket;
use super::packet::{
    CREDIT_REQUEST, CREDIT_UPDATE, HEADER_LEN, HOST_CID, Header, REQUEST, RESPONSE, RST, RW, SHUTDOWN, STREAM,
};
use super::{EVENT_QUEUE, RX_QUEUE, SCRATCH_LEN, TX_QUEUE};
use crate::accept_pause::AcceptPause;
use crate::virtio::{GroupContext, QueueGroup, Request, ServeError, Taken};

/// Clients that have not said which port they want. The oldest one gives place to another one.
pub const MAX_CLIENTS: usize = 64;
/// Packets of one direction, and clients, that are handled before the others get their turn.
const BATCH: usize = 64;

/// Tokens of the thread's own descriptors. Those of clients and connections follow.
const LISTENER: u32 = 0;
const AGAIN: u32 = 1;
const ACCEPT_AGAIN: u32 = 2;
const FIRST_TOKEN: u32 = 3;

/// VIRTIO_VSOCK_EVENT_TRANSPORT_RESET (VIRTIO 1.2, 5.10.6.7).
const TRANSPORT_RESET: u32 = 0;

pub(super) struct VsockGroup {
    cid: u32,
    host: Arc<HostSocket>,
    /// Signalled when a batch has ended and there is more to do.
    again: EventFd,
    /// From the oldest to the newest, but for tokens that start again.
    clients: BTreeMap<u32, Client>,
    connections: Connections,
    next_token: u32,
    /// Whether the driver is to be notified that its connections are gone.
    is_interrupted: bool,
    /// Whether packets of the guest were left in their queue.
    is_held: bool,
    accept_pause: AcceptPause,
    scratch: Box<[u8]>,
}

impl VsockGroup {
    /// # Errors
    /// Returns the error of eventfd(2) or timerfd_create(2).
    pub(super) fn new(cid: u32, host: Arc<HostSocket>) -> io::Result<Self> {
        Ok(VsockGroup {
            cid,
            is_interrupted: host.activate(),
            host,
            again: EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK)?,
            clients: BTreeMap::new(),
            connections: Connections::new(cid),
            next_token: FIRST_TOKEN,
            is_held: false,
            accept_pause: AcceptPause::new()?,
            scratch: vec![0; SCRATCH_LEN].into(),
        })
    }

    /// A token that nothing has. It is not used again soon: an event of an earlier descriptor may be on its way.
    fn new_token(&mut self) -> u32 {
        loop {
            let token = self.next_token;
            self.next_token = token.checked_add(1).unwrap_or(FIRST_TOKEN);
            if !self.clients.contains_key(&token) && !self.connections.contains(token) {
                return token;
            }
        }
    }

    /// Has the thread called again, after it has looked at the other descriptors.
    fn call_again(&self) {
        // Fails only if the counter would overflow.
        let _ = self.again.write(1);
    }

    fn accept(&mut self, context: &mut GroupContext<'_>) -> Result<(), ServeError> {
        for _ in 0..BATCH {
            match self.host.accept() {
                Ok(Some(socket)) => {
                    let token = self.new_token();
                    let client = Client(socket);
                    context.watch(&client, token, EventSet::IN | EventSet::EDGE_TRIGGERED)?;
                    if self.clients.len() >= MAX_CLIENTS {
                        self.clients.pop_first();
                    }
                    self.clients.insert(token, client);
                    self.client_ready(token, context)?;
                }
                Ok(None) => break,
                Err(error) => {
                    context.unwatch(&*self.host)?;
                    self.accept_pause.begin("virtio-vsock", error)?;
                    break;
                }
            }
        }
        Ok(())
    }

    fn client_ready(&mut self, token: u32, context: &mut GroupContext<'_>) -> Result<(), ServeError> {
        let Some(client) = self.clients.get(&token) else { return Ok(()) };
        let asked = client.read();
        if asked == Asked::Incomplete {
            return Ok(());
        }
        let Some(client) = self.clients.remove(&token) else { return Ok(()) };
        if let (Asked::Port(port), true) = (asked, self.connections.make_space()) {
            let ports = self.connections.new_ports(port);
            context.rewatch(&client, token, SOCKET_EVENTS)?;
            self.connections.insert(token, Connection::to_guest(ports, client.0));
        }
        Ok(())
    }

    /// Takes packets of the guest.
    fn take_packets(&mut self, context: &mut GroupContext<'_>) -> Result<(), ServeError> {
        self.is_held = false;
        context.suppress_notifications(TX_QUEUE)?;
        let mut left = BATCH;
        loop {
            if left == 0 || self.connections.is_congested() {
                self.is_held = true;
                break;
            }
            left -= 1;
            match context.pop(TX_QUEUE)? {
                Some(Taken { head, request }) => {
                    self.packet(request, context)?;
                    context.add_used(TX_QUEUE, head, 0)?;
                }
                None if context.request_notifications(TX_QUEUE)? => {}
                None => break,
            }
        }
        context.notify_driver(TX_QUEUE)
    }

    /// Handles a packet of the guest.
    fn packet(&mut self, mut request: Request<'_>, context: &mut GroupContext<'_>) -> Result<(), ServeError> {
        let mut header = Header::new_zeroed();
        if let Err(error) = request.readable.read(header.as_mut_bytes()) {
            tracing::debug!(%error, "a packet of virtio-vsock has no header");
            return Ok(());
        }
        // Nobody can answer it.
        if header.src_cid.get() != u64::from(self.cid) {
            return Ok(());
        }
        let is_ours = header.dst_cid.get() == HOST_CID && header.kind.get() == STREAM;
        let token = self.connections.token(header.ports()).filter(|_| is_ours);
        match (header.op.get(), token) {
            (RST, token) => {
                if let Some(token) = token {
                    self.connections.end_by_guest(token);
                }
            }
            (REQUEST, None) if is_ours => self.connect(&header, context)?,
            (op, Some(token)) => self.of_connection(op, token, &header, request),
            (_, None) => self.connections.reject(&header),
        }
        Ok(())
    }

    /// The guest connects to a port of the host.
    fn connect(&mut self, header: &Header, context: &mut GroupContext<'_>) -> Result<(), ServeError> {
        let ports = header.ports();
        let socket: Result<OwnedFd, io::Error> = if self.connections.make_space() {
            self.host.connect(ports.host).map_err(io::Error::from)
        } else {
            Err(io::ErrorKind::QuotaExceeded.into())
        };
        match socket {
            Ok(socket) => {
                let token = self.new_token();
                let mut connection = Connection::from_guest(ports, socket);
                connection.update_credit(header);
                context.watch(&connection, token, SOCKET_EVENTS)?;
                self.connections.insert(token, connection);
            }
            Err(error) => {
                tracing::debug!(port = ports.host, %error, "a connection of the guest is refused");
                self.connections.reject(header);
            }
        }
        Ok(())
    }

    /// Handles a packet of a connection.
    fn of_connection(&mut self, op: u16, token: u32, header: &Header, request: Request<'_>) {
        let Some(connection) = self.connections.get(token) else { return };
        connection.update_credit(header);
        let mut data = request.readable;
        let outcome = match op {
            RESPONSE => connection.accepted(),
            RW => connection.receive(header.len.get(), &mut data, &mut self.scratch),
            SHUTDOWN => {
                connection.guest_shuts_down(header.flags.get());
                Ok(())
            }
            CREDIT_REQUEST => {
                connection.request_update();
                Ok(())
            }
            CREDIT_UPDATE => Ok(()),
            // A second REQUEST, or an operation that is not defined.
            _ => Err(super::connection::Broken::Unexpected),
        };
        match outcome {
            Ok(()) => self.connections.changed(token),
            Err(error) => {
                tracing::debug!(%error, "a connection of virtio-vsock is reset");
                self.connections.reset(token);
            }
        }
    }

    /// Sends packets to the guest, as far as it has made buffers available.
    fn send_packets(&mut self, context: &mut GroupContext<'_>) -> Result<(), ServeError> {
        let mut left = BATCH;
        while self.send_packet(context)? {
            left -= 1;
            if left == 0 {
                self.call_again();
                break;
            }
        }
        context.notify_driver(RX_QUEUE)?;
        if self.is_held && !self.connections.is_congested() {
            self.call_again();
        }
        Ok(())
    }

    /// Sends a packet. False if there is none, or the guest has made no buffer available.
    fn send_packet(&mut self, context: &mut GroupContext<'_>) -> Result<bool, ServeError> {
        if let Some(header) = self.connections.first_reset() {
            let Some(buffer) = context.pop_or_request(RX_QUEUE)? else { return Ok(false) };
            if fill(buffer, &header, &[], context)? {
                self.connections.reset_was_sent();
            }
            return Ok(true);
        }
        let cid = self.cid;
        let Some((token, connection)) = self.connections.first_queued() else { return Ok(false) };
        let Some(buffer) = context.pop_or_request(RX_QUEUE)? else { return Ok(false) };
        let (op, flags, data): (_, _, &[u8]) = match connection.next() {
            Some(Next::Packet(op, flags)) => (op, flags, &[]),
            Some(Next::Data(credit)) => {
                let space = buffer.request.writable.len().saturating_sub(HEADER_LEN as u64);
                let len = space.min(credit.into()).min(SCRATCH_LEN as u64) as usize;
                let len = if len == 0 { 0 } else { connection.read(&mut self.scratch[..len]) };
                if len == 0 && space > 0 {
                    context.unpop(RX_QUEUE, 1);
                    self.connections.unqueue();
                    return Ok(true);
                }
                (RW, 0, &self.scratch[..len])
            }
            None => (CREDIT_UPDATE, 0, &[]),
        };
        let mut header = Header::to_guest(cid, connection.ports, op, flags);
        header.len = U32::new(data.len() as u32);
        connection.complete(&mut header);
        if fill(buffer, &header, data, context)? {
            connection.was_sent(op, flags, data.len() as u32);
            self.connections.unqueue();
        } else if !data.is_empty() {
            // The bytes have left the socket: the stream would have a hole.
            self.connections.reset(token);
        }
        Ok(true)
    }

    fn send_event(&mut self, context: &mut GroupContext<'_>) -> Result<(), ServeError> {
        while self.is_interrupted {
            let Some(Taken { head, mut request }) = context.pop(EVENT_QUEUE)? else { break };
            let event = U32::new(TRANSPORT_RESET);
            let is_written = request.writable.write(event.as_bytes()).is_ok();
            self.is_interrupted = !is_written;
            context.add_used(EVENT_QUEUE, head, if is_written { size_of::<U32>() as u32 } else { 0 })?;
        }
        context.notify_driver(EVENT_QUEUE)
    }
}

/// The events of a connection's socket. Edge-triggered: what cannot be handled for now does not wake the thread again.
pub(super) const SOCKET_EVENTS: EventSet =
    EventSet::IN.union(EventSet::OUT).union(EventSet::READ_HANG_UP).union(EventSet::EDGE_TRIGGERED);

/// Returns a buffer to the guest with a packet. False if it cannot be written: the guest gets it back without one.
fn fill(
    buffer: Taken<'_>,
    header: &Header,
    data: &[u8],
    context: &mut GroupContext<'_>,
) -> Result<bool, ServeError> {
    let Taken { head, request: Request { mut writable, .. } } = buffer;
    let outcome = writable.write(header.as_bytes()).and_then(|()| writable.write(data));
    if let Err(error) = &outcome {
        tracing::debug!(%error, "a buffer of the guest cannot be written");
    }
    let len = if outcome.is_ok() { HEADER_LEN + data.len() } else { 0 };
    context.add_used(RX_QUEUE, head, len as u32)?;
    Ok(outcome.is_ok())
}

impl QueueGroup for VsockGroup {
    fn start(&mut self, context: &mut GroupContext<'_>) -> Result<(), ServeError> {
        context.watch(&self.again, AGAIN, EventSet::IN)?;
        context.watch(&*self.host, LISTENER, EventSet::IN)?;
        context.watch(&self.accept_pause, ACCEPT_AGAIN, EventSet::IN)?;
        // The listener is watched now.
        self.accept_pause.end()?;
        for (&token, client) in &self.clients {
            context.watch(client, token, EventSet::IN | EventSet::EDGE_TRIGGERED)?;
        }
        for (token, connection) in self.connections.iter() {
            context.watch(connection, token, SOCKET_EVENTS)?;
        }
        Ok(())
    }

    fn available(&mut self, queue: u16, context: &mut GroupContext<'_>) -> Result<(), ServeError> {
        match queue {
            EVENT_QUEUE => return self.send_event(context),
            TX_QUEUE => self.take_packets(context)?,
            _ => {}
        }
        self.send_packets(context)
    }

    fn ready(
        &mut self,
        token: u32,
        events: EventSet,
        context: &mut GroupContext<'_>,
    ) -> Result<(), ServeError> {
        match token {
            LISTENER => self.accept(context)?,
            ACCEPT_AGAIN => {
                self.accept_pause.end()?;
                context.watch(&*self.host, LISTENER, EventSet::IN)?;
            }
            AGAIN => {
                // Never blocks: EAGAIN if the count is 0.
                let _ = self.again.read();
                if self.is_held {
                    self.take_packets(context)?;
                }
            }
            token if self.clients.contains_key(&token) => self.client_ready(token, context)?,
            token => {
                if let Some(connection) = self.connections.get(token) {
                    connection.ready(events);
                    self.connections.changed(token);
                }
            }
        }
        self.send_packets(context)
    }
}
