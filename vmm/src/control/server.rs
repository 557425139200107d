//! The machine's side: the listening socket and its clients, in an event loop.

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use devices::socket_file::{ListenError, Listener};
use event_manager::{EventOps, Events};
use rustix::io::Errno;
use serde_json::json;
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::timerfd::TimerFd;

use super::answer::Following;
use super::connection::{Connected, Connection};
use super::protocol::{Greeting, refusal, response};
use super::{MAX_CLIENTS, MAX_FOLLOWERS, MAX_UNREAD_LEN, Reply, Request};
use crate::journal::Journal;

/// The control socket and its clients. The socket's file is removed when this is dropped.
///
/// It is driven by an event loop: [`watch`](Self::watch) registers it, [`process`](Self::process) handles its events. Clients and their
/// requests are kept from one event loop to the next.
#[derive(Debug)]
pub struct Server {
    /// The first line of each connection.
    greeting: String,
    /// Takes over the connections of clients that follow the events.
    journal: Arc<Journal>,
    listener: Listener,
    clients: Vec<Connection>,
    /// Expires at the earliest deadline.
    timer: TimerFd,
    /// When accept(2) is tried again after it has failed. `None` while the listener is watched.
    accepts_again: Option<Instant>,
}

/// How long no connection is accepted after accept(2) has failed: the listener would be ready all the time.
const ACCEPT_RETRY_INTERVAL: Duration = Duration::from_secs(1);

impl Server {
    /// Listens at `path` for clients of the machine of that name, which follow the events of `journal`. A socket there at which no
    /// process listens is replaced. If the process is ended by a signal, the file is removed as well, see
    /// [`remove_all_in_signal_handler`](devices::socket_file::remove_all_in_signal_handler).
    ///
    /// # Errors
    /// Returns an error if the path is in use, or a system call fails. No file is left then.
    pub fn listen(path: &Path, machine: &str, journal: Arc<Journal>) -> Result<Self, ListenError> {
        let timer = TimerFd::new()
            .map_err(|error| ListenError::Call { call: "timerfd_create(2)", source: error.into() })?;
        let listener = Listener::at(path)?;
        let greeting = Greeting::of(machine).line();
        Ok(Server { greeting, journal, listener, clients: Vec::new(), timer, accepts_again: None })
    }

    /// Registers the socket and all clients with an event loop.
    pub fn watch(&mut self, ops: &mut EventOps<'_>) {
        self.accepts_again = None;
        add(ops, Events::new(&self.listener, EventSet::IN));
        add(ops, Events::new(&self.timer, EventSet::IN));
        self.clients.retain(|client| add(ops, Events::new(client, client.interest())));
        self.set_timer();
    }

    /// Handles an event: accepts a client, or carries out a request of one by `handle`, or writes what a client has not read yet.
    pub fn process(
        &mut self,
        events: Events,
        ops: &mut EventOps<'_>,
        handle: &mut dyn FnMut(Request) -> Reply,
    ) {
        let fd = events.fd();
        if fd == self.listener.as_raw_fd() {
            self.accept(ops);
        } else if fd == self.timer.as_raw_fd() {
            self.expire(ops);
        } else if let Some(index) = self.clients.iter().position(|client| client.as_raw_fd() == fd) {
            let client = &mut self.clients[index];
            let interest = client.interest();
            let mut connected = client.process(events.event_set(), handle);
            if connected == Connected::Follows && self.journal.followers() >= MAX_FOLLOWERS {
                let reason = format!("{MAX_FOLLOWERS} clients follow the events already, the maximum");
                connected = client.respond(refusal(&reason).into());
            }
            self.proceed(index, connected, interest, ops);
            self.limit_unread(ops);
        }
        self.set_timer();
    }

    /// Sends responses to the requests that other threads carried out, as far as their outcomes are known.
    pub fn finish(&mut self, ops: &mut EventOps<'_>) {
        // From the last one: a client that is removed is replaced by the last.
        for index in (0..self.clients.len()).rev() {
            let client = &mut self.clients[index];
            let interest = client.interest();
            let connected = client.finish();
            self.proceed(index, connected, interest, ops);
        }
        self.limit_unread(ops);
        self.set_timer();
    }

    /// Closes a client's connection, passes it on, or watches it for what it waits for now.
    fn proceed(&mut self, index: usize, connected: Connected, interest: EventSet, ops: &mut EventOps<'_>) {
        let client = &self.clients[index];
        match connected {
            Connected::No => self.close(index, ops),
            Connected::Follows => self.follow(index, ops),
            Connected::Yes if client.interest() != interest => {
                modify(ops, Events::new(client, client.interest()));
            }
            Connected::Yes => {}
        }
    }

