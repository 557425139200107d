//! The device's thread: its queues, and the requests of the VMM.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use vmm_sys_util::epoll::EventSet;
use zerocopy::FromZeros;
use zerocopy::IntoBytes;
use zerocopy::little_endian::U32;

use super::control::Shared;
use super::statistics::Statistics;
use super::{DEFLATE_QUEUE, INFLATE_QUEUE, PAGE};
use crate::virtio::{Buffers, DeviceMemory, GroupContext, QueueGroup, Request, ServeError, Taken};

/// The most pages that are taken of one request to inflate. Linux sends 256.
const MAX_PAGES: usize = 16 << 10;
/// Page numbers that are read at once.
const CHUNK: usize = 256;
/// Token of the VMM's eventfd.
const WAKE: u32 = 0;

pub(super) struct BalloonGroup {
    pub(super) shared: Arc<Shared>,
    /// `None` if the feature is not negotiated.
    pub(super) statistics_queue: Option<u16>,
}

impl QueueGroup for BalloonGroup {
    fn start(&mut self, context: &mut GroupContext<'_>) -> Result<(), ServeError> {
        Ok(context.watch(&self.shared.wake, WAKE, EventSet::IN)?)
    }

    fn available(&mut self, queue: u16, context: &mut GroupContext<'_>) -> Result<(), ServeError> {
        if Some(queue) == self.statistics_queue {
            return self.receive_statistics(context);
        }
        loop {
            context.suppress_notifications(queue)?;
            while let Some(Taken { head, request }) = context.pop(queue)? {
                if context.stop().is_set() {
                    // The queue may be served again: only another one of the group may have been stopped.
                    context.unpop(queue, 1);
                    return Ok(());
                }
                handle(queue, request, context);
                context.add_used(queue, head, 0)?;
                context.notify_driver(queue)?;
            }
            if !context.request_notifications(queue)? {
                return Ok(());
            }
        }
    }

    fn ready(&mut self, _: u32, _: EventSet, context: &mut GroupContext<'_>) -> Result<(), ServeError> {
        // Never blocks: EAGAIN if the count is 0.
        let _ = self.shared.wake.read();
        if self.shared.target_changed.swap(false, Ordering::SeqCst) {
            context.interrupt().config_changed();
        }
        if self.shared.statistics_requested.swap(false, Ordering::SeqCst) {
            self.request_statistics(context)?;
        }
        Ok(())
    }
}

impl BalloonGroup {
    /// Reads statistics, if there are some; if not, the driver notifies the device of them. Their buffer stays in the queue: it is returned
    /// when the VMM wants new ones (VIRTIO 1.2, 5.5.6.3).
    fn receive_statistics(&mut self, context: &mut GroupContext<'_>) -> Result<(), ServeError> {
        let Some(queue) = self.statistics_queue else { return Ok(()) };
        if let Some(Taken { request, .. }) = context.pop_or_request(queue)? {
            self.shared.set_statistics(Some(Statistics::read(request.readable)));
            context.unpop(queue, 1);
        }
        Ok(())
    }

    fn request_statistics(&mut self, context: &mut GroupContext<'_>) -> Result<(), ServeError> {
        let Some(queue) = self.statistics_queue else { return Ok(()) };
        let Some(Taken { head, .. }) = context.pop(queue)? else { return Ok(()) };
        context.add_used(queue, head, 0)?;
        context.notify_driver(queue)?;
        // The next buffer may be there already, without a notification.
        self.receive_statistics(context)
    }
}

fn handle(queue: u16, request: Request<'_>, context: &GroupContext<'_>) {
    match queue {
        INFLATE_QUEUE => inflate(request.readable, context),
        // The page is there again when the guest touches it.
        DEFLATE_QUEUE => {}
        _ => request.writable.ranges().for_each(|(gpa, len)| discard(context.memory(), gpa, len.into())),
    }
}

/// Takes pages, by their numbers. Pages that are next to each other are taken at once: a page of the host may be larger than 4 KiB.
fn inflate(mut from: Buffers<'_>, context: &GroupContext<'_>) {
    let mut numbers = [U32::new_zeroed(); CHUNK];
    let mut run: Option<(u64, u64)> = None;
    let mut left = usize::try_from(from.len()).unwrap_or(usize::MAX) / size_of::<U32>();
    left = left.min(MAX_PAGES);
    while left > 0 && !context.stop().is_set() {
        let chunk = &mut numbers[..left.min(CHUNK)];
        if let Err(error) = from.read(chunk.as_mut_bytes()) {
            tracing::debug!(%error, "page numbers of a balloon cannot be read");
            break;
        }
        left -= chunk.len();
        for number in chunk {
            let gpa = u64::from(number.get()) * PAGE;
            run = match run {
                Some((start, end)) if gpa == end => Some((start, end + PAGE)),
                Some((start, end)) if gpa + PAGE == start => Some((gpa, end)),
                run => {
                    run.into_iter().for_each(|(start, end)| discard(context.memory(), start, end - start));
                    Some((gpa, gpa + PAGE))
                }
            };
        }
    }
    run.into_iter().for_each(|(start, end)| discard(context.memory(), start, end - start));
}

fn discard(memory: &DeviceMemory, gpa: u64, len: u64) {
    if let Err(error) = memory.discard(gpa, len) {
        // A guest can provoke this at will: pages that are not memory.
        tracing::debug!(%error, gpa, len, "pages of the guest cannot be given back to the host");
    }
}
