//! A console of the guest that is a stream, in place of a serial port.

use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread::JoinHandle;

use devices::ConsolePort;
use guest_memory::own;
use rustix::net::{SendFlags, send};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::output::Output;

/// The thread that passes on what the guest writes.
pub struct StreamOutput {
    stop: Arc<EventFd>,
    thread: JoinHandle<()>,
}

impl StreamOutput {
    /// Starts to pass on what the guest writes. The stream does not block.
    ///
    /// # Errors
    /// Returns an error if an eventfd, an epoll instance or the thread cannot be created.
    pub fn start(stream: UnixStream, output: Output) -> io::Result<Self> {
        let stop = Arc::new(EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK)?);
        let epoll = Epoll::new()?;
        add(&epoll, &stream, OUTPUT)?;
        add(&epoll, &*stop, STOP)?;
        let thread = own::thread("console-stream").spawn(move || pass_on(&stream, output, &epoll))?;
        Ok(StreamOutput { stop, thread })
    }

    /// Passes on what is in the stream, and stops.
    pub fn stop(self) {
        // Fails only if the counter would overflow.
        let _ = self.stop.write(1);
        if self.thread.join().is_err() {
            tracing::error!("the thread console-stream panicked");
        }
    }
}

/// The data of events.
const STOP: u64 = 0;
const OUTPUT: u64 = 1;

fn add(epoll: &Epoll, descriptor: &impl AsRawFd, data: u64) -> io::Result<()> {
    epoll.ctl(ControlOperation::Add, descriptor.as_raw_fd(), EpollEvent::new(EventSet::IN, data))
}

fn pass_on(mut stream: &UnixStream, mut output: Output, epoll: &Epoll) {
    let mut events = [EpollEvent::default(); 2];
    let mut bytes = [0; 4096];
    loop {
        let count = match epoll.wait(-1, &mut events) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => {
                tracing::error!(%error, "epoll_wait(2) on the console failed: its output is discarded from now on");
                return;
            }
            Ok(count) => count,
        };
        loop {
            match stream.read(&mut bytes) {
                // The other end stays open as long as the machine.
                Ok(0) => return,
                // Never fails.
                Ok(count) => drop(output.write_all(&bytes[..count])),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        if events[..count].iter().any(|event| event.data() == STOP) {
            return;
        }
    }
}

/// The guest's end of the input.
pub struct StreamInput {
    stream: UnixStream,
    /// Never signalled: input that the stream does not take is offered again after a time.
    space: EventFd,
}

impl StreamInput {
    /// The input of a stream that does not block.
    ///
    /// # Errors
    /// Returns the error of eventfd(2).
    pub fn new(stream: UnixStream) -> io::Result<Self> {
        Ok(StreamInput { stream, space: EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK)? })
    }
}

impl ConsolePort for StreamInput {
    fn input(&mut self, bytes: &[u8]) -> usize {
        send(&self.stream, bytes, SendFlags::NOSIGNAL).unwrap_or(0)
    }

    fn rx_space(&self) -> &EventFd {
        &self.space
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::super::ConsoleObserver;
    use super::*;

    #[derive(Default)]
    struct Seen(Mutex<Vec<u8>>);

    impl ConsoleObserver for Seen {
        fn output(&self, bytes: &[u8]) {
            self.0.lock().expect("no panic").extend(bytes);
        }
    }

    fn pair() -> (UnixStream, UnixStream) {
        let (guest, vmm) = UnixStream::pair().expect("a socket pair");
        vmm.set_nonblocking(true).expect("ioctl(2)");
        (guest, vmm)
    }

    #[test]
    fn what_the_guest_has_written_before_the_stop_is_passed_on() {
        let (mut guest, vmm) = pair();
        let seen = Arc::new(Seen::default());
        let output = StreamOutput::start(vmm, Output::without_reader(seen.clone())).expect("a thread");
        guest.write_all(&[b'x'; 10_000]).expect("sent");
        output.stop();
        assert_eq!(*seen.0.lock().expect("no panic"), [b'x'; 10_000]);
    }

    #[test]
    fn input_that_the_stream_does_not_take_is_refused() {
        let (mut guest, vmm) = pair();
        let mut input = StreamInput::new(vmm).expect("an eventfd");
        let mut taken = 0;
        let refused = (0..1000).find(|_| {
            let count = input.input(&[b'k'; 4096]);
            taken += count;
            count == 0
        });
        assert!(refused.is_some(), "{taken} bytes, and the guest has read none");
        guest.read_exact(&mut vec![0; taken]).expect("what was taken");
        assert_eq!(input.input(b"k"), 1);
    }
}
