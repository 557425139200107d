//! The queue of events and log lines, and the thread that writes them: the only one of a machine that writes to the event file and
//! to standard error.
//!
//! A thread that queues something allocates nothing for an event, takes no lock and never waits. In a burst, for example when a
//! reset repairs thousands of pages, the queue is full, and what follows waits behind a lock; if there is no space either, it is
//! counted as missing. The writer's thread moves items to the backlogs of the event file, of standard error and of the clients that
//! follow the events ([`Sink`]), which are independent of each other.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use guest_memory::own;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;

use super::followers::{Follower, Followers, Slots};
use super::sink::{Progress, Sink};
use super::{Note, fields, line, log};
use crate::log_limit;
use crate::rate::RateLimit;

/// Items of the queue, and of a burst. Their memory is allocated at the start; that of a burst is not touched before there is one.
const QUEUE_CAPACITY: usize = 1024;
const BURST_CAPACITY: usize = 1 << 17;
/// Items that are taken from the queue before lines are written.
const BATCH: usize = 64;
/// Events that are written at once, and the interval of those that follow: a guest that consumes an error again and again causes
/// any number of them, and must not fill the host's disk. The others are missing.
const EVENT_BURST: u32 = 100_000;
const EVENT_INTERVAL: Duration = Duration::from_millis(10);
/// How long the writer's thread waits if poll(2) fails.
const POLL_RETRY_INTERVAL: Duration = Duration::from_millis(10);

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
    wake: OwnedFd,
    /// What the queue has no space for.
    burst: Mutex<VecDeque<Item>>,
    /// `burst` is not empty: what follows is put there too, so that the order is kept.
    is_burst: AtomicBool,
    /// The writer's thread is not waiting, or was woken.
    is_awake: AtomicBool,
    /// Everything that the writer's thread took from the queue is written.
    is_flushed: AtomicBool,
    /// The journal is dropped.
    is_closed: AtomicBool,
    /// Signalled when everything is written.
    flush: Mutex<Option<Sender<()>>>,
    has_event_file: bool,
    followers: Slots,
    events: Count,
    texts: Count,
}

/// How many events, or log lines, there were.
#[derive(Debug, Default)]
struct Count {
    /// Those to be written.
    total: AtomicU64,
    written: AtomicU64,
    /// Those that are missing for ever.
    lost: AtomicU64,
    /// The part of `lost` that the writer's thread has yet to put in a notice.
    unreported: AtomicU64,
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

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the writer's thread owns.
struct Writer {
    items: Receiver<Item>,
    state: Arc<State>,
    events: Option<Sink>,
    stderr: Sink,
    followers: Followers,
    event_limit: RateLimit,
    /// The time of the last event. An event that a later one overtook in the queue gets the time of that one.
    last: Duration,
}

/// Starts the writer's thread. It ends with the process, or when the journal is dropped.
///
/// # Errors
/// Returns an error if the host cannot create an eventfd or a thread.
pub(super) fn start(events: Option<Sink>, stderr: Sink) -> io::Result<Queue> {
    let (sender, items) = sync_channel(QUEUE_CAPACITY);
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
        has_event_file: events.is_some(),
        followers: Slots::default(),
        events: Count::default(),
        texts: Count::default(),
    });
    let event_limit = RateLimit::new(EVENT_BURST, EVENT_INTERVAL);
    let writer = Writer {
        items,
        state: Arc::clone(&state),
        events,
        stderr,
        followers: Followers::default(),
        event_limit,
        last: Duration::ZERO,
    };
    own::thread("writer").spawn(move || writer.run())?;
    Ok(Queue { sender, state })
}

impl Writer {
    fn run(mut self) {
        loop {
            while self.take_queued() | self.write_lines() {}
            let is_flushed = self.sinks().all(Sink::is_empty);
            self.state.is_flushed.store(is_flushed, Ordering::SeqCst);
            self.state.is_awake.store(false, Ordering::SeqCst);
            // From here on an item or a request wakes the thread. One that came before did not.
            if !self.take_queued() && !self.answer_flush(is_flushed) {
                if self.state.is_closed.load(Ordering::SeqCst) {
                    return;
                }
                self.wait();
            }
            self.state.is_awake.store(true, Ordering::SeqCst);
            if log_limit::is_report_due(Instant::now()) {
                log_limit::report();
            }
        }
    }

