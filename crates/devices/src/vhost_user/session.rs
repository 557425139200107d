//! An active device whose queues a back end serves.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use guest_memory::own;
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::VhostUserBackend;
use super::connection::{ConnectError, Connection, Ring};
use crate::virtio::{Activation, DeviceMemory, Interrupt, Queue};

/// How long after a failed connection the next one is tried.
const RECONNECT_INTERVAL: Duration = Duration::from_secs(1);

/// The queues of an active device, which a back end serves. A thread of its own drives the connection.
///
/// When this is dropped, or a queue is stopped, the back end is asked to stop. One that does not answer is disconnected; what it does
/// with the guest's memory from then on cannot be prevented.
pub struct Session {
    context: Context,
    state: State,
}

/// What all threads of a session use.
#[derive(Clone)]
struct Context {
    /// For logs and as the name of the thread.
    device: &'static str,
    backend: Arc<VhostUserBackend>,
    memory: DeviceMemory,
    features: u64,
    interrupt: Arc<dyn Interrupt>,
    kicks: Arc<[Arc<EventFd>]>,
}

enum State {
    Running {
        stop: EventFd,
        thread: JoinHandle<Vec<Ring>>,
    },
    /// No queue is ready, or the thread could not be started.
    Stopped(Vec<Ring>),
}

impl Session {
    /// Starts to serve the queues that are ready. `device` is the name of the thread.
    ///
    /// # Errors
    /// Returns an error if the host cannot create a thread, an eventfd or an epoll instance. A back end that is gone is no error.
    pub fn start(
        device: &'static str,
        backend: Arc<VhostUserBackend>,
        activation: Activation,
    ) -> io::Result<Self> {
        let Activation { memory, features, queues, interrupt, kicks, .. } = activation;
        let context = Context { device, backend, memory, features, interrupt, kicks };
        let ready = (0..).zip(&queues).filter_map(|(index, queue)| Some((index, queue.as_ref()?)));
        let rings: io::Result<Vec<_>> = ready.map(|(index, queue)| context.ring(index, queue)).collect();
        let mut session = Session { context, state: State::Stopped(Vec::new()) };
        session.run(rings?)?;
        Ok(session)
    }

    /// Stops serving a queue.
    pub fn stop_queue(&mut self, index: u16) {
        let mut rings = self.stop();
        rings.retain(|ring| ring.index != index);
        if let Err(error) = self.run(rings) {
            tracing::warn!(device = self.context.device, %error, "virtio device needs a reset");
            self.context.interrupt.needs_reset();
        }
    }

