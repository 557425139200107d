//! The threads that serve a device's queues: one for each [`QueueGroup`].
//!
//! | call | |
//! |---|---|
//! | [`QueueWorkers::start`] | at DRIVER_OK: a thread for each group with a queue that is ready |
//! | [`QueueWorkers::stop_queue`] | ends the group's thread, abandons the requests in progress, and continues without the queue |
//! | [`QueueWorkers::start_queue`] | ends the group's thread, and continues with the queue |
//! | drop | ends all threads |
//!
//! The driver's notification of a queue is its eventfd ([`Activation::kicks`]), which the thread waits for.
//!
//! With the feature `testing`, an activation can have the groups served by its caller instead, turn by turn and without a thread
//! (`QueueWorkers::run_until_idle`): what a device does is then the same in each run.

use std::io;
use std::os::fd::AsRawFd;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use guest_memory::own;
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EventFd};

use super::group::{Group, GroupContext, QueueGroup, ReadyQueue, ServeError};
use super::memory::DeviceMemory;
use super::queue::Queue;
use super::{Activation, Interrupt};

/// Set when a group's thread has to end.
#[derive(Debug, Default)]
pub struct StopFlag(AtomicBool);

impl StopFlag {
    /// Whether the thread has to end.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The queues of an active device, in groups, each with a thread while one of its queues is ready.
pub struct QueueWorkers {
    context: Context,
    groups: Vec<ServedGroup>,
}

/// What the threads of a device have in common.
#[derive(Clone)]
struct Context {
    /// For logs and as the name of the threads.
    device: &'static str,
    memory: DeviceMemory,
    interrupt: Arc<dyn Interrupt>,
    /// The driver's notifications, by index of the queue.
    kicks: Arc<[Arc<EventFd>]>,
    #[cfg(feature = "testing")]
    without_threads: bool,
}

struct ServedGroup {
    /// Indices of its queues.
    queues: Vec<u16>,
    state: State,
}

enum State {
    Running(Worker),
    /// The caller of [`QueueWorkers::run_until_idle`] serves it.
    #[cfg(feature = "testing")]
    OfCaller(Server),
    Stopped(Idle),
    /// The thread failed or panicked: the device needs a reset.
    Failed,
}

/// A group without a thread.
struct Idle {
    handler: Box<dyn QueueGroup>,
    /// Those of its queues that are ready.
    ready: Vec<ReadyQueue>,
}

impl QueueWorkers {
    /// Starts a thread for each group with a queue that is ready. `device` is the name of the
    /// threads.
    ///
    /// # Errors
    /// Returns an error if the host cannot create a thread, an eventfd or an epoll instance.
    pub fn start(
        device: &'static str,
        activation: Activation,
        groups: impl IntoIterator<Item = Group>,
    ) -> io::Result<Self> {
        let context = Context {
            device,
            memory: activation.memory,
            interrupt: activation.interrupt,
            kicks: activation.kicks,
            #[cfg(feature = "testing")]
            without_threads: activation.without_threads,
        };
        let ready = (0..).zip(activation.queues);
        let ready = ready.filter_map(|(index, queue)| Some(ReadyQueue::new(index, queue?)));
        let mut ready: Vec<_> = ready.collect();
        let mut workers = QueueWorkers { context, groups: Vec::new() };
        for (queues, handler) in groups {
            let ready = ready.extract_if(.., |ready| queues.contains(&ready.index)).collect();
            let mut group = ServedGroup { queues, state: State::Failed };
            group.run(Idle { handler, ready }, &workers.context)?;
            workers.groups.push(group);
        }
        Ok(workers)
    }

    /// Stops serving a queue. When this returns, neither the queue nor a buffer of its requests is accessed.
    pub fn stop_queue(&mut self, index: u16) {
        let Some(group) = self.groups.iter_mut().find(|group| group.queues.contains(&index)) else { return };
        let Some(mut idle) = group.stop() else { return };
        idle.ready.retain(|ready| ready.index != index);
        idle.handler.stopped(index);
        if let Err(error) = group.run(idle, &self.context) {
            self.context.fail(&error.into());
        }
    }

