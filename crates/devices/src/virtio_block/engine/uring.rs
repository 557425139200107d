//! An engine of io_uring(7).
//!
//! The kernel completes what is in the page cache during [`submit`](Engine::submit), and the rest later. It has no operation for
//! every kind of discard: those are for threads.

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

use io_uring::squeue::Entry;
use io_uring::types::{Fd, FsyncFlags};
use io_uring::{IoUring, Probe, opcode};
use nix::libc;

use super::threads::Threads;
use super::{Completion, Engine, Operation, Work};
use crate::virtio_block::Disk;

/// Whether this host has every operation that the engine needs.
pub(super) fn probe() -> io::Result<()> {
    let ring = IoUring::new(1)?;
    let mut probe = Probe::new();
    ring.submitter().register_probe(&mut probe)?;
    let needed = [opcode::Read::CODE, opcode::Write::CODE, opcode::Fsync::CODE];
    if needed.into_iter().all(|code| probe.is_supported(code)) {
        Ok(())
    } else {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// A ring, and threads for what it cannot do.
pub(super) struct WithThreads {
    pub(super) ring: Uring,
    pub(super) threads: Threads,
}

impl Engine for WithThreads {
    fn start(&mut self, operation: Operation) -> io::Result<()> {
        match operation.work {
            Work::Read | Work::Write { .. } | Work::Flush => self.ring.start(operation),
            Work::Discard { .. } | Work::WriteZeroes { .. } => self.threads.start(operation),
        }
    }

    fn submit(&mut self) -> io::Result<()> {
        self.ring.submit()
    }

    fn completed(&mut self) -> Option<Completion> {
        self.ring.completed().or_else(|| self.threads.completed())
    }

    fn events(&self) -> Vec<RawFd> {
        [self.ring.ring.as_raw_fd()].into_iter().chain(self.threads.events()).collect()
    }
}

/// A ring, and the operations that it holds.
pub(super) struct Uring {
    ring: IoUring,
    disk: Arc<Disk>,
    /// By token.
    in_flight: Vec<Option<InFlight>>,
    /// Tokens of operations that are transferred in part, and continue.
    unfinished: VecDeque<u16>,
    /// Entries that the kernel has not been given.
    is_prepared: bool,
}

/// An operation in the ring. The kernel uses its buffer.
struct InFlight {
    operation: Operation,
    /// Bytes that are transferred.
    done: usize,
}

impl Uring {
    pub(super) fn new(disk: Arc<Disk>, operations: u16) -> io::Result<Self> {
        let ring = IoUring::new(u32::from(operations).next_power_of_two())?;
        let in_flight = (0..operations).map(|_| None).collect();
        Ok(Uring { ring, disk, in_flight, unfinished: VecDeque::new(), is_prepared: false })
    }

    fn start(&mut self, operation: Operation) -> io::Result<()> {
        let token = operation.token;
        let slot = self.in_flight.get_mut(usize::from(token)).filter(|slot| slot.is_none());
        *slot.ok_or(io::ErrorKind::InvalidInput)? = Some(InFlight { operation, done: 0 });
        self.prepare(token)
    }

    /// Prepares an entry for what is left of an operation.
    #[expect(unsafe_code, reason = "the kernel is given the address of a buffer")]
    fn prepare(&mut self, token: u16) -> io::Result<()> {
        let Some(Some(in_flight)) = self.in_flight.get_mut(usize::from(token)) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let entry = in_flight.entry(&self.disk).user_data(token.into());
        // SAFETY: the file stays open as long as `disk`, which this has. The buffer is memory of `operation`, which stays in
        // `in_flight`, where nothing accesses it, until the ring returns the entry's completion: `completed` takes it out
        // then, and `drop` waits for every completion.
        if unsafe { self.ring.submission().push(&entry) }.is_err() {
            self.submit()?;
            // SAFETY: as above.
            unsafe { self.ring.submission().push(&entry) }.map_err(io::Error::other)?;
        }
        self.is_prepared = true;
        Ok(())
    }

    fn submit(&mut self) -> io::Result<()> {
        for token in mem::take(&mut self.unfinished) {
            self.prepare(token)?;
        }
        if self.is_prepared {
            match retried(|| self.ring.submit()) {
                Ok(_) => {}
                // The kernel has no memory now. It is tried again when an operation has completed.
                Err(error) if is_transient(&error) && self.has_submitted() => {}
                Err(error) => return Err(error),
            }
            // The kernel may have taken some only.
            self.is_prepared = !self.ring.submission().is_empty();
        }
        Ok(())
    }

    /// Whether the kernel has an operation that it has not completed.
    fn has_submitted(&mut self) -> bool {
        self.in_flight.iter().flatten().count() > self.ring.submission().len()
    }

    fn completed(&mut self) -> Option<Completion> {
        loop {
            let entry = self.ring.completion().next()?;
            let (token, result) = (entry.user_data() as u16, entry.result());
            let Some(slot) = self.in_flight.get_mut(usize::from(token)) else { continue };
            let Some(mut in_flight) = slot.take() else { continue };
            match in_flight.advance(result) {
                Some(outcome) => {
                    return Some(Completion { token, buffer: in_flight.operation.buffer, outcome });
                }
                None => {
                    *slot = Some(in_flight);
                    self.unfinished.push_back(token);
                }
            }
        }
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        // The kernel has no entry for these.
        for token in self.unfinished.drain(..) {
            self.in_flight[usize::from(token)] = None;
        }
        while self.in_flight.iter().any(Option::is_some) {
            let waited = retried(|| self.ring.submit_and_wait(1));
            for entry in self.ring.completion() {
                if let Some(slot) = self.in_flight.get_mut(entry.user_data() as usize) {
                    *slot = None;
                }
            }
            if let Err(error) = waited {
                tracing::error!(%error, "io_uring_enter(2) failed: the buffers of a disk are leaked");
                mem::forget(mem::take(&mut self.in_flight));
            }
        }
    }
}

/// Whether a system call may succeed later.
fn is_transient(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EBUSY))
}

