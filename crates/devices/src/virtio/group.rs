//! A group of queues that one thread serves, with descriptors of the host that belong to it.
//!
//! A device whose queues only wait for the driver has a group for each queue, of a [`QueueHandler`]. A device that also waits for
//! the host (a network, sockets, a timer) implements [`QueueGroup`].

use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use guest_memory::AccessError;
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::EventFd;

use super::buffers::Request;
use super::memory::DeviceMemory;
use super::queue::{Queue, QueueError, QueueLayout};
use super::worker::watch_kick;
use super::{Interrupt, StopFlag};

/// Serves a group of queues on one thread.
///
/// An error ends the thread and sets DEVICE_NEEDS_RESET. While a call runs, the group's other queues and descriptors wait. A driver that
/// makes chains available all the time cannot starve them: a call gets as many chains of a queue as the queue has elements, and
/// [`available`](Self::available) is called again for the others.
pub trait QueueGroup: Send {
    /// Called first, each time that the thread starts: at DRIVER_OK, and after a queue of the group was stopped or started. The
    /// descriptors of an earlier thread are not watched any more.
    ///
    /// # Errors
    /// Returns an error if a queue cannot be used any more, or the host lacks a resource.
    fn start(&mut self, context: &mut GroupContext<'_>) -> Result<(), ServeError> {
        let _ = context;
        Ok(())
    }

    /// A queue of the group was stopped, and its chains are no longer the device's. Called while the thread does not run.
    fn stopped(&mut self, queue: u16) {
        let _ = queue;
    }

    /// The driver made chains available in a queue of the group, an index of the device's queues. Also called after
    /// [`start`](Self::start) for each queue that is ready, and possibly without a new chain.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    fn available(&mut self, queue: u16, context: &mut GroupContext<'_>) -> Result<(), ServeError>;

    /// A descriptor that the group watches is ready, or was when the thread last looked: it may not be watched any more.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    fn ready(
        &mut self,
        token: u32,
        events: EventSet,
        context: &mut GroupContext<'_>,
    ) -> Result<(), ServeError> {
        let _ = (token, events, context);
        Ok(())
    }

    /// Called last, each time that the thread ends, also for an error of another call. When this returns, nobody accesses the queues,
    /// their requests and buffers: those that were lent are taken back.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    fn ended(&mut self, context: &mut GroupContext<'_>) -> Result<(), ServeError> {
        let _ = context;
        Ok(())
    }
}

/// Why a group cannot be served any more.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A queue cannot be used.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// A system call failed.
    #[error(transparent)]
    Host(#[from] io::Error),
}

impl From<AccessError> for ServeError {
    fn from(error: AccessError) -> Self {
        ServeError::Queue(error.into())
    }
}

/// A descriptor chain that the device has taken from a queue.
pub struct Taken<'a> {
    /// Index of its first descriptor, for [`GroupContext::add_used`].
    pub head: u16,
    /// Its buffers.
    pub request: Request<'a>,
}

/// A queue that somebody else serves: the host's kernel, or another process.
pub(crate) struct LentQueue {
    pub(crate) layout: QueueLayout,
    /// Counts the available elements that were taken.
    pub(crate) next_available: u16,
    /// The driver's notifications.
    pub(crate) kick: Arc<EventFd>,
}

/// A queue that is ready.
pub(super) struct ReadyQueue {
    pub(super) index: u16,
    queue: Queue,
    /// Chains that the current call may still take.
    left: u16,
    /// Whether the call was refused one.
    is_refused: bool,
}

impl ReadyQueue {
    pub(super) fn new(index: u16, queue: Queue) -> Self {
        ReadyQueue { index, queue, left: 0, is_refused: false }
    }

    /// A call of the group begins.
    pub(super) fn begin_call(&mut self) {
        (self.left, self.is_refused) = (self.queue.size(), false);
    }

    /// Whether there may be chains that the last call did not get. The driver's notifications of them may be suppressed.
    pub(super) fn is_unfinished(&self) -> bool {
        self.is_refused
    }

    /// This queue, if the call may take another chain of it.
    fn admitting(&mut self) -> Option<&mut Self> {
        self.is_refused |= self.left == 0;
        (self.left > 0).then_some(self)
    }
}

/// What a group works with on its thread: its queues, and the descriptors that it watches.
pub struct GroupContext<'a> {
    pub(super) memory: &'a DeviceMemory,
    pub(super) interrupt: &'a dyn Interrupt,
    pub(super) stop: &'a StopFlag,
    pub(super) epoll: &'a Epoll,
    pub(super) kicks: &'a [Arc<EventFd>],
    pub(super) queues: &'a mut [ReadyQueue],
}

