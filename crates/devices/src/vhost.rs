//! Queues that somebody else serves, by the requests of vhost: the host's kernel (vhost-net, `virtio_net::vhost`), or another process
//! ([`crate::vhost_user`]).
//!
//! The thread of a group of queues lends its queues to the other side ([`Rings::lend`]), sets them up there ([`Ring::set_up`]), and
//! forwards the notifications to the driver. It takes them back when the other side has stopped: its [`Queue`](crate::virtio::Queue)s
//! say then where the next one who serves them continues.

use std::sync::Arc;

use guest_memory::AccessError;
use vhost::{VhostBackend, VringConfigData};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::virtio::{DeviceMemory, GroupContext, LentQueue, QueueLayout, ServeError};

/// A queue, as the other side serves it.
#[derive(Debug)]
pub(crate) struct Ring {
    /// Its index in the device.
    queue: u16,
    /// Its index on the other side.
    pub(crate) index: usize,
    layout: QueueLayout,
    /// Counts the available elements that the other side has taken, as far as is known.
    pub(crate) base: u16,
    /// The driver's notifications.
    kick: Arc<EventFd>,
    /// Those of the other side.
    call: EventFd,
}

/// Why a ring cannot be set up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SetupError {
    /// A request failed.
    #[error("the vhost request {request} failed: {source}")]
    Request { request: &'static str, source: vhost::Error },
    /// A part of the ring has no address on the other side.
    #[error("a ring at {0:#x} is not guest memory")]
    Ring(u64),
}

/// Names the request that failed.
pub(crate) fn failed(request: &'static str) -> impl FnOnce(vhost::Error) -> SetupError {
    move |source| SetupError::Request { request, source }
}

impl Ring {
    /// Sets the ring up. `address` makes the addresses of its parts that the other side expects from GPAs.
    pub(crate) fn set_up(
        &self,
        backend: &impl VhostBackend,
        address: impl Fn(u64) -> Option<u64>,
    ) -> Result<(), SetupError> {
        let Ring { index, layout, base, kick, call, .. } = self;
        let address = |gpa| address(gpa).ok_or(SetupError::Ring(gpa));
        // A queue has 32768 elements at most.
        let size = u16::try_from(layout.size).unwrap_or(u16::MAX);
        let config = VringConfigData {
            queue_max_size: size,
            queue_size: size,
            flags: 0,
            desc_table_addr: address(layout.descriptors)?,
            used_ring_addr: address(layout.used)?,
            avail_ring_addr: address(layout.available)?,
            log_addr: None,
        };
        backend.set_vring_num(*index, size).map_err(failed("SET_VRING_NUM"))?;
        backend.set_vring_addr(*index, &config).map_err(failed("SET_VRING_ADDR"))?;
        backend.set_vring_base(*index, *base).map_err(failed("SET_VRING_BASE"))?;
        backend.set_vring_call(*index, call).map_err(failed("SET_VRING_CALL"))?;
        backend.set_vring_kick(*index, kick).map_err(failed("SET_VRING_KICK"))
    }

    /// Has the other side look at the ring, as the driver does.
    pub(crate) fn kick(&self) {
        // Fails only if 2^64 - 2 notifications are pending.
        let _ = self.kick.write(1);
    }

    /// Stores at which available element the ring continues, from the answer to GET_VRING_BASE.
    pub(crate) fn stopped_at(&mut self, base: u32) {
        // A split ring's base has 16 bits.
        self.base = base as u16;
    }
}

/// The queues of a group that the other side serves.
#[derive(Debug, Default)]
pub(crate) struct Rings(Vec<Ring>);

/// Tokens of the rings. Others of the thread are below.
const FIRST_RING: u32 = 1 << 16;

impl Rings {
    /// Takes queues from the thread, as far as they are ready, each with its index on the other side. The thread is called with a token for
    /// [`forward`](Self::forward) when the other side has notified it.
    pub(crate) fn lend(
        context: &mut GroupContext<'_>,
        queues: impl IntoIterator<Item = (u16, usize)>,
    ) -> Result<Self, ServeError> {
        let mut rings = Vec::new();
        for (queue, index) in queues {
            let Some(LentQueue { layout, next_available, kick }) = context.lend(queue)? else { continue };
            let call = EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK)?;
            context.watch(&call, FIRST_RING + rings.len() as u32, EventSet::IN)?;
            rings.push(Ring { queue, index, layout, base: next_available, kick, call });
        }
        Ok(Rings(rings))
    }

    /// Forwards the notification of a ring to the driver. False if the token is not that of a ring.
    pub(crate) fn forward(&self, token: u32, context: &GroupContext<'_>) -> bool {
        let position = token.checked_sub(FIRST_RING).and_then(|position| usize::try_from(position).ok());
        let Some(ring) = position.and_then(|position| self.0.get(position)) else { return false };
        // Never blocks: EAGAIN if the count is 0.
        let _ = ring.call.read();
        context.interrupt().used_buffer(ring.queue);
        true
    }

    /// Notifies both sides of all rings, as far as they may have missed something.
    #[cfg_attr(not(feature = "vhost-user"), allow(dead_code, reason = "vhost-user needs it"))]
    pub(crate) fn notify_all(&self, context: &GroupContext<'_>) {
        for ring in &self.0 {
            ring.kick();
            context.interrupt().used_buffer(ring.queue);
        }
    }

    /// Has the next one who serves the rings begin with the first request that was not returned to the driver.
    #[cfg_attr(not(feature = "vhost-user"), allow(dead_code, reason = "vhost-user needs it"))]
    pub(crate) fn rebase(&mut self, memory: &DeviceMemory) -> Result<(), AccessError> {
        for ring in &mut self.0 {
            ring.base = memory.load_u16(ring.layout.used_index())?;
        }
        Ok(())
    }

    /// Gives the queues back to the thread. The other side has stopped.
    pub(crate) fn give_back(self, context: &mut GroupContext<'_>) -> Result<(), ServeError> {
        for ring in self.0 {
            // Closing it is not enough: the other side may have a duplicate.
            context.unwatch(&ring.call)?;
            if ring.call.read().is_ok() {
                context.interrupt().used_buffer(ring.queue);
            }
            context.take_back(ring.queue, ring.base)?;
        }
        Ok(())
    }

    #[cfg(feature = "virtio-net")]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Ring> {
        self.0.iter()
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Ring> {
        self.0.iter_mut()
    }
}