/// Repeats a system call that a signal interrupts.
fn retried(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            outcome => return outcome,
        }
    }
}

impl InFlight {
    fn entry(&mut self, disk: &Disk) -> Entry {
        let Operation { work, offset, buffer, .. } = &mut self.operation;
        let rest = buffer.bytes_mut().get_mut(self.done..).unwrap_or_default();
        let offset = *offset + self.done as u64;
        let file = Fd(disk.file(offset, rest.len()).as_raw_fd());
        // At most `bounce::MAX_LEN`.
        let len = rest.len() as u32;
        match *work {
            Work::Read => opcode::Read::new(file, rest.as_mut_ptr(), len).offset(offset).build(),
            Work::Write { sync } => {
                let flags = if sync { libc::RWF_DSYNC } else { 0 };
                opcode::Write::new(file, rest.as_ptr(), len).offset(offset).rw_flags(flags).build()
            }
            Work::Flush => opcode::Fsync::new(file).flags(FsyncFlags::DATASYNC).build(),
            // `WithThreads` starts none.
            Work::Discard { .. } | Work::WriteZeroes { .. } => opcode::Nop::new().build(),
        }
    }

    /// Takes the result of an entry. `None` if a part is left.
    fn advance(&mut self, result: i32) -> Option<io::Result<()>> {
        let Operation { work, buffer, .. } = &self.operation;
        let left = buffer.bytes().len() - self.done;
        match (usize::try_from(result), work) {
            (Ok(_), Work::Flush) => Some(Ok(())),
            (Ok(0), Work::Read) if left > 0 => Some(Err(io::ErrorKind::UnexpectedEof.into())),
            (Ok(0), _) if left > 0 => Some(Err(io::ErrorKind::WriteZero.into())),
            (Ok(transferred), _) => {
                self.done += transferred.min(left);
                (transferred >= left).then_some(Ok(()))
            }
            (Err(_), _) if [libc::EINTR, libc::EAGAIN].contains(&-result) => None,
            (Err(_), _) => Some(Err(io::Error::from_raw_os_error(-result))),
        }
    }
}