    /// Starts to serve a queue that is stopped.
    ///
    /// # Errors
    /// Returns an error if the queue is in no group, is served already, or the host cannot create a thread, an eventfd or an epoll
    /// instance.
    pub fn start_queue(&mut self, index: u16, queue: Queue) -> io::Result<()> {
        let mut groups = self.groups.iter_mut();
        let group = groups.find(|group| group.queues.contains(&index)).ok_or(io::ErrorKind::NotFound)?;
        let mut idle = group.stop().ok_or(io::ErrorKind::BrokenPipe)?;
        let is_served = idle.ready.iter().any(|ready| ready.index == index);
        if !is_served {
            idle.ready.push(ReadyQueue::new(index, queue));
        }
        group.run(idle, &self.context)?;
        if is_served { Err(io::ErrorKind::ResourceBusy.into()) } else { Ok(()) }
    }

    /// Serves the groups of an activation without threads, until nothing is ready. False if that does not happen within
    /// `max_turns` turns of a group: it would keep its thread busy for nothing.
    #[cfg(feature = "testing")]
    pub fn run_until_idle(&mut self, max_turns: u32) -> bool {
        for group in &mut self.groups {
            let mut turns = 0;
            while let State::OfCaller(server) = &mut group.state {
                match server.turn(0) {
                    Ok(0) => break,
                    Ok(_) if turns == max_turns => return false,
                    Ok(_) => turns += 1,
                    Err(error) => {
                        self.context.fail(&error);
                        group.state = State::Failed;
                    }
                }
            }
        }
        true
    }
}

impl ServedGroup {
    /// Ends the thread. `None` if it has failed.
    fn stop(&mut self) -> Option<Idle> {
        match std::mem::replace(&mut self.state, State::Failed) {
            State::Running(worker) => worker.join(),
            #[cfg(feature = "testing")]
            State::OfCaller(mut server) => server.end().ok().map(|()| server.idle),
            State::Stopped(idle) => Some(idle),
            State::Failed => None,
        }
    }

    /// Starts a thread, unless no queue is ready.
    fn run(&mut self, idle: Idle, context: &Context) -> io::Result<()> {
        self.state = match idle.ready.first() {
            #[cfg(feature = "testing")]
            Some(_) if context.without_threads => {
                let mut server = Server::new(context.clone(), idle, Arc::new(Stop::new()?))?;
                match server.start() {
                    Ok(()) => State::OfCaller(server),
                    Err(error) => {
                        context.fail(&error);
                        State::Failed
                    }
                }
            }
            Some(first) => State::Running(Worker::start(context.clone(), first.index, idle)?),
            None => State::Stopped(idle),
        };
        Ok(())
    }
}

impl Drop for ServedGroup {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Context {
    /// Sets DEVICE_NEEDS_RESET.
    fn fail(&self, error: &ServeError) {
        tracing::warn!(device = self.device, %error, "virtio device needs a reset");
        self.interrupt.needs_reset();
    }
}

/// A thread.
struct Worker {
    stop: Arc<Stop>,
    thread: JoinHandle<Option<Idle>>,
}

/// Ends the thread.
struct Stop {
    event: EventFd,
    flag: StopFlag,
}

impl Stop {
    fn new() -> io::Result<Self> {
        Ok(Stop { event: EventFd::new(EFD_CLOEXEC)?, flag: StopFlag::default() })
    }
}

impl Worker {
    fn start(context: Context, first: u16, idle: Idle) -> io::Result<Self> {
        let stop = Arc::new(Stop::new()?);
        let name = context.thread_name(first);
        let server = Server::new(context, idle, Arc::clone(&stop))?;
        let thread = own::thread(name).spawn(|| server.run())?;
        Ok(Worker { stop, thread })
    }

    /// Ends the thread and returns what it served. `None` if it failed.
    fn join(self) -> Option<Idle> {
        self.stop.flag.0.store(true, Ordering::Relaxed);
        // Blocks only while 2^64 - 2 writes are pending.
        let _ = self.stop.event.write(1);
        let outcome = self.thread.join();
        if outcome.is_err() {
            tracing::error!("the thread of a virtio queue panicked");
        }
        outcome.ok().flatten()
    }
}

impl Context {
    /// The device's name, with the index of the group's first queue behind the first one. Linux shows 15 bytes of it.
    fn thread_name(&self, first: u16) -> String {
        match first {
            0 => self.device.to_owned(),
            first => format!("{}.{first}", self.device),
        }
    }
}

/// What the thread owns.
struct Server {
    context: Context,
    idle: Idle,
    stop: Arc<Stop>,
    epoll: Epoll,
}

/// The most descriptors that one call of epoll_wait(2) returns.
const MAX_EVENTS: usize = 32;
/// A descriptor of the group has a token of 32 bits. Behind these: the queue with that index was kicked.
const KICK: u64 = 1 << 32;
/// The thread has to end.
const STOP: u64 = 1 << 33;

impl Server {
    fn new(context: Context, idle: Idle, stop: Arc<Stop>) -> io::Result<Self> {
        Ok(Server { epoll: Epoll::new()?, context, idle, stop })
    }

