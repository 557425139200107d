//! The thread that reads and writes a store: no vCPU waits for its file.

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use guest_memory::own;

use super::Status;
use super::store::Store;
use crate::slot_file::{Medium, WriteError};

/// An operation.
#[derive(Debug)]
pub(super) enum Job {
    /// The identifier, and the record.
    Write(u64, Vec<u8>),
    /// The identifier.
    Read(u64),
    /// The identifier.
    Clear(u64),
}

/// How an operation has ended: its status, and the record that was read.
pub(super) type Outcome = (Status, Vec<u8>);

/// Where the outcome of an operation is put. A device that is gone does not look.
pub(super) type Pending = Arc<Mutex<Option<Outcome>>>;

/// A store, for the device of each boot of a machine.
#[derive(Clone)]
pub struct StoreService {
    submit: Arc<dyn Fn(Job, Pending) -> bool + Send + Sync>,
    ids: Arc<Mutex<Vec<u64>>>,
}

impl std::fmt::Debug for StoreService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoreService").field("ids", &self.ids).finish_non_exhaustive()
    }
}

/// The thread of a store. Dropping it waits until what was requested is in the file, for a bounded time.
#[derive(Debug)]
pub struct StoreThread {
    service: Option<StoreService>,
    /// Disconnected when the thread has ended.
    ended: Receiver<()>,
}

/// Operations that wait: a device has one at a time, and one of each boot before may be left while the file does not respond.
const MAX_WAITING: usize = 4;
/// How long the end of a machine waits for the file.
const END_TIMEOUT: Duration = Duration::from_secs(2);

impl StoreThread {
    /// Starts the thread.
    ///
    /// # Errors
    /// Returns the error of pthread_create(3).
    pub fn start<M: Medium + 'static>(store: Store<M>) -> io::Result<Self> {
        let (sender, jobs): (SyncSender<(Job, Pending)>, _) = sync_channel(MAX_WAITING);
        let (running, ended) = sync_channel::<()>(0);
        let ids = Arc::new(Mutex::new(store.record_ids().collect()));
        let known = Arc::clone(&ids);
        own::thread("error-store").spawn(move || {
            // Dropped after the store: its file can be opened again as soon as the thread has ended.
            let _running = running;
            let mut store = store;
            for (job, pending) in jobs {
                carry_out(&mut store, job, &known, &pending);
                // After the outcome: what the process has written survives it. The host may end too.
                if let Err(error) = store.sync() {
                    tracing::warn!(%error, "fdatasync(2) of the store for error records failed");
                }
            }
        })?;
        let submit = Arc::new(move |job: Job, pending: Pending| sender.try_send((job, pending)).is_ok());
        Ok(StoreThread { service: Some(StoreService { submit, ids }), ended })
    }

    /// The store, for a device.
    #[must_use]
    pub fn service(&self) -> Option<StoreService> {
        self.service.clone()
    }
}

impl Drop for StoreThread {
    fn drop(&mut self) {
        // The last sender: the devices are gone.
        self.service = None;
        // An error means that it has ended, or that the file does not respond.
        let _ = self.ended.recv_timeout(END_TIMEOUT);
    }
}

impl StoreService {
    /// A store without a thread, whose operations have ended when they are submitted.
    #[cfg(any(test, feature = "testing"))]
    #[must_use]
    pub fn immediate<M: Medium + 'static>(store: Store<M>) -> Self {
        let ids = Arc::new(Mutex::new(store.record_ids().collect()));
        let (store, known) = (Mutex::new(store), Arc::clone(&ids));
        let submit = Arc::new(move |job: Job, pending: Pending| {
            carry_out(&mut lock(&store), job, &known, &pending);
            true
        });
        StoreService { submit, ids }
    }

    /// A store whose file does not respond.
    #[cfg(test)]
    pub(super) fn silent() -> Self {
        StoreService { submit: Arc::new(|_: Job, _: Pending| true), ids: Arc::default() }
    }

    /// Submits an operation. `None` if too many wait.
    pub(super) fn submit(&self, job: Job) -> Option<Pending> {
        let pending = Pending::default();
        (self.submit)(job, Arc::clone(&pending)).then_some(pending)
    }

    /// The number of records.
    pub(super) fn count(&self) -> usize {
        lock(&self.ids).len()
    }

    /// The identifier of the record at that position, in the order in which they were written.
    pub(super) fn id_at(&self, position: usize) -> Option<u64> {
        lock(&self.ids).get(position).copied()
    }
}

/// Takes the outcome of an operation, if it has ended.
pub(super) fn take_outcome(pending: &Pending) -> Option<Outcome> {
    lock(pending).take()
}

fn carry_out<M: Medium>(store: &mut Store<M>, job: Job, ids: &Mutex<Vec<u64>>, pending: &Pending) {
    let outcome = match job {
        Job::Write(record_id, record) => (write(store, record_id, &record), Vec::new()),
        Job::Read(record_id) => match store.read(record_id) {
            Ok(Some(record)) => (Status::Success, record),
            Ok(None) => (missing(store), Vec::new()),
            Err(error) => (failed("reads", &error), Vec::new()),
        },
        Job::Clear(record_id) => match store.clear(record_id) {
            Ok(true) => (Status::Success, Vec::new()),
            Ok(false) => (missing(store), Vec::new()),
            Err(error) => (failed("clears", &error), Vec::new()),
        },
    };
    // The identifiers first: the guest may read them as soon as it has the status.
    *lock(ids) = store.record_ids().collect();
    *lock(pending) = Some(outcome);
}

fn write<M: Medium>(store: &mut Store<M>, record_id: u64, record: &[u8]) -> Status {
    match store.write(record_id, record) {
        Ok(()) => Status::Success,
        Err(WriteError::Full(_) | WriteError::TooLong { .. }) => Status::NotEnoughSpace,
        Err(WriteError::Io(error)) => {
            let no_space = matches!(
                error.kind(),
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
            );
            let status = failed("writes", &error);
            if no_space { Status::NotEnoughSpace } else { status }
        }
    }
}

fn missing<M: Medium>(store: &Store<M>) -> Status {
    if store.record_ids().len() == 0 { Status::StoreEmpty } else { Status::NotFound }
}

fn failed(what: &str, error: &io::Error) -> Status {
    tracing::warn!(%error, "the guest {what} an error record, and the store's file does not permit it");
    Status::Failed
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
