//! The thread that writes events and log lines: the only one of a machine that writes to the event file and to standard error.
//!
//! It moves items from the [`Queue`] to the backlogs of the event file, of standard error and of the clients that follow the events
//! ([`Sink`]), which are independent of each other.

use std::io;
use std::sync::atomic::Ordering;
use std::thread::sleep;
use std::time::{Duration, Instant};

use guest_memory::own;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::followers::Followers;
use super::queue::{self, Item, Items, Queue, lock};
use super::sink::{Progress, Sink};
use super::{Note, fields, line, log};
use crate::log_limit;
use crate::rate::RateLimit;

/// Items that are taken from the queue before lines are written.
const BATCH: usize = 64;
/// Events that are written at once, and the interval of those that follow: a guest that consumes an error again and again causes
/// any number of them, and must not fill the host's disk. The others are missing.
const EVENT_BURST: u32 = 100_000;
const EVENT_INTERVAL: Duration = Duration::from_millis(10);
/// How long the writer's thread waits if poll(2) fails.
const POLL_RETRY_INTERVAL: Duration = Duration::from_millis(10);

/// What the writer's thread owns.
struct Writer {
    items: Items,
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
    let (queue, items) = queue::create(events.is_some())?;
    let event_limit = RateLimit::new(EVENT_BURST, EVENT_INTERVAL);
    let writer =
        Writer { items, events, stderr, followers: Followers::default(), event_limit, last: Duration::ZERO };
    own::thread("writer").spawn(move || writer.run())?;
    Ok(queue)
}

impl Writer {
    fn run(mut self) {
        loop {
            while self.take_queued() | self.write_lines() {}
            let is_flushed = self.sinks().all(Sink::is_empty);
            self.items.state.is_flushed.store(is_flushed, Ordering::SeqCst);
            self.items.state.is_awake.store(false, Ordering::SeqCst);
            // From here on an item or a request wakes the thread. One that came before did not.
            if !self.take_queued() && !self.answer_flush(is_flushed) {
                if self.items.state.is_closed.load(Ordering::SeqCst) {
                    return;
                }
                self.wait();
            }
            self.items.state.is_awake.store(true, Ordering::SeqCst);
            if log_limit::is_report_due(Instant::now()) {
                log_limit::report();
            }
        }
    }

    /// Answers a request to flush, or returns true if there is more to write for it.
    fn answer_flush(&self, is_flushed: bool) -> bool {
        let mut request = lock(&self.items.state.flush);
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

    /// Moves a batch of items to the backlogs. Returns false if there were none.
    fn take_queued(&mut self) -> bool {
        let mut count = 0;
        while count < BATCH
            && let Some(item) = self.items.next()
        {
            count += 1;
            match item {
                Item::Event(time, note) => self.take_event(time, &note),
                Item::Follower(follower) => self.followers.push(*follower),
                Item::Text(text) => {
                    if !self.stderr.append(text.into(), self.last) {
                        self.items.state.texts.lost.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
        }
        // Those that there was no space for came after those that are queued.
        self.stderr.miss(self.items.state.texts.unreported.swap(0, Ordering::Relaxed));
        if let Some(events) = &mut self.events {
            events.miss(self.items.state.events.unreported.swap(0, Ordering::Relaxed));
        }
        count > 0
    }

    fn take_event(&mut self, time: Duration, note: &Note) {
        log(note);
        self.last = self.last.max(time);
        if self.events.is_none() {
            self.items.state.texts.written.fetch_add(1, Ordering::Relaxed);
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
        self.items.state.events.lost.fetch_add(1, Ordering::Relaxed);
    }

    /// Writes what the outputs take now. Returns false if that is nothing.
    fn write_lines(&mut self) -> bool {
        let events = self.events.as_mut().map(|sink| (sink, &self.items.state.events, true));
        let mut any = false;
        for (sink, count, is_event_file) in
            events.into_iter().chain([(&mut self.stderr, &self.items.state.texts, false)])
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
        fds.push(PollFd::new(&self.items.state.wake, PollFlags::IN));
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
        let _ = rustix::io::read(&self.items.state.wake, &mut [0; 8]);
    }
}