    /// Starts to serve a queue that was stopped or not ready.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_queue(&mut self, index: u16, queue: &Queue) -> io::Result<()> {
        let ring = self.context.ring(index, queue)?;
        let mut rings = self.stop();
        rings.push(ring);
        self.run(rings)
    }

    /// Starts the thread, unless no queue is ready.
    fn run(&mut self, rings: Vec<Ring>) -> io::Result<()> {
        if rings.is_empty() {
            return Ok(());
        }
        let (stop, epoll) = (EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK)?, Epoll::new()?);
        watch(&epoll, &stop, EventSet::IN, STOP)?;
        for (position, ring) in (0..).zip(&rings) {
            watch(&epoll, &ring.call, EventSet::IN, position)?;
        }
        let server = Server { context: self.context.clone(), rings, epoll, reported: None };
        let name = self.context.device.to_owned();
        let thread = own::thread(name).spawn(|| server.run())?;
        self.state = State::Running { stop, thread };
        Ok(())
    }

    /// Ends the thread and returns its rings.
    fn stop(&mut self) -> Vec<Ring> {
        match std::mem::replace(&mut self.state, State::Stopped(Vec::new())) {
            State::Stopped(rings) => rings,
            State::Running { stop, thread } => {
                // The count is 0 before.
                let _ = stop.write(1);
                thread.join().unwrap_or_else(|_| {
                    tracing::error!(
                        device = self.context.device,
                        "the thread of a vhost-user device panicked"
                    );
                    Vec::new()
                })
            }
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Context {
    fn ring(&self, index: u16, queue: &Queue) -> io::Result<Ring> {
        let kick = self.kicks.get(usize::from(index)).ok_or(io::ErrorKind::NotFound)?;
        let (kick, call) = (Arc::clone(kick), EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK)?);
        Ok(Ring { index, layout: queue.layout(), base: 0, kick, call })
    }
}

/// What the thread owns.
struct Server {
    context: Context,
    rings: Vec<Ring>,
    epoll: Epoll,
    /// The failure that was logged last, until a connection succeeds.
    reported: Option<String>,
}

/// epoll data of the eventfd that ends the thread. Those of the rings are their positions.
const STOP: u64 = 1 << 16;
/// epoll data of the connection.
const CONNECTION: u64 = 1 << 17;

/// Why the thread stopped waiting.
enum Waited {
    /// It has to end.
    Stop,
    /// The back end closed the connection.
    Disconnected,
    /// The time has passed.
    TimedOut,
}

impl Server {
    fn run(mut self) -> Vec<Ring> {
        loop {
            let served = match self.connect() {
                Ok(connection) => self.serve(connection),
                Err(error) => {
                    self.report(&error);
                    self.rebase().map(|()| Waited::Disconnected)
                }
            };
            // A back end that goes at once, perhaps of the request that it is given again, is not connected to again and again.
            let waited = match served {
                Ok(Waited::Disconnected | Waited::TimedOut) => self.wait(Some(RECONNECT_INTERVAL)),
                ended => ended,
            };
            match waited {
                Ok(Waited::Stop) => return self.rings,
                Ok(Waited::Disconnected | Waited::TimedOut) => {}
                Err(error) => {
                    tracing::warn!(device = self.context.device, %error, "virtio device needs a reset");
                    self.context.interrupt.needs_reset();
                    return Vec::new();
                }
            }
        }
    }

    fn connect(&mut self) -> Result<Connection, ConnectError> {
        let Context { backend, memory, features, .. } = &self.context;
        let mut connection = backend.connection(*features)?;
        connection.start(*features, memory.ram(), &self.rings)?;
        Ok(connection)
    }

    /// Forwards notifications until the connection ends. An error is one of the rings or of this thread.
    fn serve(&mut self, mut connection: Connection) -> io::Result<Waited> {
        let Context { device, backend, .. } = &self.context;
        if self.reported.take().is_some() {
            tracing::info!(device, socket = ?backend.socket(), "vhost-user back end connected again");
            // What it or the driver notified meanwhile is lost.
            for ring in &self.rings {
                let _ = ring.kick.write(1);
                self.context.interrupt.used_buffer(ring.index);
            }
        }
        watch(&self.epoll, &connection, EventSet::READ_HANG_UP, CONNECTION)?;
        let waited = self.wait(None)?;
        self.epoll.ctl(ControlOperation::Delete, connection.as_raw_fd(), EpollEvent::default())?;
        match waited {
            Waited::Stop => match connection.stop(&mut self.rings) {
                Ok(()) => self.context.backend.keep(connection),
                Err(error) => {
                    drop(connection);
                    self.report(&error);
                    self.rebase()?;
                }
            },
            Waited::Disconnected | Waited::TimedOut => {
                drop(connection);
                self.report("it closed the connection");
                self.rebase()?;
            }
        }
        Ok(waited)
    }

    /// Has the next back end begin with the first request that was not returned to the driver.
    fn rebase(&mut self) -> io::Result<()> {
        for ring in &mut self.rings {
            let used = self.context.memory.load_u16(ring.layout.used_index());
            ring.base = used.map_err(io::Error::other)?;
        }
        Ok(())
    }

    /// Logs a failure, once until a connection succeeds or it changes.
    fn report(&mut self, error: impl ToString) {
        let error = error.to_string();
        if self.reported.as_ref() != Some(&error) {
            let Context { device, backend, .. } = &self.context;
            tracing::warn!(
                device,
                socket = ?backend.socket(),
                error,
                "no vhost-user back end: the device waits until one listens"
            );
            self.reported = Some(error);
        }
    }

    /// Forwards the back end's notifications to the driver until something else happens.
    fn wait(&self, timeout: Option<Duration>) -> io::Result<Waited> {
        let timeout = timeout.map_or(-1, |timeout| timeout.as_millis() as i32);
        let mut events = [EpollEvent::default(); 16];
        loop {
            let count = match self.epoll.wait(timeout, &mut events) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                outcome => outcome?,
            };
            let mut disconnected = false;
            for event in &events[..count] {
                match event.data() {
                    STOP => return Ok(Waited::Stop),
                    CONNECTION => disconnected = true,
                    position => {
                        if let Some(ring) = self.rings.get(position as usize) {
                            // Never blocks: EAGAIN if the count is 0.
                            let _ = ring.call.read();
                            self.context.interrupt.used_buffer(ring.index);
                        }
                    }
                }
            }
            if disconnected {
                return Ok(Waited::Disconnected);
            }
            if count == 0 {
                return Ok(Waited::TimedOut);
            }
        }
    }
}

fn watch(epoll: &Epoll, fd: &impl AsRawFd, events: EventSet, data: u64) -> io::Result<()> {
    epoll.ctl(ControlOperation::Add, fd.as_raw_fd(), EpollEvent::new(events, data))
}
