//! Clients of the control socket that follow the events, until they go. Nothing waits for them.

use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};

use super::dropped;
use super::sink::Sink;

/// A client.
#[derive(Debug)]
pub(super) struct Follower {
    sink: Sink,
    /// Counts it: see [`Slots`].
    _slot: Arc<()>,
}

/// The number of clients: each of them has one more reference.
#[derive(Debug, Default)]
pub(super) struct Slots(Arc<()>);

impl Slots {
    /// A client that gets a line, and then the events.
    pub(super) fn follower(&self, client: UnixStream, first: String) -> Follower {
        let mut sink = Sink::follower(client, dropped);
        // It has space for one line.
        sink.append(first, Duration::ZERO);
        Follower { sink, _slot: Arc::clone(&self.0) }
    }

    pub(super) fn taken(&self) -> usize {
        Arc::strong_count(&self.0) - 1
    }
}

/// The clients, as the writer's thread serves them.
#[derive(Debug, Default)]
pub(super) struct Followers(Vec<Follower>);

impl Followers {
    pub(super) fn push(&mut self, follower: Follower) {
        self.0.push(follower);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Queues a line for each of them. Those that have no space for it are sent the number of the missing ones.
    pub(super) fn append(&mut self, line: &str, now: Duration) {
        for Follower { sink, .. } in &mut self.0 {
            sink.append(line.to_owned(), now);
        }
    }

    /// Writes what they take now. Returns false if that is nothing.
    pub(super) fn write_lines(&mut self) -> bool {
        let mut any = false;
        self.0.retain_mut(|Follower { sink, .. }| {
            while !sink.is_empty()
                && let Some(progress) = sink.write_line()
            {
                any = true;
                if progress.error.is_some() {
                    return false;
                }
            }
            true
        });
        any
    }

    /// What poll(2) waits for: space, and in any case the end of a connection.
    pub(super) fn poll_fds(&self) -> impl Iterator<Item = PollFd<'_>> {
        self.0.iter().map(|Follower { sink, .. }| {
            PollFd::new(sink, if sink.is_empty() { PollFlags::empty() } else { PollFlags::OUT })
        })
    }

    /// Forgets those that have gone. `polled` are the results for [`poll_fds`](Self::poll_fds), in their order.
    pub(super) fn remove_gone(&mut self, polled: &[PollFlags]) {
        let mut polled = polled.iter();
        let is_gone = |flags: &PollFlags| flags.intersects(PollFlags::HUP | PollFlags::ERR);
        self.0.retain(|_| !polled.next().is_some_and(is_gone));
    }
}
