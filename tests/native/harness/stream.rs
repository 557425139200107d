//! The output of a process, collected while it runs.

use std::io::Read;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// The other end of a pipe or terminal, read by a thread.
#[derive(Clone)]
pub(crate) struct Stream(Arc<(Mutex<State>, Condvar)>);

#[derive(Default)]
struct State {
    bytes: Vec<u8>,
    ended: bool,
}

impl Stream {
    /// Reads until the end, or until it cannot be read any more.
    pub(crate) fn read(mut from: impl Read + Send + 'static) -> Self {
        let stream = Stream(Arc::default());
        let writer = stream.clone();
        std::thread::spawn(move || {
            let mut chunk = [0; 4096];
            loop {
                let count = from.read(&mut chunk).unwrap_or(0);
                let mut state = writer.lock();
                state.bytes.extend(&chunk[..count]);
                state.ended = count == 0;
                writer.0.1.notify_all();
                if count == 0 {
                    return;
                }
            }
        });
        stream
    }

    /// An empty stream.
    pub(crate) fn empty() -> Self {
        Stream::read(std::io::empty())
    }

    /// Everything that was read so far.
    pub(crate) fn so_far(&self) -> Vec<u8> {
        self.lock().bytes.clone()
    }

    /// Waits until `text` was read that number of times; `false` if the stream ends or the deadline passes before.
    pub(crate) fn wait_for(&self, text: &str, times: usize, deadline: Instant) -> bool {
        let found = |state: &State| {
            state.bytes.windows(text.len()).filter(|part| *part == text.as_bytes()).count() >= times
        };
        found(&self.wait_until(deadline, |state| found(state) || state.ended))
    }

    /// Waits for the end and returns everything.
    pub(crate) fn to_end(&self, deadline: Instant) -> Vec<u8> {
        self.wait_until(deadline, |state| state.ended).bytes.clone()
    }

    fn wait_until(&self, deadline: Instant, done: impl Fn(&State) -> bool) -> MutexGuard<'_, State> {
        let mut state = self.lock();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if done(&state) || left.is_zero() {
                return state;
            }
            state = self.0.1.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
