//! The threads that serve a device's queues.
//!
//! | call | |
//! |---|---|
//! | [`QueueWorkers::start`] | at DRIVER_OK: a thread for each queue that is ready |
//! | [`QueueWorkers::notify`] | wakes the thread, which takes requests until the queue is empty |
//! | [`QueueWorkers::stop_queue`] | ends the thread. The request in progress is abandoned. |
//! | [`QueueWorkers::start_queue`] | a new thread with the same handler |
//! | drop | ends all threads |
//!
//! A queue that cannot be used any more ends its thread and sets DEVICE_NEEDS_RESET.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use vmm_sys_util::eventfd::EventFd;

use super::buffers::Request;
use super::memory::DeviceMemory;
use super::queue::{Queue, QueueError};
use super::{Activation, Interrupt};

/// Handles the requests of one queue, on the queue's thread.
pub trait QueueHandler: Send {
    /// Handles a request. Returns the number of bytes that were written from the start of its device-writable buffers on.
    ///
    /// A handler that takes long polls `stop` and returns early once it is set: the request is then abandoned.
    fn handle(&mut self, request: Request<'_>, stop: &StopFlag) -> u32;
}

/// Set when a queue's thread has to end.
#[derive(Debug, Default)]
pub struct StopFlag(AtomicBool);

impl StopFlag {
    /// Whether the thread has to end.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The queues of an active device, each with its handler and, while it is ready, a thread.
pub struct QueueWorkers {
    context: Context,
    queues: Vec<ServedQueue>,
}

/// What the threads of a device have in common.
#[derive(Clone)]
struct Context {
    /// For logs and as the name of the threads.
    device: &'static str,
    memory: DeviceMemory,
    interrupt: Arc<dyn Interrupt>,
}

struct ServedQueue {
    /// `None` while the thread has it, and after the thread panicked.
    handler: Option<Box<dyn QueueHandler>>,
    worker: Option<Worker>,
}

impl QueueWorkers {
    /// Starts a thread for each queue that is ready. `handlers` has one handler for each queue of the device, by index;
    /// `device` is the name of the threads.
    ///
    /// # Errors
    /// Returns an error if the host cannot create a thread or an eventfd.
    pub fn start(
        device: &'static str,
        activation: Activation,
        handlers: Vec<Box<dyn QueueHandler>>,
    ) -> io::Result<Self> {
        let Activation { memory, interrupt, queues, .. } = activation;
        let served = |handler| ServedQueue { handler: Some(handler), worker: None };
        let mut workers = QueueWorkers {
            context: Context { device, memory, interrupt },
            queues: handlers.into_iter().map(served).collect(),
        };
        for (index, queue) in (0..).zip(queues) {
            if let Some(queue) = queue {
                workers.start_queue(index, queue)?;
            }
        }
        Ok(workers)
    }

    /// Wakes the thread of a queue. Does nothing if the queue does not exist or is stopped.
    pub fn notify(&self, queue: u16) {
        if let Some(worker) = self.queues.get(usize::from(queue)).and_then(|queue| queue.worker.as_ref()) {
            worker.wake();
        }
    }

    /// Ends the thread of a queue. When this returns, neither the queue nor a buffer of its requests is accessed.
    pub fn stop_queue(&mut self, queue: u16) {
        if let Some(queue) = self.queues.get_mut(usize::from(queue))
            && let Some(worker) = queue.worker.take()
        {
            queue.handler = worker.stop();
        }
    }

    /// Starts a thread for a queue that has none.
    ///
    /// # Errors
    /// Returns an error if the queue has no handler, is served already, or the host cannot create a thread or an eventfd.
    pub fn start_queue(&mut self, index: u16, queue: Queue) -> io::Result<()> {
        let served = self.queues.get_mut(usize::from(index)).ok_or(io::ErrorKind::NotFound)?;
        let handler = served.handler.take().ok_or(io::ErrorKind::ResourceBusy)?;
        served.worker = Some(Worker::start(self.context.clone(), index, queue, handler)?);
        Ok(())
    }
}

/// A thread, which ends when this is dropped.
struct Worker {
    wake: Arc<Wake>,
    thread: Option<JoinHandle<Box<dyn QueueHandler>>>,
}

/// Wakes the thread.
struct Wake {
    event: EventFd,
    stop: StopFlag,
}

impl Worker {
    fn start(context: Context, index: u16, queue: Queue, handler: Box<dyn QueueHandler>) -> io::Result<Self> {
        let wake = Arc::new(Wake { event: EventFd::new(0)?, stop: StopFlag::default() });
        let server = Server { context, index, queue, handler, wake: Arc::clone(&wake) };
        let thread = thread::Builder::new().name(server.thread_name()).spawn(|| server.run())?;
        Ok(Worker { wake, thread: Some(thread) })
    }

    fn wake(&self) {
        // Blocks only while 2^64 - 2 notifications are pending.
        let _ = self.wake.event.write(1);
    }

    /// Ends the thread and returns its handler. `None` if the thread panicked.
    fn stop(mut self) -> Option<Box<dyn QueueHandler>> {
        self.join()
    }

    fn join(&mut self) -> Option<Box<dyn QueueHandler>> {
        self.wake.stop.0.store(true, Ordering::Relaxed);
        self.wake();
        let outcome = self.thread.take()?.join();
        if outcome.is_err() {
            tracing::error!("the thread of a virtio queue panicked");
        }
        outcome.ok()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.join();
    }
}

/// What the thread owns.
struct Server {
    context: Context,
    index: u16,
    queue: Queue,
    handler: Box<dyn QueueHandler>,
    wake: Arc<Wake>,
}

impl Server {
    /// The device's name, with the queue's index behind the first one. Linux shows 15 bytes of it.
    fn thread_name(&self) -> String {
        match self.index {
            0 => self.context.device.to_owned(),
            index => format!("{}.{index}", self.context.device),
        }
    }

    fn run(mut self) -> Box<dyn QueueHandler> {
        while self.wait() {
            if let Err(error) = self.serve() {
                let (device, queue) = (self.context.device, self.index);
                tracing::warn!(device, queue, %error, "virtio device needs a reset");
                self.context.interrupt.needs_reset();
                break;
            }
        }
        self.handler
    }

    /// Waits for a notification. False if the thread has to end.
    fn wait(&self) -> bool {
        loop {
            let outcome = self.wake.event.read();
            if self.wake.stop.is_set() {
                return false;
            }
            match outcome {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                outcome => return outcome.is_ok(),
            }
        }
    }

    /// Handles requests until the queue is empty.
    fn serve(&mut self) -> Result<(), QueueError> {
        let mut more = true;
        while more && !self.wake.stop.is_set() {
            self.queue.suppress_notifications()?;
            while let Some(head) = self.queue.pop()? {
                let request = Request::read(&self.context.memory, &self.queue, head)?;
                let written = self.handler.handle(request, &self.wake.stop);
                if self.wake.stop.is_set() {
                    return Ok(());
                }
                self.queue.add_used(head, written)?;
                if self.queue.needs_interrupt()? {
                    self.context.interrupt.used_buffer(self.index);
                }
            }
            more = self.queue.request_notifications()?;
        }
        Ok(())
    }
}
