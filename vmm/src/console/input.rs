//! Standard input to the serial port.

use std::io::{self, Write, stderr, stdin};
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};

use devices::ConsolePort;
use rustix::termios::isatty;
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::escape::{Escapes, HELP, Request};
use crate::lifecycle::{Ending, Lifecycle};

/// How often input is offered again that the port has not accepted, for example during a driver's loopback test.
const RETRY_INTERVAL_MS: i32 = 20;

/// The thread that reads standard input.
pub struct Input {
    stop: Arc<EventFd>,
    thread: JoinHandle<()>,
}

impl Input {
    /// Starts reading.
    ///
    /// # Errors
    /// Returns an error if an eventfd, an epoll instance or the thread cannot be created.
    pub fn start(port: Arc<Mutex<dyn ConsolePort>>, lifecycle: &Arc<Lifecycle>) -> io::Result<Self> {
        let stop = Arc::new(EventFd::new(EFD_NONBLOCK)?);
        let room = lock(&port).rx_space().try_clone()?;
        let reader = Reader {
            keys: Waiter::new(&stdin(), &stop)?,
            port_ready: Waiter::new(&room, &stop)?,
            room,
            port,
            lifecycle: Arc::clone(lifecycle),
            escapes: isatty(stdin()).then(Escapes::default),
        };
        let thread = Builder::new().name("console-input".into()).spawn(move || reader.read_to_end())?;
        Ok(Input { stop, thread })
    }

    /// Stops reading. Input that the guest has not read is discarded.
    pub fn stop(self) {
        // Fails only if the counter would overflow.
        let _ = self.stop.write(1);
        if self.thread.join().is_err() {
            tracing::error!("the thread console-input panicked");
        }
    }
}

struct Reader {
    port: Arc<Mutex<dyn ConsolePort>>,
    /// Signalled when the guest has emptied the port's receive FIFO.
    room: EventFd,
    keys: Waiter,
    port_ready: Waiter,
    lifecycle: Arc<Lifecycle>,
    /// `None` if standard input is not a terminal: then there are no escape sequences.
    escapes: Option<Escapes>,
}

impl Reader {
    fn read_to_end(mut self) {
        let stdin = stdin();
        let mut bytes = [0; 4096];
        while let WaitResult::Ready = self.keys.wait(NO_TIMEOUT) {
            match rustix::io::read(&stdin, &mut bytes) {
                // The guest keeps running at the end of input.
                Ok(0) => return,
                Ok(count) => {
                    let mut keys = bytes[..count].to_vec();
                    self.handle_escapes(&mut keys);
                    if !self.send(&keys) {
                        return;
                    }
                }
                Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
                Err(error) => {
                    tracing::warn!(%error, "read(2) of standard input failed: the guest gets no more input");
                    return;
                }
            }
        }
    }

    fn handle_escapes(&mut self, keys: &mut Vec<u8>) {
        let Some(escapes) = &mut self.escapes else { return };
        for request in escapes.filter(keys) {
            match request {
                Request::Quit => self.lifecycle.end(Ending::Quit),
                // An error is ignored: the guest keeps running without the help text.
                Request::Help => drop(stderr().write_all(HELP.as_bytes())),
            }
        }
    }

    /// Sends `keys` to the guest as fast as it reads them. Returns false if the machine stops first.
    fn send(&self, mut keys: &[u8]) -> bool {
        while !keys.is_empty() {
            let accepted = lock(&self.port).input(keys);
            keys = &keys[accepted..];
            if !keys.is_empty() {
                match self.port_ready.wait(RETRY_INTERVAL_MS) {
                    // An error means that it was read already.
                    WaitResult::Ready => drop(self.room.read()),
                    WaitResult::TimedOut => {}
                    WaitResult::Stopped => return false,
                }
            }
        }
        true
    }
}

/// Waits until a descriptor is readable or reading has to stop.
struct Waiter {
    epoll: Epoll,
    /// A regular file: always readable, and not supported by epoll_ctl(2), which returns EPERM.
    always_ready: bool,
}

/// Why a wait ended.
enum WaitResult {
    Ready,
    TimedOut,
    Stopped,
}

const READY: u64 = 0;
const STOP: u64 = 1;
const NO_TIMEOUT: i32 = -1;

impl Waiter {
    fn new(what: &impl AsRawFd, stop: &EventFd) -> io::Result<Self> {
        let epoll = Epoll::new()?;
        epoll.ctl(ControlOperation::Add, stop.as_raw_fd(), EpollEvent::new(EventSet::IN, STOP))?;
        let event = EpollEvent::new(EventSet::IN, READY);
        let always_ready = match epoll.ctl(ControlOperation::Add, what.as_raw_fd(), event) {
            Ok(()) => false,
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => true,
            Err(error) => return Err(error),
        };
        Ok(Waiter { epoll, always_ready })
    }

    fn wait(&self, timeout_ms: i32) -> WaitResult {
        let mut events = [EpollEvent::default(); 2];
        let timeout_ms = if self.always_ready { 0 } else { timeout_ms };
        loop {
            match self.epoll.wait(timeout_ms, &mut events) {
                Ok(count) if events[..count].iter().any(|event| event.data() == STOP) => {
                    return WaitResult::Stopped;
                }
                Ok(0) if !self.always_ready => return WaitResult::TimedOut,
                Ok(_) => return WaitResult::Ready,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    tracing::error!(%error, "epoll_wait(2) on standard input failed");
                    return WaitResult::Stopped;
                }
            }
        }
    }
}

fn lock(mutex: &Mutex<dyn ConsolePort>) -> MutexGuard<'_, dyn ConsolePort + 'static> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
