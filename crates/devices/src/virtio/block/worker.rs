//! The thread that serves a disk's queue.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use virtio_queue::{Error, Queue, QueueOwnedT, QueueT};
use vm_memory::GuestMemoryMmap;
use vmm_sys_util::eventfd::EventFd;

use super::request::Server;
use crate::virtio::Signal;
use crate::virtio::buffers::Request;

/// A thread, which ends when this is dropped.
pub(super) struct Worker {
    wake: Arc<Wake>,
    thread: Option<JoinHandle<()>>,
}

/// What wakes the thread.
struct Wake {
    event: EventFd,
    stop: AtomicBool,
}

impl Worker {
    /// Starts to serve a queue.
    ///
    /// # Errors
    /// Where the host gives no thread, or no eventfd.
    pub(super) fn start(
        server: Server,
        queue: Queue,
        memory: GuestMemoryMmap,
        signal: Signal,
    ) -> io::Result<Self> {
        let wake = Arc::new(Wake { event: EventFd::new(0)?, stop: AtomicBool::new(false) });
        let served = Served { server, queue, memory, signal, wake: Arc::clone(&wake) };
        let thread = thread::Builder::new().name("virtio-block".into()).spawn(|| served.run())?;
        Ok(Worker { wake, thread: Some(thread) })
    }

    /// Says that there are requests.
    pub(super) fn kick(&self) {
        // Blocks only where 2^64 - 2 kicks are pending.
        let _ = self.wake.event.write(1);
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.wake.stop.store(true, Ordering::Relaxed);
        self.kick();
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("a disk's thread panicked");
        }
    }
}

/// What the thread owns.
struct Served {
    server: Server,
    queue: Queue,
    memory: GuestMemoryMmap,
    signal: Signal,
    wake: Arc<Wake>,
}

impl Served {
    fn run(mut self) {
        while self.wait() {
            if let Err(error) = self.serve() {
                tracing::warn!(%error, "a disk's queue makes no sense: it stands still until the driver resets it");
                self.signal.needs_reset();
                return;
            }
        }
    }

    /// Waits for requests. False where the thread is to end.
    fn wait(&self) -> bool {
        loop {
            let outcome = self.wake.event.read();
            if self.is_stopped() {
                return false;
            }
            match outcome {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                outcome => return outcome.is_ok(),
            }
        }
    }

    /// Carries out all requests that there are.
    fn serve(&mut self) -> Result<(), Error> {
        let mut more = true;
        while more && !self.is_stopped() {
            self.queue.disable_notification(&self.memory)?;
            while let Some(chain) = self.queue.iter(&self.memory)?.next() {
                let head = chain.head_index();
                let written = self.server.serve(Request::of(chain, &self.memory), &self.wake.stop);
                if self.is_stopped() {
                    return Ok(());
                }
                self.queue.add_used(&self.memory, head, written)?;
                if self.queue.needs_notification(&self.memory)? {
                    self.signal.used_buffers();
                }
            }
            more = self.queue.enable_notification(&self.memory)?;
        }
        Ok(())
    }

    fn is_stopped(&self) -> bool {
        self.wake.stop.load(Ordering::Relaxed)
    }
}
