//! A pair of queues, and the port that their packets come from and go to.

use vmm_sys_util::epoll::EventSet;

use super::packet::{self, HEADER_LEN, MAX_LEN, MIN_LEN};
use super::port::Port;
use crate::rate_limit::RateLimiter;
use crate::virtio::{CopyError, GroupContext, QueueGroup, Request, ServeError, Taken};

/// Packets of one direction that are handled before the other direction gets its share.
const BATCH: usize = 64;
/// Token of the timers of rate limits. A port uses others.
const ADMITTED: u32 = u32::MAX;

/// Serves receiveq and transmitq of a pair.
pub(super) struct Pair<P> {
    port: P,
    receive_queue: u16,
    transmit_queue: u16,
    /// Whether a received packet may take several buffers (VIRTIO_NET_F_MRG_RXBUF).
    mergeable: bool,
    limiters: Limiters,
    /// The packet that was received, and its length while it waits.
    received: Box<[u8]>,
    waiting: Option<Waiting>,
    /// The packet that is sent.
    sent: Box<[u8]>,
}

/// The rate limits of a pair, as its thread takes from them.
#[derive(Default)]
pub(super) struct Limiters {
    pub(super) receive: Option<RateLimiter>,
    pub(super) transmit: Option<RateLimiter>,
}

/// A received packet that waits: for the rate limit, and then for buffers.
struct Waiting {
    len: usize,
    is_admitted: bool,
}

/// Where a received packet goes.
enum Delivery {
    /// To the driver, or nowhere.
    Done,
    /// To buffers that the driver makes available later.
    NoBuffers,
}

impl<P: Port> Pair<P> {
    pub(super) fn new(port: P, queues: [u16; 2], mergeable: bool, limiters: Limiters) -> Self {
        let [receive_queue, transmit_queue] = queues;
        Pair {
            port,
            receive_queue,
            transmit_queue,
            mergeable,
            limiters,
            received: packet::buffer(),
            waiting: None,
            sent: packet::buffer(),
        }
    }

    /// Receives and sends until both have to wait, or the thread has to end.
    fn pump(&mut self, context: &mut GroupContext<'_>) -> Result<(), ServeError> {
        let mut is_busy = true;
        while is_busy && !context.stop().is_set() {
            let receives = self.receive(context)?;
            is_busy = self.transmit(context)? || receives;
            if is_busy {
                // epoll is not asked meanwhile: the idle direction may have something to do again.
                self.port.look_again();
            }
        }
        Ok(())
    }

    /// Receives some packets. Returns whether there may be more at once.
    fn receive(&mut self, context: &mut GroupContext<'_>) -> Result<bool, ServeError> {
        let queue = self.receive_queue;
        context.suppress_notifications(queue)?;
        let mut is_busy = true;
        for _ in 0..BATCH {
            if context.stop().is_set() {
                break;
            }
            let waiting = match self.waiting.take() {
                Some(waiting) => Some(waiting),
                None => {
                    let received = self.port.receive(&mut self.received, context)?;
                    received.map(|len| Waiting { len, is_admitted: false })
                }
            };
            let Some(Waiting { len, is_admitted }) = waiting else {
                is_busy = false;
                break;
            };
            let is_admitted = is_admitted || admits(&mut self.limiters.receive, len as u64)?;
            if !is_admitted || matches!(self.deliver(len, context)?, Delivery::NoBuffers) {
                self.waiting = Some(Waiting { len, is_admitted });
                is_busy = false;
                break;
            }
        }
        context.notify_driver(queue)?;
        Ok(is_busy)
    }

    /// Copies the received packet to the driver's buffers.
    fn deliver(&mut self, len: usize, context: &mut GroupContext<'_>) -> Result<Delivery, ServeError> {
        let queue = self.receive_queue;
        let max_chains = if self.mergeable { context.queue_size(queue).max(1) } else { 1 };
        let mut chains: Vec<Taken<'_>> = Vec::new();
        let mut space = 0;
        while space < len as u64 {
            if chains.len() >= max_chains.into() {
                // The driver's buffers are too short, whatever it makes available.
                tracing::debug!(
                    len,
                    space,
                    "a received packet is dropped: the driver's buffers are too short"
                );
                context.unpop(queue, chains.len() as u16);
                return Ok(Delivery::Done);
            }
            let Some(chain) = context.pop(queue)? else {
                // For the chains behind those that are given back.
                if context.request_notifications(queue)? {
                    continue;
                }
                context.unpop(queue, chains.len() as u16);
                return Ok(Delivery::NoBuffers);
            };
            let is_valid = is_writable_only(&chain.request);
            space += chain.request.writable.len();
            chains.push(chain);
            if !is_valid {
                tracing::debug!(
                    "a received packet is dropped: a buffer of the driver is not device-writable"
                );
                return return_empty(&chains, queue, context);
            }
        }
        packet::set_buffers(&mut self.received, chains.len() as u16);
        let packet = self.received.get(..len).unwrap_or_default();
        match scatter(packet, &mut chains) {
            Ok(written) => {
                for (chain, written) in chains.iter().zip(written) {
                    context.add_used(queue, chain.head, written)?;
                }
                Ok(Delivery::Done)
            }
            Err(error) => {
                tracing::debug!(%error, "a received packet is dropped");
                return_empty(&chains, queue, context)
            }
        }
    }

