//! The guest's output: a bounded queue between the serial port and standard output.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use guest_memory::own;
use rustix::event::{PollFd, PollFlags, poll};
use vcpu::{Control, RunState};

use super::ConsoleObserver;

/// Bytes in the queue above which a vCPU waits for the reader.
const QUEUE_CAPACITY: usize = 64 << 10;
/// How long the writer waits for more bytes before it writes. A serial port delivers single bytes: without the delay each
/// would cost the vCPU a wake-up of the writer, and the writer a system call. If a line is still growing after the delay, only
/// the lines before it are written, so that log lines on the same terminal do not split it.
const GATHER_DELAY: Duration = Duration::from_millis(1);
/// Bytes above which an incomplete line is written all the same.
const MAX_LINE_LEN: usize = 256;
/// How often a vCPU that waits for the reader checks whether it has to stop.
const STOP_POLL_INTERVAL: Duration = Duration::from_millis(100);
/// How long the reader may take to read what is left when the machine has ended.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// The serial port's writer. It never fails: what cannot be written is discarded.
#[derive(Clone)]
pub struct Output {
    queue: Arc<Queue>,
    control: Arc<Control>,
    observer: Arc<dyn ConsoleObserver>,
    is_dropped: bool,
}

/// The thread that drains the queue.
pub(super) struct Writer {
    output: Output,
    thread: JoinHandle<()>,
}

struct Queue {
    state: Mutex<State>,
    /// Signalled when the queue is no longer empty or full, and when it is closed or done.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    bytes: VecDeque<u8>,
    /// The machine has ended: no bytes will be added.
    closed: bool,
    /// All bytes were written, or writing has failed.
    done: bool,
}

impl Writer {
    pub(super) fn start(control: &Arc<Control>, observer: Arc<dyn ConsoleObserver>) -> io::Result<Self> {
        let queue = Arc::new(Queue { state: Mutex::default(), changed: Condvar::new() });
        let output =
            Output { queue: Arc::clone(&queue), control: Arc::clone(control), observer, is_dropped: false };
        let thread = own::thread("console-output").spawn(move || queue.drain_to(io::stdout()))?;
        Ok(Writer { output, thread })
    }

    pub(super) fn output(&self) -> Output {
        self.output.clone()
    }

