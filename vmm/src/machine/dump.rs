//! A dump of the running machine: its vCPUs are paused until the file is written.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use guest_memory::GuestRam;
use serde_json::{Value, json};

use super::request_error::RequestError;
use crate::control::{Completion, DumpProgress, Dumped, Omitted};
use crate::dump::{Dump, Progress, Written};

/// The dump that is being made.
#[derive(Debug, Default)]
pub(super) struct CurrentDump(RefCell<Option<InProgress>>);

#[derive(Debug)]
struct InProgress {
    /// Its thread has the other reference.
    progress: Arc<Progress>,
    /// Whether the vCPUs ran before.
    resumes: bool,
}

/// What is to be done with the vCPUs when a dump has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum After {
    Resume,
    StayPaused,
}

impl CurrentDump {
    /// A dump begins. Returns what its thread reports its progress to, until it drops it.
    pub(super) fn begin(&self, ram: &GuestRam, resumes: bool) -> Arc<Progress> {
        let progress = Arc::new(Progress::new(ram));
        *self.0.borrow_mut() = Some(InProgress { progress: Arc::clone(&progress), resumes });
        progress
    }

    /// How far the dump is. `None` if none is being made.
    pub(super) fn progress(&self) -> Option<DumpProgress> {
        let current = self.0.borrow();
        current
            .as_ref()
            .map(|InProgress { progress, .. }| DumpProgress { done: progress.done(), total: progress.total })
    }

    /// Checks whether the dump has ended since the last call.
    pub(super) fn take_ended(&self) -> Option<After> {
        let ended = self.0.borrow_mut().take_if(|current| Arc::strong_count(&current.progress) == 1)?;
        Some(if ended.resumes { After::Resume } else { After::StayPaused })
    }
}

/// Checks the path of a dump: the machine does not know the client's working directory.
pub(super) fn path(file: String) -> Result<PathBuf, RequestError> {
    let path = PathBuf::from(file);
    if path.is_absolute() { Ok(path) } else { Err(RequestError::RelativePath(path)) }
}

/// Writes a dump. Called on a thread of its own.
pub(super) fn write(
    dump: &Dump,
    path: &Path,
    progress: &Progress,
    completion: &Completion,
) -> Result<Value, RequestError> {
    let Written { file_len, omitted, vmcoreinfo } =
        dump.write(path, progress, &|| completion.is_abandoned())?;
    tracing::info!(path = %path.display(), bytes = file_len, "the machine is dumped");
    let omitted = omitted.into_iter().map(|piece| Omitted { gpa: piece.gpa, span: piece.len });
    Ok(json!(Dumped { file: path.to_owned(), bytes: file_len, omitted: omitted.collect(), vmcoreinfo }))
}

#[cfg(test)]
mod tests {
    use guest_memory::Backing;

    use super::*;

    #[test]
    fn a_dump_has_ended_when_its_thread_has_dropped_its_progress() {
        let ram = GuestRam::allocate(&[(0, 1 << 20)], Backing::Anonymous).expect("memory");
        let current = CurrentDump::default();
        for (resumes, after) in [(true, After::Resume), (false, After::StayPaused)] {
            assert!(current.progress().is_none() && current.take_ended().is_none());
            let progress = current.begin(&ram, resumes);
            let shown = current.progress().expect("it is being made");
            assert_eq!((shown.done, shown.total), (0, 1 << 20));
            assert_eq!(current.take_ended(), None);
            drop(progress);
            assert_eq!(current.take_ended(), Some(after));
        }
        assert!(matches!(path("core".into()), Err(RequestError::RelativePath(_))));
    }
}
