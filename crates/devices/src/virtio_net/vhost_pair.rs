//! A pair of queues that vhost-net serves while all of guest memory is sound.
//!
//! The kernel gives up a packet on a poisoned page without a report, and may try one of the driver's again and again. So the pair
//! takes the queues back once a page is poisoned, wherever it is, or the kernel cannot use a ring, and serves them by itself until the
//! driver resets the device: what happens then is that of any other network interface.

use std::fmt::Display;
use std::io;
use std::sync::Arc;

use guest_memory::GuestRam;
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::pair::Pair;
use super::tap::{Queue as TapQueue, TapPort};
use super::vhost::{RECEIVE, TRANSMIT, VhostNet};
use crate::vhost::{Rings, SetupError};
use crate::virtio::{GroupContext, QueueGroup, ServeError};

pub(super) struct VhostPair {
    vhost: Arc<VhostNet>,
    tap: Arc<TapQueue>,
    /// What the driver has accepted.
    features: u64,
    /// Those to receive and to transmit.
    queues: [u16; 2],
    /// Signalled when the kernel cannot use a ring.
    errors: EventFd,
    server: Server,
    own: Pair<TapPort>,
}

/// Who serves the queues.
enum Server {
    Kernel(Lent),
    /// The pair itself.
    Own,
    /// The queue of the tap is detached: packets wait.
    Nobody,
}

/// Queues that the kernel serves. It stops when this is dropped.
struct Lent {
    rings: Rings,
    vhost: Arc<VhostNet>,
    tap: Arc<TapQueue>,
    ram: GuestRam,
}

// Tokens of the descriptors. Those of the rings and of a pair's port are others.
const ERRORS: u32 = 1 << 8;
const ATTACHED: u32 = ERRORS + 1;
const POISONED: u32 = ERRORS + 2;

impl VhostPair {
    /// # Errors
    /// Returns the error of eventfd(2).
    pub(super) fn new(
        vhost: Arc<VhostNet>,
        tap: Arc<TapQueue>,
        features: u64,
        queues: [u16; 2],
        own: Pair<TapPort>,
    ) -> io::Result<Self> {
        let errors = EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK)?;
        Ok(VhostPair { vhost, tap, features, queues, errors, server: Server::Nobody, own })
    }

    /// Lends the queues to the kernel, if the tap's queue is attached.
    fn lend(&mut self, context: &mut GroupContext<'_>) -> Result<(), ServeError> {
        // The kernel refuses one that is not.
        if !self.tap.is_attached() {
            return Ok(());
        }
        let [receive, transmit] = self.queues;
        let mut rings = Rings::lend(context, [(receive, RECEIVE), (transmit, TRANSMIT)])?;
        let ram = context.memory().ram().clone();
        match self.vhost.start(self.features, &ram, &mut rings, &self.tap, &self.errors) {
            Ok(()) => {
                let (vhost, tap) = (Arc::clone(&self.vhost), Arc::clone(&self.tap));
                self.server = Server::Kernel(Lent { rings, vhost, tap, ram });
                Ok(())
            }
            Err(error) => {
                rings.give_back(context)?;
                self.serve_by_itself(&error, context)
            }
        }
    }

    /// Has the kernel stop, if it serves the queues.
    fn take_back(&mut self, context: &mut GroupContext<'_>) -> Result<(), ServeError> {
        match std::mem::replace(&mut self.server, Server::Nobody) {
            Server::Kernel(mut lent) => {
                lent.stop().map_err(io::Error::other)?;
                std::mem::take(&mut lent.rings).give_back(context)
            }
            Server::Own | Server::Nobody => Ok(()),
        }
    }

    fn serve_by_itself(
        &mut self,
        reason: &dyn Display,
        context: &mut GroupContext<'_>,
    ) -> Result<(), ServeError> {
        tracing::warn!(queues = ?self.queues, %reason, "vhost-net is not used until the device is reset");
        context.unwatch(&self.errors)?;
        context.unwatch(self.tap.attached())?;
        if let Some(poisoned) = context.memory().poisoned() {
            context.unwatch(poisoned.event())?;
        }
        self.server = Server::Own;
        self.own.start(context)
    }
}

const MEMORY_IS_POISONED: &str = "guest memory has poisoned pages";

impl QueueGroup for VhostPair {
    fn start(&mut self, context: &mut GroupContext<'_>) -> Result<(), ServeError> {
        context.watch(&self.errors, ERRORS, EventSet::IN)?;
        context.watch(self.tap.attached(), ATTACHED, EventSet::IN)?;
        if let Some(poisoned) = context.memory().poisoned() {
            context.watch(poisoned.event(), POISONED, EventSet::IN)?;
            if poisoned.is_set() {
                return self.serve_by_itself(&MEMORY_IS_POISONED, context);
            }
        }
        self.lend(context)
    }

    fn available(&mut self, queue: u16, context: &mut GroupContext<'_>) -> Result<(), ServeError> {
        match self.server {
            Server::Own => self.own.available(queue, context),
            Server::Kernel(_) | Server::Nobody => Ok(()),
        }
    }

    fn ready(
        &mut self,
        token: u32,
        events: EventSet,
        context: &mut GroupContext<'_>,
    ) -> Result<(), ServeError> {
        match (token, &self.server) {
            (_, Server::Own) => self.own.ready(token, events, context),
            (ERRORS, _) => {
                // Never blocks: EAGAIN if the count is 0.
                let _ = self.errors.read();
                self.take_back(context)?;
                self.serve_by_itself(&"the kernel cannot use a ring or a descriptor", context)
            }
            (POISONED, _) => {
                self.take_back(context)?;
                self.serve_by_itself(&MEMORY_IS_POISONED, context)
            }
            (ATTACHED, _) => {
                let _ = self.tap.attached().read();
                // A kernel that looked at the tap while it was detached does not look again.
                self.take_back(context)?;
                self.lend(context)
            }
            (token, Server::Kernel(lent)) => {
                lent.rings.forward(token, context);
                Ok(())
            }
            (_, Server::Nobody) => Ok(()),
        }
    }

    fn ended(&mut self, context: &mut GroupContext<'_>) -> Result<(), ServeError> {
        self.take_back(context)
    }
}

impl Lent {
    fn stop(&mut self) -> Result<(), SetupError> {
        self.vhost.stop(&self.ram, &mut self.rings, &self.tap)
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        // The rings were given back, but by a thread that panicked.
        if !self.rings.is_empty()
            && let Err(error) = self.stop()
        {
            tracing::error!(%error, "vhost-net does not stop");
        }
    }
}
