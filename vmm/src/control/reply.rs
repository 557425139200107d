//! What becomes of a request: its outcome, or one that another thread will give, while the connection of its client waits and other clients
//! are served.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender, TryRecvError};

use serde_json::Value;
use vmm_sys_util::eventfd::EventFd;

/// The outcome of a request: the fields of its answer, or the reason why it failed.
pub type Outcome = Result<Value, String>;

/// What becomes of a request.
#[derive(Debug)]
pub enum Reply {
    /// It was carried out.
    Now(Outcome),
    /// It is being carried out. The client's further requests wait.
    Later(Later),
}

impl From<Outcome> for Reply {
    fn from(outcome: Outcome) -> Self {
        Reply::Now(outcome)
    }
}

/// An outcome that will follow. When it is dropped, because the client has gone, the request is abandoned.
#[derive(Debug)]
pub struct Later {
    outcome: Receiver<Outcome>,
    is_abandoned: Arc<AtomicBool>,
}

/// The other end of a [`Later`], for the thread that carries the request out.
#[derive(Debug)]
pub struct Completion {
    /// `None` when it is dropped.
    outcome: Option<SyncSender<Outcome>>,
    is_abandoned: Arc<AtomicBool>,
    /// Wakes the event loop.
    wake: Arc<EventFd>,
}

/// An outcome that will follow. `wake` becomes readable when it does.
#[must_use]
pub fn later(wake: &Arc<EventFd>) -> (Completion, Later) {
    let (sender, outcome) = mpsc::sync_channel(1);
    let is_abandoned = Arc::new(AtomicBool::new(false));
    let completion =
        Completion { outcome: Some(sender), is_abandoned: Arc::clone(&is_abandoned), wake: Arc::clone(wake) };
    (completion, Later { outcome, is_abandoned })
}

impl Later {
    /// The outcome, if it is known.
    pub(super) fn take(&self) -> Option<Outcome> {
        match self.outcome.try_recv() {
            Ok(outcome) => Some(outcome),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(Err("the thread of the request has panicked".into())),
        }
    }
}

impl Drop for Later {
    fn drop(&mut self) {
        self.is_abandoned.store(true, Ordering::Release);
    }
}

impl Completion {
    /// Whether nobody waits for the outcome any more.
    #[must_use]
    pub fn is_abandoned(&self) -> bool {
        self.is_abandoned.load(Ordering::Acquire)
    }

    /// Abandons the request, although its client waits: the thread is to give an outcome soon.
    #[must_use]
    pub fn canceller(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.is_abandoned)
    }

    /// Gives the outcome.
    pub fn complete(self, outcome: Outcome) {
        // Fails only if the client has gone.
        let _ = self.outcome.as_ref().map(|sender| sender.try_send(outcome));
    }
}

impl Drop for Completion {
    fn drop(&mut self) {
        // Before the event loop is woken, which then finds the outcome, or that there will be none.
        self.outcome = None;
        // Fails only if the counter would overflow.
        let _ = self.wake.write(1);
    }
}

#[cfg(test)]
mod tests {
    use vmm_sys_util::eventfd::EFD_NONBLOCK;

    use super::*;

    #[test]
    fn an_outcome_wakes_the_event_loop_and_a_client_that_has_gone_is_known() {
        let wake = Arc::new(EventFd::new(EFD_NONBLOCK).expect("an eventfd"));
        let (completion, answer) = later(&wake);
        assert!(answer.take().is_none() && wake.read().is_err());
        completion.complete(Err("refused".into()));
        assert_eq!((wake.read().is_ok(), answer.take()), (true, Some(Err("refused".into()))));
        let (completion, answer) = later(&wake);
        drop(completion);
        assert!(wake.read().is_ok());
        assert!(answer.take().is_some_and(|outcome| outcome.is_err_and(|error| error.contains("panicked"))));
        let (completion, answer) = later(&wake);
        assert!(!completion.is_abandoned());
        drop(answer);
        assert!(completion.is_abandoned());
    }
}