    /// Serves the queues until the thread has to end. `None` if it failed.
    fn run(mut self) -> Option<Idle> {
        let serve = AssertUnwindSafe(|| {
            let outcome = self.serve();
            let ended = self.end();
            outcome.and(ended)
        });
        match panic::catch_unwind(serve) {
            Ok(Ok(())) => Some(self.idle),
            Ok(Err(error)) => {
                self.context.fail(&error);
                None
            }
            Err(_) => {
                self.context.fail(&io::Error::other("its thread panicked").into());
                None
            }
        }
    }

    fn serve(&mut self) -> Result<(), ServeError> {
        self.start()?;
        while !self.stop.flag.is_set() {
            self.turn(-1)?;
        }
        Ok(())
    }

    fn start(&mut self) -> Result<(), ServeError> {
        let Server { context, idle: Idle { ready, .. }, stop, epoll } = self;
        watch(epoll, &stop.event, STOP)?;
        for ReadyQueue { index, .. } in &*ready {
            if let Some(kick) = context.kicks.get(usize::from(*index)) {
                watch_kick(epoll, *index, kick)?;
            }
        }
        let indices: Vec<_> = ready.iter().map(|ready| ready.index).collect();
        self.call(|handler, group| handler.start(group))?;
        for index in indices {
            if !self.stop.flag.is_set() {
                self.call(|handler, group| handler.available(index, group))?;
            }
        }
        Ok(())
    }

    /// Has the group give up what it holds of its queues.
    fn end(&mut self) -> Result<(), ServeError> {
        self.call(|handler, group| handler.ended(group))
    }

    /// Waits, for `timeout` milliseconds or without end, and handles what is ready. Returns how many descriptors were.
    fn turn(&mut self, timeout: i32) -> Result<usize, ServeError> {
        let mut events = [EpollEvent::default(); MAX_EVENTS];
        let count = match self.epoll.wait(timeout, &mut events) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            outcome => outcome?,
        };
        for event in &events[..count] {
            if self.stop.flag.is_set() {
                break;
            }
            match event.data() {
                STOP => {}
                data if data >= KICK => {
                    let index = (data - KICK) as u16;
                    if let Some(kick) = self.context.kicks.get(usize::from(index)) {
                        // Never blocks: EAGAIN if the count is 0.
                        let _ = kick.read();
                    }
                    self.call(|handler, group| handler.available(index, group))?;
                }
                token => {
                    self.call(|handler, group| handler.ready(token as u32, event.event_set(), group))?;
                }
            }
        }
        Ok(count)
    }

    /// Calls the group. It is called again, after the other descriptors, for chains that it did not get.
    fn call(
        &mut self,
        call: impl FnOnce(&mut dyn QueueGroup, &mut GroupContext<'_>) -> Result<(), ServeError>,
    ) -> Result<(), ServeError> {
        let Server { context, idle: Idle { handler, ready }, stop, epoll } = self;
        ready.iter_mut().for_each(ReadyQueue::begin_call);
        let mut group = GroupContext {
            memory: &context.memory,
            interrupt: &*context.interrupt,
            stop: &stop.flag,
            epoll,
            kicks: &context.kicks,
            queues: ready,
        };
        call(&mut **handler, &mut group)?;
        for queue in ready.iter().filter(|queue| queue.is_unfinished()) {
            if let Some(kick) = context.kicks.get(usize::from(queue.index)) {
                // Fails only if 2^64 - 2 notifications are pending.
                let _ = kick.write(1);
            }
        }
        Ok(())
    }
}

/// Watches the driver's notifications of a queue.
pub(super) fn watch_kick(epoll: &Epoll, queue: u16, kick: &EventFd) -> io::Result<()> {
    watch(epoll, kick, KICK + u64::from(queue))
}

fn watch(epoll: &Epoll, fd: &impl AsRawFd, data: u64) -> io::Result<()> {
    epoll.ctl(ControlOperation::Add, fd.as_raw_fd(), EpollEvent::new(EventSet::IN, data))
}
