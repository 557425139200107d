//! The guest's output: a bounded queue between the serial port and standard output.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle, sleep};
use std::time::{Duration, Instant};

use vcpu::{Control, RunState};

use crate::ras::inject::Schedule;

/// Bytes that wait for the reader before the guest has to.
const CAPACITY: usize = 64 << 10;
/// How long the writer lets bytes gather. A serial port gives them one by one: written one by one, each would cost the vCPU
/// that gives it a wake-up, and the writer a system call. A line that grows meanwhile is waited for, so that what else is said
/// on a terminal does not tear it.
const GATHER: Duration = Duration::from_millis(1);
/// Bytes of a line that is waited for.
const LINE: usize = 256;
/// How often a vCPU that waits for the reader looks whether the machine is to stop.
const STOP_CHECK: Duration = Duration::from_millis(100);
/// How long the reader has to take what is left once the machine has ended.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// The serial port's writer. Never fails: what nobody reads any more is dropped.
#[derive(Clone)]
pub struct Output {
    queue: Arc<Queue>,
    control: Arc<Control>,
    listener: Arc<Schedule>,
}

/// The thread that empties the queue.
pub(super) struct Writer {
    output: Output,
    thread: JoinHandle<()>,
}

struct Queue {
    state: Mutex<State>,
    /// The queue has become non-empty or closed, or is no longer full.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    bytes: VecDeque<u8>,
    /// The machine has ended: no more will come.
    closed: bool,
    /// Everything was written, or nobody reads.
    done: bool,
}

impl Writer {
    pub(super) fn start(control: &Arc<Control>, listener: Arc<Schedule>) -> io::Result<Self> {
        let queue = Arc::new(Queue { state: Mutex::default(), changed: Condvar::new() });
        let output = Output { queue: Arc::clone(&queue), control: Arc::clone(control), listener };
        let thread =
            Builder::new().name("console-output".into()).spawn(move || queue.drain_to(io::stdout()))?;
        Ok(Writer { output, thread })
    }

    pub(super) fn output(&self) -> Output {
        self.output.clone()
    }

    /// Waits until everything is written. A reader that takes nothing is not waited for: the thread is left behind, and
    /// ends with the process.
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
                    "nobody reads the console: its last bytes are lost"
                );
                return;
            }
            state = queue.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        drop(state);
        if self.thread.join().is_err() {
            tracing::error!("the console's thread panicked");
        }
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes what comes, until the queue is closed or nobody reads.
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
                sleep(GATHER);
                state = self.lock();
            }
            let is_growing = state.bytes.len() > before && !state.closed;
            let was_full = state.bytes.len() >= CAPACITY;
            let ripe = if is_growing { whole_lines(&state.bytes) } else { state.bytes.len() };
            chunk.clear();
            chunk.extend(state.bytes.drain(..ripe));
            drop(state);
            if was_full {
                self.changed.notify_all();
            }
            if let Err(error) = out.write_all(&chunk).and_then(|()| out.flush()) {
                tracing::warn!(%error, "the console cannot be written: the guest's output is dropped from here on");
                break;
            }
        }
        let mut state = self.lock();
        state.bytes.clear();
        state.done = true;
        self.changed.notify_all();
    }
}

/// How many of these bytes are whole lines; all of them, where what is no whole line is longer than lines are.
fn whole_lines(bytes: &VecDeque<u8>) -> usize {
    let tail = bytes.iter().rev().take(LINE).position(|byte| *byte == b'\n');
    match tail {
        Some(tail) => bytes.len() - tail,
        None if bytes.len() < LINE => 0,
        None => bytes.len(),
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.listener.hear(bytes);
        let mut state = self.queue.lock();
        // A pause is heeded too: what does not fit then is kept all the same, and there is not more than a vCPU had in hand.
        while state.bytes.len() >= CAPACITY && !state.done && self.control.run_state() == RunState::Run {
            state =
                self.queue.changed.wait_timeout(state, STOP_CHECK).unwrap_or_else(PoisonError::into_inner).0;
        }
        let is_paused = self.control.run_state() == RunState::Pause;
        if !state.done && (state.bytes.len() < CAPACITY || is_paused) {
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
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// A reader that takes a chunk only when it is told to.
    struct Slow(mpsc::Receiver<()>, Arc<Mutex<Vec<u8>>>);

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // An error means that there is no more to wait for.
            let _ = self.0.recv();
            self.1.lock().expect("no panic").extend(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn output() -> Output {
        let queue = Arc::new(Queue { state: Mutex::default(), changed: Condvar::new() });
        Output { queue, control: Arc::new(Control::default()), listener: Arc::default() }
    }

    #[test]
    fn a_slow_reader_holds_the_writer_and_gets_every_byte() {
        let mut output = output();
        let queue = Arc::clone(&output.queue);
        let (go, gate) = mpsc::channel();
        let taken = Arc::new(Mutex::new(Vec::new()));
        let reader = Slow(gate, Arc::clone(&taken));
        let drain = std::thread::spawn(move || queue.drain_to(reader));
        let total = 3 * CAPACITY;
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
    fn lines_that_grow_are_written_whole() {
        let ripe = |text: &str| whole_lines(&text.bytes().collect());
        assert_eq!(ripe("a line\nthe begin"), 7);
        assert_eq!(ripe("a line\n"), 7);
        assert_eq!(ripe("the begin"), 0);
        assert_eq!(ripe(&"x".repeat(LINE)), LINE);
        assert_eq!(ripe(&format!("a line\n{}", "x".repeat(LINE))), 7 + LINE);
    }

    #[test]
    fn a_stop_frees_a_writer_whose_reader_is_stuck() {
        let mut output = output();
        output.control.set(RunState::Stop);
        for _ in 0..2 * CAPACITY {
            output.write_all(b"x").expect("never fails");
        }
        assert_eq!(output.queue.lock().bytes.len(), CAPACITY);
    }
}