    /// Waits until all bytes are written, [`DRAIN_TIMEOUT`] at most. After that the thread is left running; it ends with the
    /// process.
    pub(super) fn finish(self) {
        let queue = &self.output.queue;
        let mut state = queue.lock();
        state.closed = true;
        queue.changed.notify_all();
        let deadline = Instant::now() + DRAIN_TIMEOUT;
        while !state.done {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                tracing::warn!(
                    bytes = state.bytes.len(),
                    timeout = ?DRAIN_TIMEOUT,
                    "standard output is not read: the rest of the guest's console output is discarded"
                );
                return;
            }
            state = queue.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        drop(state);
        if self.thread.join().is_err() {
            tracing::error!("the thread console-output panicked");
        }
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes the queue's bytes until it is closed or writing fails.
    fn drain_to(&self, mut out: impl Write) {
        let mut chunk = Vec::new();
        loop {
            let mut state = self.lock();
            while state.bytes.is_empty() && !state.closed {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            if state.bytes.is_empty() {
                break;
            }
            let before = state.bytes.len();
            if !state.closed {
                drop(state);
                sleep(GATHER_DELAY);
                state = self.lock();
            }
            let is_growing = state.bytes.len() > before && !state.closed;
            let was_full = state.bytes.len() >= QUEUE_CAPACITY;
            let ready = if is_growing { complete_lines_len(&state.bytes) } else { state.bytes.len() };
            chunk.clear();
            chunk.extend(state.bytes.drain(..ready));
            drop(state);
            if was_full {
                self.changed.notify_all();
            }
            if let Err(error) = write_all(&mut out, &chunk) {
                tracing::warn!(%error, "write(2) to standard output failed: the guest's console output is discarded from now on");
                break;
            }
        }
        let mut state = self.lock();
        state.bytes.clear();
        state.done = true;
        self.changed.notify_all();
    }
}

/// Writes all bytes, however long the reader takes. O_NONBLOCK belongs to the open file description, which other processes share:
/// one of them may have set it, and EAGAIN means that the reader is slow.
fn write_all(out: &mut impl Write, mut rest: &[u8]) -> io::Result<()> {
    loop {
        let outcome = if rest.is_empty() { out.flush().map(|()| 0) } else { out.write(rest) };
        match outcome {
            Ok(_) if rest.is_empty() => return Ok(()),
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => rest = rest.get(count..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let stdout = rustix::stdio::stdout();
                // An error is that of the next write.
                let _ = poll(&mut [PollFd::new(&stdout, PollFlags::OUT)], None);
            }
            Err(error) => return Err(error),
        }
    }
}

/// Bytes of the complete lines; all bytes if the incomplete line has [`MAX_LINE_LEN`] bytes or more.
fn complete_lines_len(bytes: &VecDeque<u8>) -> usize {
    let incomplete = bytes.iter().rev().take(MAX_LINE_LEN).position(|byte| *byte == b'\n');
    match incomplete {
        Some(incomplete) => bytes.len() - incomplete,
        None if bytes.len() < MAX_LINE_LEN => 0,
        None => bytes.len(),
    }
}

impl Output {
    /// Drops what is written to it: the guest's console is another device.
    #[must_use]
    pub fn dropped(self) -> Self {
        Output { is_dropped: true, ..self }
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.is_dropped {
            return Ok(bytes.len());
        }
        self.observer.output(bytes);
        let mut state = self.queue.lock();
        // A pause ends the wait too: then the bytes are queued although it is full. They are at most those of one exit.
        while state.bytes.len() >= QUEUE_CAPACITY && !state.done && self.control.run_state() == RunState::Run
        {
            state = self
                .queue
                .changed
                .wait_timeout(state, STOP_POLL_INTERVAL)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        let is_paused = self.control.run_state() == RunState::Pause;
        if !state.done && (state.bytes.len() < QUEUE_CAPACITY || is_paused) {
            let was_empty = state.bytes.is_empty();
            state.bytes.extend(bytes);
            if was_empty {
                self.queue.changed.notify_all();
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
impl Output {
    /// What is written stays in the queue.
    pub(super) fn without_reader(observer: Arc<dyn ConsoleObserver>) -> Self {
        let queue = Arc::new(Queue { state: Mutex::default(), changed: Condvar::new() });
        Output { queue, control: Arc::new(Control::default()), observer, is_dropped: false }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Takes a chunk for each message of the channel.
    struct SlowReader(mpsc::Receiver<()>, Arc<Mutex<Vec<u8>>>);

    impl Write for SlowReader {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // An error means that the sender is gone: take the rest without waiting.
            let _ = self.0.recv();
            self.1.lock().expect("no panic").extend(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct NoObserver;

    impl ConsoleObserver for NoObserver {
        fn output(&self, _: &[u8]) {}
    }

    fn output() -> Output {
        Output::without_reader(Arc::new(NoObserver))
    }

    #[test]
    fn a_slow_reader_blocks_the_writer_and_gets_every_byte() {
        let mut output = output();
        let queue = Arc::clone(&output.queue);
        let (go, gate) = mpsc::channel();
        let taken = Arc::new(Mutex::new(Vec::new()));
        let reader = SlowReader(gate, Arc::clone(&taken));
        let drain = std::thread::spawn(move || queue.drain_to(reader));
        let total = 3 * QUEUE_CAPACITY;
        let writer = std::thread::spawn(move || {
            for n in 0..total {
                output.write_all(&[n as u8]).expect("never fails");
            }
            output.queue.lock().closed = true;
            output.queue.changed.notify_all();
        });
        std::thread::sleep(Duration::from_millis(50));
        assert!(!writer.is_finished(), "the writer must wait for the reader");
        drop(go);
        writer.join().expect("no panic");
        drain.join().expect("no panic");
        let taken = taken.lock().expect("no panic");
        assert!(taken.iter().copied().eq((0..total).map(|n| n as u8)));
    }

    #[test]
    fn an_incomplete_line_is_kept_until_it_is_too_long() {
        let ready = |text: &str| complete_lines_len(&text.bytes().collect());
        assert_eq!(ready("a line\nthe begin"), 7);
        assert_eq!(ready("a line\n"), 7);
        assert_eq!(ready("the begin"), 0);
        assert_eq!(ready(&"x".repeat(MAX_LINE_LEN)), MAX_LINE_LEN);
        assert_eq!(ready(&format!("a line\n{}", "x".repeat(MAX_LINE_LEN))), 7 + MAX_LINE_LEN);
    }

    #[test]
    fn a_stop_unblocks_a_writer_whose_reader_is_stuck() {
        let mut output = output();
        output.control.set(RunState::Stop);
        for _ in 0..2 * QUEUE_CAPACITY {
            output.write_all(b"x").expect("never fails");
        }
        assert_eq!(output.queue.lock().bytes.len(), QUEUE_CAPACITY);
    }
}
