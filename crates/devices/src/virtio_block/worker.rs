//! The thread that serves a disk's queue.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use guest_memory::{AccessError, GuestRam};
use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vmm_sys_util::eventfd::EventFd;

use super::request::Server;
use crate::poison_observer::PoisonObserver;
use crate::virtio::Interrupt;
use crate::virtio::buffers::Request;
use crate::virtio::chain::Chain;

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
        ram: GuestRam,
        interrupt: Arc<dyn Interrupt>,
        lost: Arc<dyn PoisonObserver>,
    ) -> io::Result<Self> {
        let wake = Arc::new(Wake { event: EventFd::new(0)?, stop: AtomicBool::new(false) });
        let served = Served { server, queue, ram, interrupt, lost, wake: Arc::clone(&wake) };
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

/// Why a queue stands still.
#[derive(Debug, thiserror::Error)]
enum Halt {
    /// The driver wrote nonsense into it.
    #[error("it makes no sense: {0}")]
    Nonsense(#[from] virtio_queue::Error),
    /// Its memory is not there any more.
    #[error(transparent)]
    Memory(#[from] AccessError),
}

/// What the thread owns.
struct Served {
    server: Server,
    queue: Queue,
    ram: GuestRam,
    interrupt: Arc<dyn Interrupt>,
    lost: Arc<dyn PoisonObserver>,
    wake: Arc<Wake>,
}

impl Served {
    fn run(mut self) {
        while self.wait() {
            if let Err(halt) = self.serve() {
                if let Halt::Memory(AccessError::Poisoned(page)) = &halt {
                    self.lost.touched(page.gpa, page.log2_len);
                }
                tracing::warn!(error = %halt, "a disk's queue stands still until the driver resets it");
                self.interrupt.needs_reset();
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
    fn serve(&mut self) -> Result<(), Halt> {
        let mut more = true;
        while more && !self.is_stopped() {
            self.probe()?;
            self.queue.disable_notification(self.ram.memory())?;
            while let Some(head) = self.next_head()? {
                let chain = Chain::new(&self.ram, self.queue.desc_table(), self.queue.size(), head);
                let written = self.server.serve(Request::of(chain, &self.ram)?, &self.wake.stop);
                if self.is_stopped() {
                    return Ok(());
                }
                self.probe()?;
                self.queue.add_used(self.ram.memory(), head, written)?;
                if self.queue.needs_notification(self.ram.memory())? {
                    self.interrupt.used_buffer(0);
                }
            }
            self.probe()?;
            more = self.queue.enable_notification(self.ram.memory())?;
        }
        Ok(())
    }

    /// The descriptor that the next request begins with.
    fn next_head(&mut self) -> Result<Option<u16>, Halt> {
        self.probe()?;
        Ok(self.queue.iter(self.ram.memory())?.next().map(|chain| chain.head_index()))
    }

    /// Looks whether the queue's own memory is there, since the accesses that follow do not survive it if it is not: what
    /// is lost between the two ends the process.
    fn probe(&self) -> Result<(), AccessError> {
        let elements = u64::from(self.queue.size());
        // VIRTIO 1.2, 2.7: 16 bytes of descriptor, 2 of available and 8 of used ring for each; 6 more for either ring.
        self.ram.probe(self.queue.desc_table(), 16 * elements)?;
        self.ram.probe(self.queue.avail_ring(), 6 + 2 * elements)?;
        self.ram.probe(self.queue.used_ring(), 6 + 8 * elements)
    }

    fn is_stopped(&self) -> bool {
        self.wake.stop.load(Ordering::Relaxed)
    }
}
