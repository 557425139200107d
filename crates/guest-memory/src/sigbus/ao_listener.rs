//! The thread that is told of errors that nobody has consumed.
//!
//! The kernel sends such an error's signal to one thread of a process, the first that asked for it, and drops it where an
//! earlier one still waits there. So after each signal the thread also looks for poisoned pages itself ([`super::pagemap`]).

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, mpsc};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::process::{
    MachineCheckMemoryCorruptionKillPolicy as Policy, set_machine_check_memory_corruption_kill_policy,
};

use super::pagemap::Pagemap;
use super::ring::Ring;
use super::{Action, BUS_MCEERR_AO, Fault, siginfo};
use crate::ranges;

/// The thread that is told of errors that nobody has consumed. One a process; dropping it stops and joins it.
///
/// It is told of a page once by a signal, and once by its own search where the signal was dropped. A page that a thread
/// [took](super::take) as required may be told of here as well.
#[derive(Debug)]
pub struct AoListener {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// No more than one search of all memory in this time.
const BETWEEN_SEARCHES: Duration = Duration::from_millis(100);

/// What handlers put for the thread.
static FAULTS: Ring<256> = Ring::new();

/// What wakes the thread. It is never closed: a handler may be about to write to it.
static WAKE: OnceLock<OwnedFd> = OnceLock::new();

/// Whether there is a thread.
static IS_TAKEN: AtomicBool = AtomicBool::new(false);

/// What others want of the thread. No handler asks for it.
static REQUESTS: Mutex<Requests> = Mutex::new(Requests { renewed: Vec::new(), to_raise: Vec::new() });

/// Empty while there is no thread.
struct Requests {
    /// Memory that is new, or gone: (HVA, bytes).
    renewed: Vec<(u64, u64)>,
    /// Faults that the thread is to send to itself.
    to_raise: Vec<Fault>,
}

fn requests() -> MutexGuard<'static, Requests> {
    REQUESTS.lock().unwrap_or_else(PoisonError::into_inner)
}

impl AoListener {
    /// Starts the thread, which calls `found` for each page. This thread, and those that it starts from now on, are told
    /// of what they touch only: call it early, from the main thread.
    ///
    /// # Errors
    /// `AlreadyExists` where there is one; or what the host says.
    pub fn start(found: impl FnMut(Fault) + Send + 'static) -> io::Result<Self> {
        let place = Place::take().ok_or(io::ErrorKind::AlreadyExists)?;
        ask_for(Policy::Late);
        if WAKE.get().is_none() {
            // Nobody else can set it: this is the only one that starts.
            let _ = WAKE.set(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        }
        let stop = Arc::new(AtomicBool::new(false));
        let mut search =
            Search { found, pagemap: Pagemap::open().ok(), told: HashMap::new(), stop: Arc::clone(&stop) };
        let (started, is_started) = mpsc::channel();
        let thread = Builder::new().name("ao-listener".into()).spawn(move || {
            let _place = place;
            ask_for(Policy::Early);
            // Fails only where nobody waits any more.
            let _ = started.send(());
            search.run();
        })?;
        let listener = AoListener { stop, thread: Some(thread) };
        is_started.recv().map_err(io::Error::other)?;
        Ok(listener)
    }
}

impl Drop for AoListener {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        wake();
        if let Some(thread) = self.thread.take() {
            // A panic was told of by the thread itself.
            let _ = thread.join();
        }
    }
}

/// The place of the one thread, which is free again when this is dropped.
struct Place;

