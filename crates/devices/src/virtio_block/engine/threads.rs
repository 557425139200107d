//! An engine of threads, each of which carries out one operation at a time.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use guest_memory::own;
use rustix::event::{EventfdFlags, eventfd};

use super::{Completion, Engine, Operation};
use crate::virtio_block::Disk;

/// The most threads of an engine: operations that a host carries out at the same time.
const MAX_THREADS: usize = 8;

/// The engine. It starts a thread when an operation finds none idle.
pub(super) struct Threads {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    disk: Arc<Disk>,
    /// Readable while there are completions, and perhaps for a moment after them.
    event: OwnedFd,
    state: Mutex<State>,
    /// An operation waits, or the threads are to end.
    work: Condvar,
    /// Ends the threads, and long operations.
    stop: AtomicBool,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Operation>,
    completed: VecDeque<Completion>,
    idle_threads: usize,
}

impl Threads {
    pub(super) fn new(disk: Arc<Disk>) -> io::Result<Self> {
        let shared = Shared {
            disk,
            event: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            state: Mutex::default(),
            work: Condvar::new(),
            stop: AtomicBool::new(false),
        };
        Ok(Threads { shared: Arc::new(shared), threads: Vec::new() })
    }
}

impl Engine for Threads {
    fn start(&mut self, operation: Operation) -> io::Result<()> {
        let mut state = self.shared.state();
        state.waiting.push_back(operation);
        let needs_thread = state.waiting.len() > state.idle_threads && self.threads.len() < MAX_THREADS;
        drop(state);
        self.shared.work.notify_one();
        if needs_thread {
            let shared = Arc::clone(&self.shared);
            match own::thread("virtio-block-io").spawn(move || shared.run()) {
                Ok(thread) => self.threads.push(thread),
                // The others will carry it out.
                Err(_) if !self.threads.is_empty() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn submit(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn completed(&mut self) -> Option<Completion> {
        if let Some(completion) = self.shared.state().completed.pop_front() {
            return Some(completion);
        }
        // Before the last look: a completion after it makes the descriptor readable again.
        let _ = rustix::io::read(&self.shared.event, &mut [0; 8]);
        self.shared.state().completed.pop_front()
    }

    fn events(&self) -> Vec<RawFd> {
        vec![self.shared.event.as_raw_fd()]
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        let mut state = self.shared.state();
        state.waiting.clear();
        drop(state);
        self.shared.work.notify_all();
        for thread in self.threads.drain(..) {
            // A thread that panicked is reported by the panic.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        while let Some(operation) = self.next() {
            let completion = operation.carry_out(&self.disk, &self.stop);
            self.state().completed.push_back(completion);
            // Fails only while 2^64 - 2 events are pending.
            let _ = rustix::io::write(&self.event, &1_u64.to_ne_bytes());
        }
    }

    /// The next operation. `None` if the thread is to end.
    fn next(&self) -> Option<Operation> {
        let mut state = self.state();
        loop {
            if self.stop.load(Ordering::Relaxed) {
                return None;
            }
            if let Some(operation) = state.waiting.pop_front() {
                return Some(operation);
            }
            state.idle_threads += 1;
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.idle_threads -= 1;
        }
    }
}
