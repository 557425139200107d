//! A port: its two queues, its socket and its client.

use std::sync::Arc;

use rustix::io::Errno;
use vmm_sys_util::epoll::EventSet;

use super::client::{Client, EVENTS};
use super::link::Link;
use super::{PortSocket, queues};
use crate::virtio::{Buffers, DeviceMemory, GroupContext, Request, ServeError, Taken};

/// A port of an active device.
pub(super) struct Port {
    number: usize,
    /// `None` for port 0 of a device with named ports, which does not exist: a driver that does not know named ports takes it for a
    /// console.
    socket: Option<Arc<PortSocket>>,
    /// `None` for a console.
    pub(super) name: Option<String>,
    pub(super) link: Link,
    client: Option<Client>,
    client_token: u32,
    /// Bytes of the next chain of the transmit queue that the client has got already.
    taken: u64,
    /// Whether the socket's clients are watched.
    is_listening: bool,
    /// Whether the guest has opened or closed its end since the port was served.
    is_changed: bool,
}

/// The most bytes that are taken of one chain before others get their turn.
const MAX_TAKEN: usize = 256 << 10;

/// How far a chain of the guest was taken.
enum Progress {
    /// All of it was taken or dropped.
    Complete,
    /// The rest is taken in the next turn.
    Partial,
    /// The client does not read.
    Blocked,
}

impl Port {
    /// A console, or, with a name, a named port. It takes over the client of the device before.
    pub(super) fn new(number: usize, name: Option<String>, socket: Option<Arc<PortSocket>>) -> Self {
        let client = socket.as_ref().and_then(|socket| socket.exchange(None));
        Port {
            number,
            socket,
            name,
            link: Link::default(),
            client,
            client_token: 0,
            taken: 0,
            is_listening: false,
            is_changed: false,
        }
    }

    pub(super) fn exists(&self) -> bool {
        self.socket.is_some()
    }

    pub(super) fn has_client(&self) -> bool {
        self.client.is_some()
    }

    /// The thread starts: nothing is watched. `client_token` is that of the client, if there is one.
    pub(super) fn start(&mut self, client_token: u32, context: &GroupContext<'_>) -> Result<(), ServeError> {
        self.is_listening = false;
        self.client_token = client_token;
        if let Some(client) = &self.client {
            context.watch(client, client_token, EVENTS)?;
        }
        Ok(())
    }

    /// A queue was stopped.
    pub(super) fn stopped(&mut self, queue: u16) {
        if queue == queues(self.number).1 {
            self.taken = 0;
        }
    }

    /// The client's socket is ready, if it has this token. Returns whether it has.
    pub(super) fn client_ready(&mut self, token: u32, events: EventSet) -> bool {
        let client = self.client.as_mut().filter(|_| self.client_token == token);
        client.map(|client| client.ready(events)).is_some()
    }

    /// Accepts a client in place of one that is gone. `None` if there is none.
    ///
    /// # Errors
    /// Returns the error of accept(2).
    pub(super) fn accept(&self) -> Result<Option<Client>, Errno> {
        let socket = self.socket.as_ref().filter(|_| self.may_accept());
        let socket = socket.map_or(Ok(None), |socket| socket.accept())?;
        Ok(socket.map(Client::new))
    }

    /// Connects a client that was accepted.
    pub(super) fn connect(
        &mut self,
        client: Client,
        token: u32,
        context: &GroupContext<'_>,
    ) -> Result<(), ServeError> {
        self.disconnect();
        context.watch(&client, token, EVENTS)?;
        (self.client, self.client_token) = (Some(client), token);
        Ok(())
    }

    fn may_accept(&self) -> bool {
        self.client.as_ref().is_none_or(Client::is_gone)
    }

    /// Watches the listener while a client may be accepted, but for a pause: others wait in its backlog.
    pub(super) fn listen(
        &mut self,
        token: u32,
        is_paused: bool,
        context: &GroupContext<'_>,
    ) -> Result<(), ServeError> {
        let Some(listener) = self.socket.as_ref().and_then(|socket| socket.listener()) else { return Ok(()) };
        let wants = self.may_accept() && !is_paused;
        match (wants, self.is_listening) {
            (true, false) => context.watch(listener, token, EventSet::IN)?,
            (false, true) => context.unwatch(listener)?,
            _ => {}
        }
        self.is_listening = wants;
        Ok(())
    }

    fn disconnect(&mut self) {
        if let Some(mut client) = self.client.take() {
            client.flush();
            self.link.host_closed();
        }
    }

    /// Whether the guest takes what the client sends.
    fn is_readable(&self) -> bool {
        self.name.is_none() || self.link.is_open()
    }

