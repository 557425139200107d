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

/// How often input that a driver's loopback test turned away is offered again.
const RETRY_MS: i32 = 20;

/// The thread that reads standard input.
pub struct Input {
    stop: Arc<EventFd>,
    thread: JoinHandle<()>,
}

impl Input {
    /// Starts to read.
    ///
    /// # Errors
    /// Where the host gives no eventfd or thread.
    pub fn start(port: Arc<Mutex<dyn ConsolePort>>, lifecycle: &Arc<Lifecycle>) -> io::Result<Self> {
        let stop = Arc::new(EventFd::new(EFD_NONBLOCK)?);
        let room = lock(&port).rx_space().try_clone()?;
        let reader = Reader {
            keys: Waiter::new(&stdin(), &stop)?,
            space: Waiter::new(&room, &stop)?,
            room,
            port,
            lifecycle: Arc::clone(lifecycle),
            escapes: isatty(stdin()).then(Escapes::default),
        };
        let thread = Builder::new().name("console-input".into()).spawn(move || reader.read_to_end())?;
        Ok(Input { stop, thread })
    }

    /// Stops reading. What the guest has not taken is lost.
    pub fn stop(self) {
        // Fails only where it was written 2^64 times.
        let _ = self.stop.write(1);
        if self.thread.join().is_err() {
            tracing::error!("the console's input thread panicked");
        }
    }
}

struct Reader {
    port: Arc<Mutex<dyn ConsolePort>>,
    /// Signalled when the guest has emptied the port's input FIFO.
    room: EventFd,
    keys: Waiter,
    space: Waiter,
    lifecycle: Arc<Lifecycle>,
    /// Only keys of a terminal can be escapes.
    escapes: Option<Escapes>,
}

impl Reader {
    fn read_to_end(mut self) {
        let stdin = stdin();
        let mut bytes = [0; 4096];
        while let Woken::Ready = self.keys.wait(FOR_EVER) {
            match rustix::io::read(&stdin, &mut bytes) {
                // The end of input is no reason to stop the guest.
                Ok(0) => return,
                Ok(count) => {
                    let mut keys = bytes[..count].to_vec();
                    self.answer_escapes(&mut keys);
                    if !self.give(&keys) {
                        return;
                    }
                }
                Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
                Err(error) => {
                    tracing::warn!(%error, "standard input cannot be read: the guest gets no more of it");
                    return;
                }
            }
        }
    }

    fn answer_escapes(&mut self, keys: &mut Vec<u8>) {
        let Some(escapes) = &mut self.escapes else { return };
        for request in escapes.filter(keys) {
            match request {
                Request::Quit => self.lifecycle.end(Ending::Quit),
                // Help that cannot be shown is not worth an end.
                Request::Help => drop(stderr().write_all(HELP.as_bytes())),
            }
        }
    }

    /// Gives the guest all of `keys`, as it takes them. False where the machine stops first.
    fn give(&self, mut keys: &[u8]) -> bool {
        while !keys.is_empty() {
            let taken = lock(&self.port).input(keys);
            keys = &keys[taken..];
            if !keys.is_empty() {
                match self.space.wait(RETRY_MS) {
                    // An error means that the room was found already.
                    Woken::Ready => drop(self.room.read()),
                    Woken::TimedOut => {}
                    Woken::Stopped => return false,
                }
            }
        }
        true
    }
}

/// Waits for a descriptor, or for the end.
struct Waiter {
    epoll: Epoll,
    /// A regular file: epoll does not take it, and it is always ready.
    always_ready: bool,
}

/// Why waiting ended.
enum Woken {
    Ready,
    TimedOut,
    Stopped,
}

const READY: u64 = 0;
const STOP: u64 = 1;
const FOR_EVER: i32 = -1;

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

    fn wait(&self, patience_ms: i32) -> Woken {
        let mut events = [EpollEvent::default(); 2];
        let patience_ms = if self.always_ready { 0 } else { patience_ms };
        loop {
            match self.epoll.wait(patience_ms, &mut events) {
                Ok(count) if events[..count].iter().any(|event| event.data() == STOP) => {
                    return Woken::Stopped;
                }
                Ok(0) if !self.always_ready => return Woken::TimedOut,
                Ok(_) => return Woken::Ready,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    tracing::error!(%error, "standard input cannot be waited for");
                    return Woken::Stopped;
                }
            }
        }
    }
}

fn lock(mutex: &Mutex<dyn ConsolePort>) -> MutexGuard<'_, dyn ConsolePort + 'static> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
