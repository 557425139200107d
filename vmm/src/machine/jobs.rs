//! Requests that take longer than the main thread may: each is carried out on a thread of its own.

use std::cell::RefCell;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

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

    /// Cancels all jobs and waits for their threads: the machine has ended. Their clients get their outcomes. `meanwhile` is called now and
    /// then: a dump may be in fsync(2), which nothing interrupts.
    pub(super) fn stop(&self, mut meanwhile: impl FnMut()) {
        self.running.borrow().iter().for_each(|job| job.cancelled.store(true, Ordering::Release));
        loop {
            self.reap();
            if self.running.borrow().is_empty() {
                return;
            }
            meanwhile();
            std::thread::sleep(STOP_POLL_INTERVAL);
        }
    }
}

/// How often the end of a machine looks whether the threads have ended.
const STOP_POLL_INTERVAL: Duration = Duration::from_millis(5);

fn join(jobs: Vec<Job>) {
    for job in jobs {
        if job.thread.join().is_err() {
            tracing::error!("the thread of a request has panicked");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;
    use std::time::Instant;

    use super::*;

    /// A dump that is in fsync(2): the service manager hears of the machine meanwhile.
    #[test]
    fn the_end_does_not_only_wait_for_a_job_that_nothing_interrupts() {
        let (jobs, calls) = (Jobs::new().expect("an eventfd"), Arc::new(AtomicU32::new(0)));
        let seen = Arc::clone(&calls);
        let later = jobs.start("slow", move |completion| {
            let deadline = Instant::now() + Duration::from_secs(60);
            while !(completion.is_abandoned() && seen.load(Ordering::Relaxed) >= 3)
                && Instant::now() < deadline
            {
                std::thread::sleep(Duration::from_millis(1));
            }
            Ok(Value::Null)
        });
        let later = later.map_err(|error| error.to_string()).expect("a thread");
        jobs.stop(|| {
            calls.fetch_add(1, Ordering::Relaxed);
        });
        assert!(calls.load(Ordering::Relaxed) >= 3);
        drop(later);
        // Nothing is left to wait for.
        jobs.stop(|| panic!("no job runs"));
    }
}