    fn disconnect_if_over(&mut self) {
        // Nobody in the guest waits for what a client has sent that is gone.
        let is_closed = self.name.is_some() && !self.link.is_guest_open();
        let is_over = |client: &Client| client.is_over() || client.is_gone() && is_closed;
        if self.client.as_ref().is_some_and(is_over) {
            self.disconnect();
        }
    }

    /// The guest has opened or closed its end.
    pub(super) fn guest_open(&mut self, is_open: bool) {
        self.link.guest_open(is_open);
        self.is_changed = true;
    }

    pub(super) fn is_changed(&self) -> bool {
        self.is_changed
    }

    /// Does what can be done now in both directions. Returns whether a long chain of the guest is to be continued.
    pub(super) fn serve(
        &mut self,
        context: &mut GroupContext<'_>,
        scratch: &mut [u8],
    ) -> Result<bool, ServeError> {
        self.is_changed = false;
        self.disconnect_if_over();
        let is_partial = self.transmit(context, scratch)?;
        self.receive(context, scratch)?;
        self.disconnect_if_over();
        Ok(is_partial)
    }

    /// Takes what the guest has written. Returns whether a part of a chain is left.
    fn transmit(&mut self, context: &mut GroupContext<'_>, scratch: &mut [u8]) -> Result<bool, ServeError> {
        let (_, queue) = queues(self.number);
        let is_partial = loop {
            let Some(Taken { head, request }) = context.pop_or_request(queue)? else { break false };
            let progress = self.take(request.readable, context.memory(), scratch);
            if let Progress::Complete = progress {
                self.taken = 0;
                context.add_used(queue, head, 0)?;
                continue;
            }
            context.unpop(queue, 1);
            break matches!(progress, Progress::Partial);
        };
        if let Some(client) = &mut self.client {
            client.flush();
        }
        context.notify_driver(queue)?;
        Ok(is_partial)
    }

    /// Takes a chain that the guest has written, from where the last turn ended.
    fn take(&mut self, written: Buffers<'_>, memory: &DeviceMemory, scratch: &mut [u8]) -> Progress {
        let Some(client) = self.client.as_mut().filter(|client| !client.is_gone()) else {
            return Progress::Complete;
        };
        // A console whose client may be anybody does not wait for it.
        let is_dropped =
            self.name.is_none() && self.socket.as_ref().is_some_and(|socket| socket.listener().is_some());
        let mut rest = written.into_segments();
        // What the client has got.
        let _ = rest.split_to(self.taken);
        let mut rest = rest.in_memory(memory);
        let mut left = MAX_TAKEN;
        while !rest.is_empty() {
            if left == 0 {
                return Progress::Partial;
            }
            let space = client.space();
            if space == 0 && !is_dropped {
                return Progress::Blocked;
            }
            if space == 0 {
                client.dropped();
                break;
            }
            let len =
                usize::try_from(rest.len()).unwrap_or(usize::MAX).min(space).min(scratch.len()).min(left);
            if let Err(error) = rest.read(&mut scratch[..len]) {
                // A guest can provoke this at will: a buffer that is not memory.
                tracing::debug!(%error, port = self.number, "what a guest has written to a port cannot be read");
                if self.name.is_some() {
                    self.disconnect();
                }
                break;
            }
            client.queue(&scratch[..len]);
            self.taken += len as u64;
            left -= len;
        }
        Progress::Complete
    }

    /// Passes on what the client has sent.
    fn receive(&mut self, context: &mut GroupContext<'_>, scratch: &mut [u8]) -> Result<(), ServeError> {
        let (queue, _) = queues(self.number);
        let is_readable = self.is_readable();
        while let Some(client) = self.client.as_mut().filter(|client| is_readable && client.has_input()) {
            let Some(Taken { head, request: Request { mut writable, .. } }) =
                context.pop_or_request(queue)?
            else {
                break;
            };
            let space = usize::try_from(writable.len()).unwrap_or(usize::MAX).min(scratch.len());
            let data = if space == 0 { &[] } else { client.read(&mut scratch[..space]) };
            if data.is_empty() && space > 0 {
                context.unpop(queue, 1);
                continue;
            }
            let outcome = writable.write(data);
            if let Err(error) = &outcome {
                tracing::debug!(%error, port = self.number, "a buffer of a guest's port cannot be written");
                client.give_back(data);
            }
            context.add_used(queue, head, if outcome.is_ok() { data.len() as u32 } else { 0 })?;
        }
        context.notify_driver(queue)
    }
}

impl Drop for Port {
    /// The client stays for the next device.
    fn drop(&mut self) {
        if let Some(socket) = &self.socket {
            socket.exchange(self.client.take());
        }
    }
}