    /// Sends some packets. Returns whether there may be more at once.
    fn transmit(&mut self, context: &mut GroupContext<'_>) -> Result<bool, ServeError> {
        let queue = self.transmit_queue;
        context.suppress_notifications(queue)?;
        let mut is_busy = true;
        for _ in 0..BATCH {
            if context.stop().is_set() {
                break;
            }
            if !self.port.can_send(context)? {
                is_busy = false;
                break;
            }
            let Some(Taken { head, mut request }) = context.pop(queue)? else {
                is_busy = context.request_notifications(queue)?;
                break;
            };
            // A chain that is too long is dropped: it counts as the longest packet, whatever its descriptors say.
            let len = request.readable.len().min(MAX_LEN as u64);
            if !admits(&mut self.limiters.transmit, len)? {
                // The next notification that counts is the timer's.
                context.unpop(queue, 1);
                is_busy = false;
                break;
            }
            match gather(&mut request, &mut self.sent) {
                Ok(packet) => self.port.send(packet, context)?,
                Err(reason) => tracing::debug!(%reason, "a packet of the driver is dropped"),
            }
            context.add_used(queue, head, 0)?;
        }
        context.notify_driver(queue)?;
        Ok(is_busy)
    }
}

impl<P: Port> QueueGroup for Pair<P> {
    fn start(&mut self, context: &mut GroupContext<'_>) -> Result<(), ServeError> {
        for limiter in [&self.limiters.receive, &self.limiters.transmit].into_iter().flatten() {
            context.watch(limiter, ADMITTED, EventSet::IN | EventSet::EDGE_TRIGGERED)?;
        }
        Ok(self.port.start(context)?)
    }

    fn available(&mut self, _: u16, context: &mut GroupContext<'_>) -> Result<(), ServeError> {
        self.pump(context)
    }

    fn ready(
        &mut self,
        token: u32,
        events: EventSet,
        context: &mut GroupContext<'_>,
    ) -> Result<(), ServeError> {
        if token != ADMITTED {
            self.port.ready(token, events, context)?;
        }
        self.pump(context)
    }
}

/// Whether a packet of this length, with its header, can pass now. If not, the limiter's timer expires once it can be tried again.
fn admits(limiter: &mut Option<RateLimiter>, len: u64) -> Result<bool, ServeError> {
    match limiter {
        Some(limiter) => Ok(limiter.admits(len.saturating_sub(HEADER_LEN as u64))?),
        None => Ok(true),
    }
}

fn is_writable_only(request: &Request<'_>) -> bool {
    request.well_formed && request.readable.is_empty()
}

/// Returns chains without a packet: shorter than any header, which a driver drops.
fn return_empty(
    chains: &[Taken<'_>],
    queue: u16,
    context: &mut GroupContext<'_>,
) -> Result<Delivery, ServeError> {
    for chain in chains {
        context.add_used(queue, chain.head, 0)?;
    }
    Ok(Delivery::Done)
}

/// Copies a packet to chains that have space for it. Returns how many bytes each one got.
fn scatter(mut packet: &[u8], chains: &mut [Taken<'_>]) -> Result<Vec<u32>, CopyError> {
    let part = |chain: &mut Taken<'_>| {
        let buffers = &mut chain.request.writable;
        let len = usize::try_from(buffers.len()).unwrap_or(usize::MAX).min(packet.len());
        let (now, later) = packet.split_at(len);
        packet = later;
        buffers.write(now)?;
        Ok(len as u32)
    };
    chains.iter_mut().map(part).collect()
}

/// Why a packet of the driver is not sent.
#[derive(Debug, thiserror::Error)]
enum Unsent {
    #[error("its descriptor chain is malformed, or device-writable")]
    Chain,
    #[error("it has {0} bytes")]
    Len(u64),
    #[error(transparent)]
    Copy(#[from] CopyError),
}

/// Copies a packet from a chain.
fn gather<'a>(request: &mut Request<'_>, to: &'a mut [u8]) -> Result<&'a mut [u8], Unsent> {
    if !request.well_formed || !request.writable.is_empty() {
        return Err(Unsent::Chain);
    }
    let len = request.readable.len();
    let packet = usize::try_from(len)
        .ok()
        .filter(|len| (MIN_LEN..=MAX_LEN).contains(len))
        .and_then(|len| to.get_mut(..len))
        .ok_or(Unsent::Len(len))?;
    request.readable.read(packet)?;
    Ok(packet)
}
