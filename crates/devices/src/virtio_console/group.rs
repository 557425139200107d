//! The device's thread: all queues, the control messages, and the sockets of the ports.

use std::io;
use std::sync::Arc;

use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};
use zerocopy::{FromZeros, IntoBytes};

use super::control::{DEVICE_READY, Message, PORT_NAME, PORT_OPEN, PORT_READY};
use super::port::Port;
use super::{CONTROL_RECEIVE, CONTROL_TRANSMIT, Ports, queues};
use crate::accept_pause::AcceptPause;
use crate::console::ConsoleSize;
use crate::virtio::{Buffers, GroupContext, QueueGroup, Request, ServeError, Taken};

/// Tokens of the thread's own descriptors. Those of the ports' listeners follow, and those of the clients.
const AGAIN: u32 = 0;
const RESIZED: u32 = 1;
const ACCEPT_AGAIN: u32 = 2;
const FIRST_LISTENER: u32 = 3;
const FIRST_CLIENT: u32 = 1 << 16;

/// Bytes that are copied at once.
const SCRATCH_LEN: usize = 16 << 10;

pub(super) struct ConsoleGroup {
    /// By their numbers.
    ports: Vec<Port>,
    /// Of a console.
    size: Option<ConsoleSize>,
    /// Whether the driver knows control messages.
    has_control: bool,
    /// Signalled when a turn has ended and there is more to do.
    again: EventFd,
    accept_pause: AcceptPause,
    next_client: u32,
    scratch: Box<[u8]>,
}

impl ConsoleGroup {
    /// # Errors
    /// Returns the error of eventfd(2) or timerfd_create(2).
    pub(super) fn new(ports: &Ports, has_control: bool) -> io::Result<Self> {
        let (ports, size) = match ports {
            Ports::Console(socket, size) => {
                (vec![Port::new(0, None, Some(Arc::clone(socket)))], Some(size.clone()))
            }
            Ports::Named(ports) => {
                let named = (1..).zip(ports).map(|(number, (name, socket))| {
                    Port::new(number, Some(name.clone()), Some(Arc::clone(socket)))
                });
                (std::iter::once(Port::new(0, None, None)).chain(named).collect(), None)
            }
        };
        Ok(ConsoleGroup {
            ports,
            size,
            has_control,
            again: EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK)?,
            accept_pause: AcceptPause::new()?,
            next_client: FIRST_CLIENT,
            scratch: vec![0; SCRATCH_LEN].into(),
        })
    }

    /// A token for a client. It is not used again soon: an event of an earlier client may be on its way.
    fn client_token(&mut self) -> u32 {
        let token = self.next_client;
        self.next_client = token.checked_add(1).unwrap_or(FIRST_CLIENT);
        token
    }

    /// Has the thread called again, after it has looked at the other descriptors.
    fn call_again(&self) {
        // Fails only if the counter would overflow.
        let _ = self.again.write(1);
    }

    fn serve(&mut self, number: usize, context: &mut GroupContext<'_>) -> Result<(), ServeError> {
        let Some(port) = self.ports.get_mut(number) else { return Ok(()) };
        let is_partial = port.serve(context, &mut self.scratch)?;
        if is_partial {
            self.call_again();
        }
        self.listen(number, context)
    }

    fn listen(&mut self, number: usize, context: &GroupContext<'_>) -> Result<(), ServeError> {
        let token = FIRST_LISTENER + number as u32;
        self.ports[number].listen(token, self.accept_pause.is_active(), context)
    }

    fn listen_all(&mut self, context: &GroupContext<'_>) -> Result<(), ServeError> {
        (0..self.ports.len()).try_for_each(|number| self.listen(number, context))
    }

    /// A client waits.
    fn accept(&mut self, number: usize, context: &mut GroupContext<'_>) -> Result<(), ServeError> {
        // Another port's client could not be accepted a moment ago.
        if self.accept_pause.is_active() {
            return Ok(());
        }
        // What the guest has written for a client that is gone is not for this one.
        self.serve(number, context)?;
        let token = self.client_token();
        let Some(port) = self.ports.get_mut(number) else { return Ok(()) };
        match port.accept() {
            Ok(Some(client)) => {
                port.connect(client, token, context)?;
                self.serve(number, context)
            }
            Ok(None) => Ok(()),
            Err(error) => {
                self.accept_pause.begin("virtio-console", error)?;
                self.listen_all(context)
            }
        }
    }

    /// Takes control messages of the driver.
    fn take_messages(&mut self, context: &mut GroupContext<'_>) -> Result<(), ServeError> {
        while let Some(Taken { head, request }) = context.pop_or_request(CONTROL_TRANSMIT)? {
            self.message(request.readable);
            context.add_used(CONTROL_TRANSMIT, head, 0)?;
        }
        // Once for all messages about a port.
        for number in 0..self.ports.len() {
            if self.ports[number].is_changed() {
                self.serve(number, context)?;
            }
        }
        context.notify_driver(CONTROL_TRANSMIT)
    }

    fn message(&mut self, mut from: Buffers<'_>) {
        let mut message = Message::new_zeroed();
        if let Err(error) = from.read(message.as_mut_bytes()) {
            tracing::debug!(%error, "a control message of virtio-console cannot be read");
            return;
        }
        let (id, value) = (message.id.get(), message.value.get() == 1);
        let number = usize::try_from(id).unwrap_or(usize::MAX);
        let port = self.ports.get_mut(number).filter(|port| port.exists());
        match (message.event.get(), port) {
            (DEVICE_READY, _) if value => {
                self.ports.iter_mut().filter(|port| port.exists()).for_each(|port| port.link.device_ready());
            }
            (DEVICE_READY, _) => tracing::debug!("the driver of a virtio-console has failed"),
            (PORT_READY, Some(port)) => port.link.port_ready(value),
            (PORT_OPEN, Some(port)) => port.guest_open(value),
            (event, _) => tracing::debug!(event, port = id, "a control message of virtio-console is ignored"),
        }
    }

    /// Sends control messages to the driver, as far as it has made buffers available.
    fn send_messages(&mut self, context: &mut GroupContext<'_>) -> Result<(), ServeError> {
        let mut is_opened = false;
        'ports: for (number, port) in self.ports.iter_mut().enumerate().filter(|_| self.has_control) {
            while let Some((event, value)) = port.link.next(port.has_client()) {
                let Some(Taken { head, request: Request { mut writable, .. } }) =
                    context.pop_or_request(CONTROL_RECEIVE)?
                else {
                    break 'ports;
                };
                let message = Message::new(number as u32, event, value);
                let name = port.name.as_deref().filter(|_| event == PORT_NAME).unwrap_or_default();
                let outcome =
                    writable.write(message.as_bytes()).and_then(|()| writable.write(name.as_bytes()));
                let len = match outcome {
                    Ok(()) => {
                        port.link.sent(event, value);
                        // What a client has sent before the guest knew of it can be delivered now.
                        is_opened |= event == PORT_OPEN;
                        size_of::<Message>() + name.len()
                    }
                    Err(error) => {
                        tracing::debug!(%error, "a buffer for control messages of virtio-console cannot be written");
                        0
                    }
                };
                context.add_used(CONTROL_RECEIVE, head, len as u32)?;
            }
        }
        if is_opened {
            self.call_again();
        }
        context.notify_driver(CONTROL_RECEIVE)
    }
}