    /// Answers a request to flush, or returns true if there is more to write for it.
    fn answer_flush(&self, is_flushed: bool) -> bool {
        let mut request = lock(&self.state.flush);
        if request.is_some() && log_limit::has_suppressed() {
            drop(request);
            log_limit::report();
            return true;
        }
        if let Some(flushed) = request.take_if(|_| is_flushed) {
            // An error means that nothing waits any more.
            let _ = flushed.send(());
        }
        false
    }

    /// The outputs that a flush waits for.
    fn sinks(&self) -> impl Iterator<Item = &Sink> {
        [self.events.as_ref(), Some(&self.stderr)].into_iter().flatten()
    }

    /// The next item, in the order of each thread that queues items.
    fn next_item(&self) -> Option<Item> {
        if let Ok(item) = self.items.try_recv() {
            return Some(item);
        }
        if !self.state.is_burst.load(Ordering::SeqCst) {
            return None;
        }
        let mut burst = lock(&self.state.burst);
        // Again, under the lock: a thread may have queued one before it saw the burst.
        if let Ok(item) = self.items.try_recv() {
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

    /// Moves a batch of items to the backlogs. Returns false if there were none.
    fn take_queued(&mut self) -> bool {
        let mut count = 0;
        while count < BATCH
            && let Some(item) = self.next_item()
        {
            count += 1;
            match item {
                Item::Event(time, note) => self.take_event(time, &note),
                Item::Follower(follower) => self.followers.push(*follower),
                Item::Text(text) => {
                    if !self.stderr.append(text.into(), self.last) {
                        self.state.texts.lost.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
        }
        // Those that there was no space for came after those that are queued.
        self.stderr.miss(self.state.texts.unreported.swap(0, Ordering::Relaxed));
        if let Some(events) = &mut self.events {
            events.miss(self.state.events.unreported.swap(0, Ordering::Relaxed));
        }
        count > 0
    }

    fn take_event(&mut self, time: Duration, note: &Note) {
        log(note);
        self.last = self.last.max(time);
        if self.events.is_none() {
            self.state.texts.written.fetch_add(1, Ordering::Relaxed);
            if self.followers.is_empty() {
                return;
            }
        }
        let line = line(self.last, note.name().as_str(), fields(note));
        self.followers.append(&line, self.last);
        let Some(sink) = &mut self.events else { return };
        let is_permitted = matches!(note, Note::Stopped { .. }) || self.event_limit.permits(Instant::now());
        if !is_permitted {
            sink.miss(1);
        } else if sink.append(line, self.last) {
            return;
        }
        self.state.events.lost.fetch_add(1, Ordering::Relaxed);
    }

    /// Writes what the outputs take now. Returns false if that is nothing.
    fn write_lines(&mut self) -> bool {
        let events = self.events.as_mut().map(|sink| (sink, &self.state.events, true));
        let mut any = false;
        for (sink, count, is_event_file) in
            events.into_iter().chain([(&mut self.stderr, &self.state.texts, false)])
        {
            while !sink.is_empty()
                && let Some(Progress { written, lost, error }) = sink.write_line()
            {
                any = true;
                count.written.fetch_add(written, Ordering::Relaxed);
                count.lost.fetch_add(lost, Ordering::Relaxed);
                // What standard error misses is in the message at the end, if that can be written.
                if let (Some(error), true) = (error, is_event_file) {
                    tracing::error!(%error, "write(2) to the event file failed: events are missing there from now on");
                }
            }
        }
        any | self.followers.write_lines()
    }

    /// Waits until there are items, or an output takes more, or a client goes.
    fn wait(&mut self) {
        let waiting = self.sinks().filter(|sink| !sink.is_empty());
        let waiting = waiting.map(|sink| PollFd::new(sink, PollFlags::OUT));
        let mut fds: Vec<_> = self.followers.poll_fds().chain(waiting).collect();
        fds.push(PollFd::new(&self.state.wake, PollFlags::IN));
        let timeout = log_limit::has_suppressed()
            .then(|| Timespec { tv_sec: log_limit::REPORT_INTERVAL.as_secs() as i64, tv_nsec: 0 });
        if let Err(error) = poll(&mut fds, timeout.as_ref())
            && error != Errno::INTR
        {
            // ENOMEM: nothing else to do than to try again.
            sleep(POLL_RETRY_INTERVAL);
        }
        let polled: Vec<_> = fds.iter().map(PollFd::revents).collect();
        self.followers.remove_gone(&polled);
        // An error means that it was not signalled.
        let _ = rustix::io::read(&self.state.wake, &mut [0; 8]);
    }
}
