//! The thread that is notified of detected errors (action optional).
//!
//! The kernel sends the signal of a detected error to one thread of a process, the first that has set PR_MCE_KILL_EARLY, and drops it
//! if an earlier one is still pending there. So after each signal the thread also scans guest memory for poisoned pages
//! ([`super::pagemap`]).

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::process::{
    MachineCheckMemoryCorruptionKillPolicy as Policy, set_machine_check_memory_corruption_kill_policy,
};

use super::pagemap::Pagemap;
use super::ring::Ring;
use super::{Action, BUS_MCEERR_AO, Fault, siginfo};
use crate::{own, ranges};

/// The early-kill thread of this process (PR_MCE_KILL_EARLY), which is notified of errors that no thread has consumed. A process has
/// at most one. Dropping it stops and joins the thread.
///
/// Each poisoned page is reported once for its signal, or once by the thread's own scan if its signal was dropped. A page that
/// another thread [took](super::take_fault) as action required may be reported here as well.
#[derive(Debug)]
pub struct AoListener {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// The least time between two scans of guest memory.
const SCAN_INTERVAL: Duration = Duration::from_millis(100);

/// Ranges of replaced memory that are noted, before the list allocates memory.
const REPLACED_CAPACITY: usize = 64;

/// Faults from handlers to the thread.
static FAULTS: Ring<256> = Ring::new();

/// Wakes the thread. It is never closed: a handler may be about to write to it.
static WAKE: OnceLock<OwnedFd> = OnceLock::new();

/// Whether the thread exists.
static IS_RUNNING: AtomicBool = AtomicBool::new(false);

/// Requests of other threads to this one. Handlers do not lock it.
static REQUESTS: Mutex<Requests> = Mutex::new(Requests { replaced: Vec::new(), to_raise: Vec::new() });

/// Empty while the thread does not exist.
struct Requests {
    /// Memory that was replaced or unmapped: (HVA, bytes). Pages in it are reported again if they are poisoned again.
    replaced: Vec<(u64, u64)>,
    /// Faults for the thread to send to itself.
    to_raise: Vec<Fault>,
}

fn requests() -> MutexGuard<'static, Requests> {
    REQUESTS.lock().unwrap_or_else(PoisonError::into_inner)
}

