//! Requests that take longer than the main thread may: each is carried out on a thread of its own.

use std::cell::RefCell;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use guest_memory::own;
use serde_json::Value;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::request_error::RequestError;
use crate::control::{Completion, Later, later};

/// The threads of requests that are being carried out.
pub(super) struct Jobs {
    wake: Arc<EventFd>,
    running: RefCell<Vec<Job>>,
}

struct Job {
    thread: JoinHandle<()>,
    cancelled: Arc<AtomicBool>,
}

/// Requests that are carried out at the same time.
const MAX_JOBS: usize = 8;

impl Jobs {
    pub(super) fn new() -> io::Result<Self> {
        let wake = Arc::new(EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK)?);
        Ok(Jobs { wake, running: RefCell::default() })
    }

    /// Readable if a job may have ended.
    pub(super) fn wake(&self) -> &EventFd {
        &self.wake
    }

    /// Starts a thread that carries a request out. If the [`Completion`] is abandoned, it is to return soon.
    ///
    /// # Errors
    /// Returns an error if there are too many, or the thread cannot be started.
    pub(super) fn start(
        &self,
        name: &'static str,
        job: impl FnOnce(&Completion) -> Result<Value, RequestError> + Send + 'static,
    ) -> Result<Later, RequestError> {
        self.reap();
        if self.running.borrow().len() >= MAX_JOBS {
            return Err(RequestError::TooManyJobs(MAX_JOBS));
        }
        let (completion, answer) = later(&self.wake);
        let cancelled = completion.canceller();
        let run = move || {
            // What the job refers to is dropped before its outcome is known.
            let outcome = job(&completion);
            completion.complete(outcome.map_err(|error| error.to_string()));
        };
        let thread = own::thread(name).spawn(run).map_err(RequestError::Thread)?;
        self.running.borrow_mut().push(Job { thread, cancelled });
        Ok(answer)
    }

    /// Joins the threads that have ended.
    pub(super) fn reap(&self) {
        // An error means that it was read already.
        let _ = self.wake.read();
        let ended = self.running.borrow_mut().extract_if(.., |job| job.thread.is_finished()).collect();
        join(ended);
    }

    /// Cancels all jobs and waits for their threads: the machine has ended. Their clients get their outcomes.
    pub(super) fn stop(&self) {
        let running = self.running.take();
        running.iter().for_each(|job| job.cancelled.store(true, Ordering::Release));
        join(running);
    }
}

fn join(jobs: Vec<Job>) {
    for job in jobs {
        if job.thread.join().is_err() {
            tracing::error!("the thread of a request has panicked");
        }
    }
}