    fn accept(&mut self, ops: &mut EventOps<'_>) {
        match self.listener.accept() {
            Ok(None) => {}
            Ok(Some(stream)) => {
                if self.clients.len() >= MAX_CLIENTS {
                    self.close_idle(ops);
                }
                if let Some(client) = Connection::new(UnixStream::from(stream), &self.greeting)
                    && add(ops, Events::new(&client, client.interest()))
                {
                    self.clients.push(client);
                }
            }
            // The next event accepts it, with the descriptor that this closes.
            Err(Errno::MFILE | Errno::NFILE) if !self.clients.is_empty() => self.close_idle(ops),
            Err(errno) => {
                let error = io::Error::from(errno);
                tracing::error!(%error, "accept(2) at the control socket failed: it is tried again in a second");
                remove(ops, Events::empty(&self.listener));
                self.accepts_again = Some(Instant::now() + ACCEPT_RETRY_INTERVAL);
            }
        }
    }

    /// Passes the connection of a client on to the journal, which sends it events until it goes: it is no client of this server any more.
    fn follow(&mut self, index: usize, ops: &mut EventOps<'_>) {
        let client = self.clients.swap_remove(index);
        remove(ops, Events::empty(&client));
        self.journal.follow(client.into_stream(), response(Ok(json!(Following {}))));
    }

    /// Closes the client that has completed no request for the longest time.
    fn close_idle(&mut self, ops: &mut EventOps<'_>) {
        let idle = self.clients.iter_mut().enumerate().filter(|(_, client)| !client.awaits_outcome());
        if let Some((index, client)) = idle.min_by_key(|(_, client)| client.idle_since()) {
            client.close_with("other clients need the connection");
            self.close(index, ops);
        }
    }

    /// Closes the clients that have had the longest time to read, until the responses of the others are within the limit.
    fn limit_unread(&mut self, ops: &mut EventOps<'_>) {
        while self.clients.iter().map(Connection::unread).sum::<usize>() > MAX_UNREAD_LEN {
            let readers = self.clients.iter().enumerate().filter(|(_, client)| client.unread() > 0);
            let Some((index, _)) = readers.min_by_key(|(_, client)| client.deadline()) else { return };
            self.close(index, ops);
        }
    }

    /// Closes the clients whose deadline has passed.
    fn expire(&mut self, ops: &mut EventOps<'_>) {
        let now = Instant::now();
        let is_due = |deadline: Option<Instant>| deadline.is_some_and(|deadline| deadline <= now);
        while let Some(index) = self.clients.iter().position(|client| is_due(client.deadline())) {
            self.clients[index].expire();
            self.close(index, ops);
        }
        if is_due(self.accepts_again) {
            self.accepts_again = None;
            add(ops, Events::new(&self.listener, EventSet::IN));
        }
    }

    fn close(&mut self, index: usize, ops: &mut EventOps<'_>) {
        let client = self.clients.swap_remove(index);
        remove(ops, Events::empty(&client));
    }

    /// Sets the timer to the earliest deadline. It is never read: to set it clears its expirations.
    fn set_timer(&mut self) {
        let deadlines = self.clients.iter().filter_map(Connection::deadline).chain(self.accepts_again);
        let outcome = match deadlines.min() {
            // A duration of zero would disarm it.
            Some(deadline) => {
                let left = deadline.saturating_duration_since(Instant::now());
                self.timer.reset(left.max(Duration::from_millis(1)), None)
            }
            None => self.timer.clear(),
        };
        if let Err(error) = outcome {
            tracing::error!(%error, "timerfd_settime(2) failed: slow clients of the control socket are not disconnected");
        }
    }
}

/// Returns false if the descriptor cannot be watched.
fn add(ops: &mut EventOps<'_>, events: Events) -> bool {
    is_done(ops.add(events), events)
}

fn modify(ops: &EventOps<'_>, events: Events) {
    is_done(ops.modify(events), events);
}

fn remove(ops: &mut EventOps<'_>, events: Events) {
    is_done(ops.remove(events), events);
}

fn is_done(outcome: Result<(), event_manager::Error>, events: Events) -> bool {
    if let Err(error) = &outcome {
        tracing::error!(
            ?error,
            fd = events.fd(),
            "epoll_ctl(2) failed: a descriptor of the control socket is not watched"
        );
    }
    outcome.is_ok()
}