impl QueueGroup for ConsoleGroup {
    fn start(&mut self, context: &mut GroupContext<'_>) -> Result<(), ServeError> {
        context.watch(&self.again, AGAIN, EventSet::IN)?;
        context.watch(&self.accept_pause, ACCEPT_AGAIN, EventSet::IN)?;
        self.accept_pause.end()?;
        for number in 0..self.ports.len() {
            let token = self.client_token();
            self.ports[number].start(token, context)?;
        }
        self.listen_all(context)?;
        if let Some(size) = &self.size {
            context.watch(size.changed(), RESIZED, EventSet::IN)?;
            // Linux reads the size when it is notified only.
            if size.get() != (0, 0) {
                context.interrupt().config_changed();
            }
        }
        Ok(())
    }

    fn stopped(&mut self, queue: u16) {
        self.ports.iter_mut().for_each(|port| port.stopped(queue));
    }

    fn available(&mut self, queue: u16, context: &mut GroupContext<'_>) -> Result<(), ServeError> {
        if queue == CONTROL_TRANSMIT {
            self.take_messages(context)?;
        } else {
            let of_queue = |number: &usize| {
                let (receive, transmit) = queues(*number);
                queue == receive || queue == transmit
            };
            if let Some(number) = (0..self.ports.len()).find(of_queue) {
                self.serve(number, context)?;
            }
        }
        self.send_messages(context)
    }

    fn ready(
        &mut self,
        token: u32,
        events: EventSet,
        context: &mut GroupContext<'_>,
    ) -> Result<(), ServeError> {
        match token {
            AGAIN => {
                // Never blocks: EAGAIN if the count is 0.
                let _ = self.again.read();
                (0..self.ports.len()).try_for_each(|number| self.serve(number, context))?;
            }
            ACCEPT_AGAIN => {
                self.accept_pause.end()?;
                self.listen_all(context)?;
            }
            RESIZED => {
                // Never blocks, as above.
                let _ = self.size.as_ref().map(|size| size.changed().read());
                context.interrupt().config_changed();
            }
            FIRST_LISTENER..FIRST_CLIENT => self.accept((token - FIRST_LISTENER) as usize, context)?,
            token => {
                let port = self.ports.iter_mut().position(|port| port.client_ready(token, events));
                if let Some(number) = port {
                    self.serve(number, context)?;
                }
            }
        }
        self.send_messages(context)
    }
}
