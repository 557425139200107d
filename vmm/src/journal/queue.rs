//! The queue of events and log lines, between the threads of a machine and the one that writes them.
//!
//! A thread that queues something allocates nothing for an event, takes no lock and never waits. In a burst, for example when a
//! reset repairs thousands of pages, the queue is full, and what follows waits behind a lock; if there is no space either, it is
//! counted as missing.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use guest_memory::own;
use rustix::event::{EventfdFlags, eventfd};

use super::Note;
use super::followers::{Follower, Slots};

/// Items of the queue, and of a burst. Their memory is allocated at the start; that of a burst is not touched before there is one.
const QUEUE_CAPACITY: usize = 1024;
const BURST_CAPACITY: usize = 1 << 17;

/// What is written.
#[derive(Debug)]
pub(super) enum Item {
    /// An event, at a time since the start of the process.
    Event(Duration, Note),
    /// Lines for standard error.
    Text(Box<str>),
    /// A client that gets the events that are queued behind this.
    Follower(Box<Follower>),
}

/// The sending end of the queue, for any thread.
#[derive(Clone, Debug)]
pub struct Queue {
    sender: SyncSender<Item>,
    state: Arc<State>,
}

/// What the threads that queue items and the writer's thread share.
#[derive(Debug)]
pub(super) struct State {
    /// An eventfd.
    pub(super) wake: OwnedFd,
    /// What the queue has no space for.
    burst: Mutex<VecDeque<Item>>,
    /// `burst` is not empty: what follows is put there too, so that the order is kept.
    is_burst: AtomicBool,
    /// The writer's thread is not waiting, or was woken.
    pub(super) is_awake: AtomicBool,
    /// Everything that the writer's thread took from the queue is written.
    pub(super) is_flushed: AtomicBool,
    /// The journal is dropped.
    pub(super) is_closed: AtomicBool,
    /// Signalled when everything is written.
    pub(super) flush: Mutex<Option<Sender<()>>>,
    has_event_file: bool,
    followers: Slots,
    pub(super) events: Count,
    pub(super) texts: Count,
}

/// How many events, or log lines, there were.
#[derive(Debug, Default)]
pub(super) struct Count {
    /// Those to be written.
    total: AtomicU64,
    pub(super) written: AtomicU64,
    /// Those that are missing for ever.
    pub(super) lost: AtomicU64,
    /// The part of `lost` that the writer's thread has yet to put in a notice.
    pub(super) unreported: AtomicU64,
}

/// What is missing in the output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Missing {
    /// Events that are not in the event file.
    pub events: u64,
    /// Log lines that are not on standard error.
    pub log_lines: u64,
}

impl Queue {
    /// Queues an item.
    pub(super) fn push(&self, item: Item) {
        let state = &*self.state;
        let count = match item {
            Item::Event(..) if state.has_event_file => &state.events,
            _ => &state.texts,
        };
        // A client is no line.
        let lines = u64::from(!matches!(item, Item::Follower(_)));
        count.total.fetch_add(lines, Ordering::Relaxed);
        let unsent = if state.is_burst.load(Ordering::SeqCst) {
            Some(item)
        } else {
            match self.sender.try_send(item) {
                Ok(()) => None,
                Err(TrySendError::Full(item) | TrySendError::Disconnected(item)) => Some(item),
            }
        };
        if let Some(item) = unsent {
            let mut burst = lock(&state.burst);
            if burst.len() < BURST_CAPACITY {
                burst.push_back(item);
                state.is_burst.store(true, Ordering::SeqCst);
            } else {
                count.lost.fetch_add(lines, Ordering::Relaxed);
                count.unreported.fetch_add(lines, Ordering::Relaxed);
            }
        }
        state.wake();
    }

    /// Sends a client a line, and then the events to come.
    pub(super) fn follow(&self, client: UnixStream, first: String) {
        self.push(Item::Follower(Box::new(self.state.followers.follower(client, first))));
    }

    /// The number of clients that follow the events.
    pub(super) fn followers(&self) -> usize {
        self.state.followers.taken()
    }

    /// Queues lines for standard error.
    pub fn push_text(&self, text: &str) {
        self.push(Item::Text(text.into()));
    }

    /// Waits until everything is written that was queued before, until the timeout at most.
    pub(super) fn flush(&self, timeout: Duration) {
        let (sender, flushed) = std::sync::mpsc::channel();
        *lock(&self.state.flush) = Some(sender);
        self.state.wake();
        // An error means that the time is over.
        let _ = flushed.recv_timeout(timeout);
    }

    /// What is missing so far.
    pub(super) fn lost(&self) -> Missing {
        let lost = |count: &Count| count.lost.load(Ordering::Relaxed);
        Missing { events: lost(&self.state.events), log_lines: lost(&self.state.texts) }
    }

    /// What is not written so far.
    pub(super) fn unwritten(&self) -> Missing {
        let unwritten = |count: &Count| {
            let written = count.written.load(Ordering::Relaxed);
            count.total.load(Ordering::Relaxed).saturating_sub(written)
        };
        Missing { events: unwritten(&self.state.events), log_lines: unwritten(&self.state.texts) }
    }

    pub(super) fn state(&self) -> &Arc<State> {
        &self.state
    }
}

impl State {
    /// Wakes the writer's thread if it waits.
    fn wake(&self) {
        if !self.is_awake.swap(true, Ordering::SeqCst) {
            // Fails only if the counter would overflow.
            let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
        }
    }

    /// Ends the writer's thread.
    pub(super) fn close(&self) {
        self.is_closed.store(true, Ordering::SeqCst);
        self.wake();
    }

    /// Whether everything that was queued is written. Async-signal-safe.
    pub(super) fn is_flushed(&self) -> bool {
        !self.is_awake.load(Ordering::SeqCst) && self.is_flushed.load(Ordering::SeqCst)
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The receiving end of the queue.
pub(super) struct Items {
    received: Receiver<Item>,
    pub(super) state: Arc<State>,
}

/// Creates a queue; `has_event_file` says where events are to be written.
///
/// # Errors
/// Returns an error if the host cannot create an eventfd.
pub(super) fn create(has_event_file: bool) -> io::Result<(Queue, Items)> {
    let (sender, received) = sync_channel(QUEUE_CAPACITY);
    let mut burst = Vec::with_capacity(BURST_CAPACITY);
    own::avoid_huge_pages(burst.spare_capacity_mut());
    let state = Arc::new(State {
        burst: Mutex::new(burst.into()),
        is_burst: AtomicBool::new(false),
        wake: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
        is_awake: AtomicBool::new(true),
        is_flushed: AtomicBool::new(true),
        is_closed: AtomicBool::new(false),
        flush: Mutex::default(),
        has_event_file,
        followers: Slots::default(),
        events: Count::default(),
        texts: Count::default(),
    });
    Ok((Queue { sender, state: Arc::clone(&state) }, Items { received, state }))
}

impl Items {
    /// The next item, in the order of each thread that queues items.
    pub(super) fn next(&self) -> Option<Item> {
        if let Ok(item) = self.received.try_recv() {
            return Some(item);
        }
        if !self.state.is_burst.load(Ordering::SeqCst) {
            return None;
        }
        let mut burst = lock(&self.state.burst);
        // Again, under the lock: a thread may have queued one before it saw the burst.
        if let Ok(item) = self.received.try_recv() {
            return Some(item);
        }
        let item = burst.pop_front();
        if burst.is_empty() {
            // Its next item is at the start of its memory again.
            burst.clear();
            self.state.is_burst.store(false, Ordering::SeqCst);
        }
        item
    }
}