impl Place {
    fn take() -> Option<Self> {
        // Not `then_some`: a place that is made and dropped would free that of the thread.
        (!IS_TAKEN.swap(true, Ordering::SeqCst)).then(|| Place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut requests = requests();
        requests.renewed.clear();
        requests.to_raise.clear();
        IS_TAKEN.store(false, Ordering::SeqCst);
    }
}

/// Keeps a fault for the thread and wakes it. False where there is no room. Async-signal-safe.
pub(super) fn put(fault: Fault) -> bool {
    let is_kept = FAULTS.put(fault);
    // Also where it is full: the search finds what the ring does not tell.
    wake();
    is_kept
}

/// Has the thread send itself a fault.
pub(super) fn raise(fault: Fault) -> io::Result<()> {
    let mut requests = requests();
    if !IS_TAKEN.load(Ordering::SeqCst) {
        return Err(io::ErrorKind::NotFound.into());
    }
    requests.to_raise.push(fault);
    drop(requests);
    wake();
    Ok(())
}

/// What was lost there is no more.
pub(crate) fn forget(hva: u64, len: u64) {
    let mut requests = requests();
    if IS_TAKEN.load(Ordering::SeqCst) {
        requests.renewed.push((hva, len));
    }
}

/// Async-signal-safe: a load and a system call.
fn wake() {
    if let Some(event) = WAKE.get() {
        // Fails only where 2^64 - 2 wakes are pending.
        let _ = rustix::io::write(event, &1_u64.to_ne_bytes());
    }
}

/// A kernel without memory failures may not know the request, and a sandbox may refuse it: what is lost is told of when it is touched
/// then.
fn ask_for(policy: Policy) {
    let _ = set_machine_check_memory_corruption_kill_policy(Some(policy));
}

/// By what a page was told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Signal,
    /// Its signal was dropped, or is about to come.
    Search,
}

/// What the thread owns.
struct Search<F> {
    found: F,
    /// None where the host does not let this process see its own page tables: signals alone are told of then.
    pagemap: Option<Pagemap>,
    /// Pages that were told of, by the HVA of their first byte.
    told: HashMap<u64, By>,
    stop: Arc<AtomicBool>,
}

impl<F: FnMut(Fault)> Search<F> {
    fn run(&mut self) {
        let Some(event) = WAKE.get() else { return };
        let mut next_search = Instant::now();
        let mut is_search_due = false;
        while !self.stop.load(Ordering::SeqCst) {
            let patience = is_search_due.then(|| next_search.saturating_duration_since(Instant::now()));
            wait(event.as_fd(), patience);
            self.serve_requests();
            while let Some(fault) = FAULTS.take() {
                is_search_due = true;
                self.tell_of_signal(fault);
            }
            if is_search_due && Instant::now() >= next_search {
                is_search_due = false;
                self.search();
                next_search = Instant::now() + BETWEEN_SEARCHES;
            }
        }
    }

    fn serve_requests(&mut self) {
        let mut requests = requests();
        for (hva, len) in requests.renewed.drain(..) {
            self.told.retain(|&page, _| page < hva || page - hva >= len);
        }
        for fault in requests.to_raise.drain(..) {
            // Fails only where the host's limit of pending signals is reached.
            let _ = siginfo::send_to_this_thread(BUS_MCEERR_AO, fault);
        }
    }

    fn tell_of_signal(&mut self, fault: Fault) {
        let page = fault.hva & !(page_size(fault.hva) - 1);
        // The search was faster than the signal.
        if self.told.insert(page, By::Signal) != Some(By::Search) {
            (self.found)(fault);
        }
    }

    fn search(&mut self) {
        let Search { found, pagemap: Some(pagemap), told, stop } = self else { return };
        for range in ranges::all().take_while(|_| !stop.load(Ordering::SeqCst)) {
            pagemap.poisoned_pages(range, |hva| {
                if let std::collections::hash_map::Entry::Vacant(place) = told.entry(hva) {
                    place.insert(By::Search);
                    found(Fault { hva, log2_len: range.log2_page, action: Action::Optional });
                }
            });
        }
    }
}

/// Bytes of the page that an address of the guest's is in.
fn page_size(hva: u64) -> u64 {
    let range = ranges::all().find(|range| hva >= range.hva && hva - range.hva < range.len);
    range.map_or(rustix::param::page_size() as u64, |range| 1 << range.log2_page)
}

/// Waits until it is woken, or time has run out.
fn wait(event: BorrowedFd<'_>, patience: Option<Duration>) {
    let patience = patience.and_then(|patience| Timespec::try_from(patience).ok());
    // EINTR: by the very signal, whose handler has made the eventfd readable.
    let _ = poll(&mut [PollFd::new(&event, PollFlags::IN)], patience.as_ref());
    // Fails where it was not woken.
    let _ = rustix::io::read(event, &mut [0; 8]);
}