impl AoListener {
    /// Starts the thread, which calls `report` for each poisoned page. The calling thread, and those that it starts from now on, are
    /// set to PR_MCE_KILL_LATE, so that they are notified only of pages that they touch. Call it early, from the main thread.
    ///
    /// # Errors
    /// `AlreadyExists` if the process has one; or the error of eventfd(2) or of starting the thread.
    pub fn start(report: impl FnMut(Fault) + Send + 'static) -> io::Result<Self> {
        let running = Running::claim().ok_or(io::ErrorKind::AlreadyExists)?;
        set_policy(Policy::Late);
        if WAKE.get().is_none() {
            // Cannot be set by now: `running` excludes other starts.
            let _ = WAKE.set(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        }
        // A vCPU's thread that has replaced a page allocates nothing.
        requests().replaced.reserve(REPLACED_CAPACITY);
        let stop = Arc::new(AtomicBool::new(false));
        let mut listener = Listener {
            report,
            pagemap: Pagemap::open().ok(),
            reported: HashMap::new(),
            stop: Arc::clone(&stop),
        };
        let (started, is_started) = mpsc::channel();
        let thread = own::thread("ao-listener").spawn(move || {
            let _running = running;
            set_policy(Policy::Early);
            // Fails only if the receiver is gone.
            let _ = started.send(());
            listener.run();
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
            // The panic hook has reported a panic.
            let _ = thread.join();
        }
    }
}

/// Held by the one thread of the process.
struct Running;

impl Running {
    fn claim() -> Option<Self> {
        // Not `then_some`: it would make and drop a second one, which resets the flag.
        (!IS_RUNNING.swap(true, Ordering::SeqCst)).then(|| Running)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut requests = requests();
        requests.replaced.clear();
        requests.to_raise.clear();
        IS_RUNNING.store(false, Ordering::SeqCst);
    }
}

/// Queues a fault for the thread and wakes it. Returns false if the queue is full. Async-signal-safe.
pub(super) fn push(fault: Fault) -> bool {
    let is_queued = FAULTS.push(fault);
    // Also if the queue is full: the scan reports pages whose faults were dropped.
    wake();
    is_queued
}

/// Makes the thread send itself a fault.
pub(super) fn raise(fault: Fault) -> io::Result<()> {
    let mut requests = requests();
    if !IS_RUNNING.load(Ordering::SeqCst) {
        return Err(io::ErrorKind::NotFound.into());
    }
    requests.to_raise.push(fault);
    drop(requests);
    wake();
    Ok(())
}

/// The memory was replaced or unmapped: a page in it that is poisoned later is reported again.
pub(crate) fn memory_replaced(hva: u64, len: u64) {
    let mut requests = requests();
    if !IS_RUNNING.load(Ordering::SeqCst) {
        return;
    }
    requests.replaced.push((hva, len));
    let is_full = requests.replaced.len() >= REPLACED_CAPACITY;
    drop(requests);
    // Memory that a guest gives back would add to the list without an end.
    if is_full {
        wake();
    }
}

/// Async-signal-safe: a load and a system call.
fn wake() {
    if let Some(event) = WAKE.get() {
        // Fails only if 2^64 - 2 wakes are pending.
        let _ = rustix::io::write(event, &1_u64.to_ne_bytes());
    }
}

/// PR_MCE_KILL of this thread. It fails without CONFIG_MEMORY_FAILURE and in a sandbox that forbids it: then a poisoned page is
/// reported only when it is touched.
fn set_policy(policy: Policy) {
    let _ = set_machine_check_memory_corruption_kill_policy(Some(policy));
}

/// What reported a page first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Signal,
    /// Its signal was dropped, or is about to arrive.
    Scan,
}

/// The state of the thread.
struct Listener<F> {
    report: F,
    /// `None` if the process cannot read its own pagemap: then only signals are reported.
    pagemap: Option<Pagemap>,
    /// Pages that were reported, by the HVA of their first byte.
    reported: HashMap<u64, Source>,
    stop: Arc<AtomicBool>,
}

impl<F: FnMut(Fault)> Listener<F> {
    fn run(&mut self) {
        let Some(event) = WAKE.get() else { return };
        let mut next_scan = Instant::now();
        let mut is_scan_due = false;
        while !self.stop.load(Ordering::SeqCst) {
            let timeout = is_scan_due.then(|| next_scan.saturating_duration_since(Instant::now()));
            wait(event.as_fd(), timeout);
            self.serve_requests();
            while let Some(fault) = FAULTS.pop() {
                is_scan_due = true;
                self.report_signal(fault);
            }
            if is_scan_due && Instant::now() >= next_scan {
                is_scan_due = false;
                self.scan();
                next_scan = Instant::now() + SCAN_INTERVAL;
            }
        }
    }

    fn serve_requests(&mut self) {
        let mut requests = requests();
        for (hva, len) in requests.replaced.drain(..) {
            self.reported.retain(|&page, _| page < hva || page - hva >= len);
        }
        for fault in requests.to_raise.drain(..) {
            // Fails only at the limit of pending signals (RLIMIT_SIGPENDING).
            let _ = siginfo::send_to_this_thread(BUS_MCEERR_AO, fault);
        }
    }

    fn report_signal(&mut self, fault: Fault) {
        let page = fault.hva & !(page_size(fault.hva) - 1);
        // Not again if the scan reported the page before its signal arrived.
        if self.reported.insert(page, Source::Signal) != Some(Source::Scan) {
            (self.report)(fault);
        }
    }

    fn scan(&mut self) {
        let Listener { report, pagemap: Some(pagemap), reported, stop } = self else { return };
        for range in ranges::all().take_while(|_| !stop.load(Ordering::SeqCst)) {
            pagemap.poisoned_pages(range, |hva| {
                if let Entry::Vacant(entry) = reported.entry(hva) {
                    entry.insert(Source::Scan);
                    report(Fault { hva, log2_len: range.log2_page, action: Action::Optional });
                }
            });
        }
    }
}

/// Bytes of the page of an HVA: the backing's page size in guest memory, the base page size elsewhere.
fn page_size(hva: u64) -> u64 {
    let range = ranges::all().find(|range| hva >= range.hva && hva - range.hva < range.len);
    range.map_or(rustix::param::page_size() as u64, |range| 1 << range.log2_page)
}

/// Waits until the thread is woken or the timeout has elapsed.
fn wait(event: BorrowedFd<'_>, timeout: Option<Duration>) {
    let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
    // EINTR: by the signal, whose handler has made the eventfd readable.
    let _ = poll(&mut [PollFd::new(&event, PollFlags::IN)], timeout.as_ref());
    // EAGAIN after a timeout.
    let _ = rustix::io::read(event, &mut [0; 8]);
}
