//! The main thread's queue of detected errors, which is preserved across a reset.

use std::collections::BTreeSet;
use std::io;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::ras::DetectedError;

/// The main thread's queue of detected errors.
pub(super) struct DetectedErrors {
    receiver: Receiver<DetectedError>,
    touched: Arc<TouchedPages>,
    wake: Arc<EventFd>,
}

/// Errors that the main thread reports in one turn: others that it serves get theirs in between.
const MAX_AT_ONCE: usize = 64;

/// The GPAs of poisoned pages that devices accessed, and that are in the queue. A guest can have a page accessed any number of times,
/// but it is in the queue once.
#[derive(Debug, Default)]
struct TouchedPages(Mutex<BTreeSet<u64>>);

impl TouchedPages {
    /// Adds a page. Returns false if it is in the queue already.
    fn add(&self, gpa: u64) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(gpa)
    }

    /// Removes an error's page, which is no longer in the queue.
    fn taken(&self, error: DetectedError) -> DetectedError {
        if let DetectedError::Touched { gpa, .. } = error {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&gpa);
        }
        error
    }
}

/// The sending end of the queue, for any thread.
#[derive(Clone)]
pub(super) struct DetectedErrorSender {
    sender: Sender<DetectedError>,
    touched: Arc<TouchedPages>,
    wake: Arc<EventFd>,
}

impl DetectedErrors {
    pub(super) fn new() -> io::Result<(Self, DetectedErrorSender)> {
        let (sender, receiver) = mpsc::channel();
        let wake = Arc::new(EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK)?);
        let touched = Arc::new(TouchedPages::default());
        let sender = DetectedErrorSender { sender, touched: Arc::clone(&touched), wake: Arc::clone(&wake) };
        Ok((DetectedErrors { receiver, touched, wake }, sender))
    }

    /// Readable if errors may be pending.
    pub(super) fn wake(&self) -> &EventFd {
        &self.wake
    }

    /// Takes the next error, and waits for it until the timeout. `None` if the timeout has elapsed.
    pub(super) fn next(&self, timeout: Duration) -> Option<DetectedError> {
        self.receiver.recv_timeout(timeout).ok().map(|error| self.touched.taken(error))
    }

    /// Takes the errors that are pending.
    pub(super) fn pending(&self) -> impl Iterator<Item = DetectedError> + '_ {
        // An error means that it was read already.
        let _ = self.wake.read();
        self.receiver.try_iter().map(|error| self.touched.taken(error))
    }

    /// Takes some of the errors that are pending. If there may be others, `wake` is readable afterwards.
    pub(super) fn some_pending(&self) -> impl Iterator<Item = DetectedError> + '_ {
        let mut left = MAX_AT_ONCE;
        let mut pending = self.pending();
        std::iter::from_fn(move || {
            if left == 0 {
                // Fails only if the counter would overflow.
                let _ = self.wake.write(1);
                return None;
            }
            left -= 1;
            pending.next()
        })
    }
}

impl DetectedErrorSender {
    /// Queues the error of a page that a device accessed, unless it is in the queue.
    pub(super) fn touched(&self, gpa: u64, log2_len: u8) {
        if self.touched.add(gpa) {
            self.send(DetectedError::Touched { gpa, log2_len });
        }
    }

    pub(super) fn send(&self, error: DetectedError) {
        // Fails only if the receiver is gone: the machine has ended.
        let _ = self.sender.send(error);
        // Fails only if the counter would overflow.
        let _ = self.wake.write(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gpas(errors: impl Iterator<Item = DetectedError>) -> Vec<u64> {
        let gpa = |error| match error {
            DetectedError::Touched { gpa, .. } => gpa,
            other => panic!("{other:?}"),
        };
        errors.map(gpa).collect()
    }

    #[test]
    fn a_page_that_devices_access_again_and_again_is_in_the_queue_once() {
        let (errors, sender) = DetectedErrors::new().expect("an eventfd");
        for gpa in [0x1000, 0x2000, 0x1000, 0x1000, 0x2000] {
            sender.touched(gpa, 12);
        }
        assert_eq!(gpas(errors.pending()), [0x1000, 0x2000]);
        // It has left the queue: the next access is reported.
        sender.touched(0x2000, 12);
        sender.clone().touched(0x2000, 12);
        let next = errors.next(Duration::ZERO);
        assert_eq!(gpas(next.into_iter()), [0x2000]);
        sender.touched(0x2000, 12);
        assert_eq!(gpas(errors.some_pending()), [0x2000]);
        assert!(errors.next(Duration::ZERO).is_none());
    }

    #[test]
    fn what_one_turn_leaves_in_the_queue_wakes_the_main_thread_again() {
        let (errors, sender) = DetectedErrors::new().expect("an eventfd");
        let all: Vec<_> = (0..MAX_AT_ONCE as u64 + 3).map(|page| page << 12).collect();
        all.iter().for_each(|gpa| sender.touched(*gpa, 12));
        assert_eq!(gpas(errors.some_pending()), all[..MAX_AT_ONCE]);
        errors.wake().read().expect("readable");
        assert_eq!(gpas(errors.some_pending()), all[MAX_AT_ONCE..]);
        errors.wake().read().expect_err("nothing is left");
    }
}
