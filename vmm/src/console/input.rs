//! Standard input to the serial port.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::thread::JoinHandle;

use devices::ConsolePort;
use guest_memory::own;
use rustix::fs::{FileType, fstat};
use rustix::io::Errno;
use rustix::stdio::stdin;
use rustix::termios::isatty;
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::escape::{Escapes, HELP, Request};
use crate::lifecycle::{Ending, Lifecycle};
use crate::stderr;

/// How often input is offered again that the port has not accepted, for example during a driver's loopback test.
const RETRY_INTERVAL_MS: i32 = 20;
/// The same while a vCPU uses the port: it may wait there for the reader of the guest's output, as long as that takes.
const BUSY_RETRY_INTERVAL_MS: i32 = 1;
const NO_TIMEOUT: i32 = -1;
/// Keys of a terminal that wait for the guest. Those beyond are discarded, because all are looked at for escape sequences.
const MAX_WAITING: usize = 1 << 20;

/// The thread that reads standard input.
pub struct Input {
    stop: Arc<EventFd>,
    thread: JoinHandle<()>,
}

impl Input {
    /// Starts reading.
    ///
    /// # Errors
    /// Returns an error if an eventfd, an epoll instance or the thread cannot be created, or standard input cannot be duplicated.
    pub fn start(port: Arc<Mutex<dyn ConsolePort>>, lifecycle: &Arc<Lifecycle>) -> io::Result<Self> {
        let stop = Arc::new(EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK)?);
        let space = port.lock().unwrap_or_else(PoisonError::into_inner).rx_space().try_clone()?;
        let input = standard_input()?;
        let epolls = [Epoll::new()?, Epoll::new()?];
        for epoll in &epolls {
            add(epoll, &*stop, STOP)?;
            add(epoll, &space, SPACE)?;
        }
        let [with_input, without_input] = epolls;
        let is_file = match add(&with_input, &input, INPUT) {
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => true,
            outcome => outcome.map(|()| false)?,
        };
        let reader = Reader {
            input: Some(input),
            space,
            port,
            lifecycle: Arc::clone(lifecycle),
            escapes: isatty(stdin()).then(Escapes::default),
            waiting: VecDeque::new(),
            with_input,
            without_input,
            is_file,
        };
        let thread = own::thread("console-input").spawn(move || reader.run())?;
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

/// A descriptor of standard input. A pipe or a terminal is opened anew, if that is permitted: with O_NONBLOCK, which other processes
/// that read it do not have to expect, and which keeps a read from waiting if one of them was faster.
fn standard_input() -> io::Result<OwnedFd> {
    let reopen =
        || File::options().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open("/proc/self/fd/0");
    let reopened = match FileType::from_raw_mode(fstat(stdin())?.st_mode) {
        FileType::Fifo | FileType::CharacterDevice => reopen().ok(),
        _ => None,
    };
    reopened.map_or_else(|| stdin().try_clone_to_owned(), |file| Ok(file.into()))
}

struct Reader {
    port: Arc<Mutex<dyn ConsolePort>>,
    /// Signalled when the guest has emptied the port's receive FIFO.
    space: EventFd,
    /// Standard input. `None` after its end.
    input: Option<OwnedFd>,
    lifecycle: Arc<Lifecycle>,
    /// `None` if standard input is not a terminal: then there are no escape sequences.
    escapes: Option<Escapes>,
    /// Input that the port has not accepted yet.
    waiting: VecDeque<u8>,
    /// Standard input, `space` and `stop`.
    with_input: Epoll,
    /// `space` and `stop`.
    without_input: Epoll,
    /// Standard input is a regular file: always readable, and not supported by epoll_ctl(2), which returns EPERM.
    is_file: bool,
}

/// The data of events.
const STOP: u64 = 0;
const SPACE: u64 = 1;
const INPUT: u64 = 2;

fn add(epoll: &Epoll, descriptor: &impl AsRawFd, data: u64) -> io::Result<()> {
    epoll.ctl(ControlOperation::Add, descriptor.as_raw_fd(), EpollEvent::new(EventSet::IN, data))
}

/// What ends a wait.
enum Event {
    /// There is input.
    Readable,
    /// The port may accept input.
    Space,
    /// Reading has to stop.
    Stop,
}

impl Reader {
    fn run(mut self) {
        // The guest keeps running at the end of input.
        while self.input.is_some() || !self.waiting.is_empty() {
            let retry = self.offer();
            match self.wait(retry) {
                Event::Readable => self.read(),
                Event::Space => {}
                Event::Stop => return,
            }
        }
    }

    /// Passes on what the port accepts. Returns the time, in milliseconds, after which to try again.
    fn offer(&mut self) -> i32 {
        while !self.waiting.is_empty() {
            let (keys, _) = self.waiting.as_slices();
            let accepted = match self.port.try_lock() {
                Ok(mut port) => port.input(keys),
                Err(TryLockError::Poisoned(port)) => port.into_inner().input(keys),
                Err(TryLockError::WouldBlock) => return BUSY_RETRY_INTERVAL_MS,
            };
            if accepted == 0 {
                return RETRY_INTERVAL_MS;
            }
            self.waiting.drain(..accepted);
        }
        NO_TIMEOUT
    }

    /// Waits until there is something to do, until the timeout at most.
    fn wait(&self, timeout_ms: i32) -> Event {
        // A terminal is always read, so that an escape sequence is seen. Other input waits where it is until the guest reads.
        let is_wanted = self.input.is_some() && (self.escapes.is_some() || self.waiting.is_empty());
        let epoll = if is_wanted { &self.with_input } else { &self.without_input };
        let is_file = is_wanted && self.is_file;
        let mut events = [EpollEvent::default(); 3];
        match epoll.wait(if is_file { 0 } else { timeout_ms }, &mut events) {
            Ok(count) => {
                let is_signalled = |source| events[..count].iter().any(|event| event.data() == source);
                // An error means that it was not signalled.
                let _ = self.space.read();
                match () {
                    () if is_signalled(STOP) => Event::Stop,
                    () if is_file || is_signalled(INPUT) => Event::Readable,
                    () => Event::Space,
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Event::Space,
            Err(error) => {
                tracing::error!(%error, "epoll_wait(2) on standard input failed: the guest gets no more input");
                Event::Stop
            }
        }
    }

    fn read(&mut self) {
        let Some(input) = &self.input else { return };
        let mut bytes = [0; 4096];
        match rustix::io::read(input.as_fd(), &mut bytes) {
            Ok(0) => self.input = None,
            Ok(count) => {
                let mut keys = bytes[..count].to_vec();
                self.handle_escapes(&mut keys);
                let space = MAX_WAITING - self.waiting.len();
                if keys.len() > space {
                    tracing::warn!("the guest does not read its console: keys are discarded");
                }
                self.waiting.extend(keys.into_iter().take(space));
            }
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(error) => {
                tracing::warn!(%error, "read(2) of standard input failed: the guest gets no more input");
                self.input = None;
            }
        }
    }

    fn handle_escapes(&mut self, keys: &mut Vec<u8>) {
        let Some(escapes) = &mut self.escapes else { return };
        for request in escapes.filter(keys) {
            match request {
                Request::Quit => self.lifecycle.end(Ending::Quit),
                Request::Help => stderr::write(HELP),
            }
        }
    }
}