impl<'a> GroupContext<'a> {
    /// The guest's memory.
    #[must_use]
    pub fn memory(&self) -> &'a DeviceMemory {
        self.memory
    }

    /// Notifies the driver of what does not concern a queue.
    #[must_use]
    pub fn interrupt(&self) -> &'a dyn Interrupt {
        self.interrupt
    }

    /// Set when the thread has to end. A call that takes long polls it.
    #[must_use]
    pub fn stop(&self) -> &'a StopFlag {
        self.stop
    }

    /// Whether the driver made a queue ready. The others have no chains: calls about them do nothing.
    #[must_use]
    pub fn is_ready(&self, queue: u16) -> bool {
        self.queues.iter().any(|ready| ready.index == queue)
    }

    /// The elements of a queue: the most chains that a driver makes available at once. 0 if it is not ready.
    #[must_use]
    pub fn queue_size(&self, queue: u16) -> u16 {
        self.queues.iter().find(|ready| ready.index == queue).map_or(0, |ready| ready.queue.size())
    }

    fn ready(&mut self, queue: u16) -> Option<&mut ReadyQueue> {
        self.queues.iter_mut().find(|ready| ready.index == queue)
    }

    fn queue(&mut self, queue: u16) -> Option<&mut Queue> {
        self.ready(queue).map(|ready| &mut ready.queue)
    }

    /// Takes the next chain of a queue. `None` if there is none, or the call has taken as many as the queue has elements.
    ///
    /// # Errors
    /// Returns an error if the ring or a descriptor cannot be read, or the ring is broken.
    pub fn pop(&mut self, queue: u16) -> Result<Option<Taken<'a>>, ServeError> {
        let memory = self.memory;
        let Some(ready) = self.ready(queue).and_then(ReadyQueue::admitting) else { return Ok(None) };
        let Some(head) = ready.queue.pop()? else { return Ok(None) };
        ready.left -= 1;
        let queue = &ready.queue;
        Ok(Some(Taken { head, request: Request::read(memory, queue, head)? }))
    }

    /// Takes the next chain of a queue without a notification of the driver for each. If there is none, the driver notifies the device of
    /// the next one.
    ///
    /// # Errors
    /// As [`pop`](Self::pop).
    pub fn pop_or_request(&mut self, queue: u16) -> Result<Option<Taken<'a>>, ServeError> {
        self.suppress_notifications(queue)?;
        loop {
            if let Some(taken) = self.pop(queue)? {
                return Ok(Some(taken));
            }
            if !self.request_notifications(queue)? {
                return Ok(None);
            }
        }
    }

    /// Gives back the last `count` chains that were taken from a queue and not used: [`pop`](Self::pop) returns them again.
    pub fn unpop(&mut self, queue: u16, count: u16) {
        if let Some(ready) = self.ready(queue) {
            ready.queue.unpop(count);
            ready.left += count;
        }
    }

    /// Returns a chain to the driver, with the number of bytes that were written from the start of its device-writable buffers
    /// on. [`notify_driver`](Self::notify_driver) tells the driver.
    ///
    /// # Errors
    /// Returns an error if the used ring cannot be written.
    pub fn add_used(&mut self, queue: u16, head: u16, written: u32) -> Result<(), ServeError> {
        match self.queue(queue) {
            Some(queue) => Ok(queue.add_used(head, written)?),
            None => Ok(()),
        }
    }

    /// Sends a used buffer notification, if the driver wants one for the chains that were returned since the last call.
    ///
    /// # Errors
    /// Returns an error if the available ring cannot be read.
    pub fn notify_driver(&mut self, queue: u16) -> Result<(), ServeError> {
        let interrupt = self.interrupt;
        if let Some(ready) = self.queue(queue)
            && ready.needs_interrupt()?
        {
            interrupt.used_buffer(queue);
        }
        Ok(())
    }

    /// Suppresses the driver's notifications for a queue. The driver may send some nevertheless.
    ///
    /// # Errors
    /// Returns an error if the used ring cannot be written.
    pub fn suppress_notifications(&mut self, queue: u16) -> Result<(), ServeError> {
        match self.queue(queue) {
            Some(queue) => Ok(queue.suppress_notifications()?),
            None => Ok(()),
        }
    }

    /// Enables the driver's notification for the next chain of a queue. Returns whether there is a chain already that
    /// [`pop`](Self::pop) takes: the driver may not send a notification for it.
    ///
    /// # Errors
    /// Returns an error if a ring cannot be accessed.
    pub fn request_notifications(&mut self, queue: u16) -> Result<bool, ServeError> {
        match self.ready(queue).and_then(ReadyQueue::admitting) {
            Some(ready) => Ok(ready.queue.request_notifications()?),
            None => Ok(false),
        }
    }

    /// Leaves a queue to somebody else who serves it. Until it is [taken back](Self::take_back), this thread does not see the driver's
    /// notifications, and no call here may concern the queue. `None` if it is not ready.
    ///
    /// # Errors
    /// Returns the error of epoll_ctl(2).
    pub(crate) fn lend(&mut self, queue: u16) -> io::Result<Option<LentQueue>> {
        let Some(ready) = self.queues.iter().find(|ready| ready.index == queue) else { return Ok(None) };
        let kick = self.kicks.get(usize::from(queue)).ok_or(io::ErrorKind::NotFound)?;
        self.unwatch(&**kick)?;
        let (layout, next_available) = (ready.queue.layout(), ready.queue.next_available());
        Ok(Some(LentQueue { layout, next_available, kick: Arc::clone(kick) }))
    }

    /// Serves a queue again that was lent, from its available element `next_available` on. [`available`](QueueGroup::available) is called
    /// for it: the driver's last notification may have gone to the other side.
    ///
    /// # Errors
    /// Returns an error if the used ring cannot be read, or the error of epoll_ctl(2).
    pub(crate) fn take_back(&mut self, queue: u16, next_available: u16) -> Result<(), ServeError> {
        let (kicks, epoll) = (self.kicks, self.epoll);
        let (Some(ready), Some(kick)) = (self.ready(queue), kicks.get(usize::from(queue))) else {
            return Ok(());
        };
        watch_kick(epoll, queue, kick)?;
        // Fails only if 2^64 - 2 notifications are pending.
        let _ = kick.write(1);
        Ok(ready.queue.resume(next_available)?)
    }

    /// Watches a descriptor: [`QueueGroup::ready`] is called with `token` when it is ready (epoll_ctl(2), EPOLL_CTL_ADD). It is
    /// watched until the thread ends, [`unwatch`](Self::unwatch) is called, or all its duplicates are closed.
    ///
    /// Unless `events` has EDGE_TRIGGERED, the group is called again and again while the descriptor is ready: what it cannot handle for
    /// now, for example for want of a buffer, has to be unwatched.
    ///
    /// # Errors
    /// Returns the error of epoll_ctl(2).
    pub fn watch(&self, fd: &impl AsRawFd, token: u32, events: EventSet) -> io::Result<()> {
        self.control(ControlOperation::Add, fd, token, events)
    }

    /// Changes the events or the token of a watched descriptor (EPOLL_CTL_MOD).
    ///
    /// # Errors
    /// Returns the error of epoll_ctl(2).
    pub fn rewatch(&self, fd: &impl AsRawFd, token: u32, events: EventSet) -> io::Result<()> {
        self.control(ControlOperation::Modify, fd, token, events)
    }

    /// Stops watching a descriptor (EPOLL_CTL_DEL).
    ///
    /// # Errors
    /// Returns the error of epoll_ctl(2).
    pub fn unwatch(&self, fd: &impl AsRawFd) -> io::Result<()> {
        self.control(ControlOperation::Delete, fd, 0, EventSet::empty())
    }

    fn control(
        &self,
        operation: ControlOperation,
        fd: &impl AsRawFd,
        token: u32,
        events: EventSet,
    ) -> io::Result<()> {
        self.epoll.ctl(operation, fd.as_raw_fd(), EpollEvent::new(events, token.into()))
    }
}

/// Handles the requests of one queue, one after the other.
pub trait QueueHandler: Send {
    /// Handles a request. Returns the number of bytes that were written from the start of its device-writable buffers on.
    ///
    /// A handler that takes long polls `stop` and returns early once it is set: the request is then abandoned.
    fn handle(&mut self, request: Request<'_>, stop: &StopFlag) -> u32;
}

/// The indices of a group's queues, and what serves them.
pub type Group = (Vec<u16>, Box<dyn QueueGroup>);

/// The group of one queue whose requests are handled one after the other.
#[must_use]
pub fn per_request(queue: u16, handler: impl QueueHandler + 'static) -> Group {
    (vec![queue], Box::new(PerRequest(handler)))
}

struct PerRequest<H>(H);

impl<H: QueueHandler> QueueGroup for PerRequest<H> {
    /// Handles requests until the queue is empty.
    fn available(&mut self, queue: u16, context: &mut GroupContext<'_>) -> Result<(), ServeError> {
        loop {
            context.suppress_notifications(queue)?;
            while let Some(Taken { head, request }) = context.pop(queue)? {
                let written = self.0.handle(request, context.stop());
                if context.stop().is_set() {
                    return Ok(());
                }
                context.add_used(queue, head, written)?;
                context.notify_driver(queue)?;
            }
            if !context.request_notifications(queue)? {
                return Ok(());
            }
        }
    }
}
