//! What transfers data between a disk's file and its buffers, many operations at a time.
//!
//! An [`Engine`] belongs to a thread of the device. It has the file and buffers of the VMM, and never guest memory, which the
//! thread copies to and from. Operations complete in any order.

#[cfg(feature = "testing")]
mod immediate;
mod threads;
mod uring;

use std::fmt::{self, Display, Formatter};
use std::io;
use std::os::fd::RawFd;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};

use self::threads::Threads;
use self::uring::Uring;
use super::Disk;
use super::bounce::Bounce;
use super::disk::Zeroes;

/// The means by which a disk's requests are carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EngineKind {
    /// io_uring(7) reads, writes and flushes; threads do the rest.
    IoUring,
    /// A pool of threads.
    Threads,
    /// The device's own thread, which does one operation after the other and the last one first.
    #[cfg(feature = "testing")]
    Immediate,
}

impl EngineKind {
    /// The best that this host has. It may lack io_uring, or forbid it (`/proc/sys/kernel/io_uring_disabled`).
    #[must_use]
    pub fn of_this_host() -> Self {
        static KIND: OnceLock<EngineKind> = OnceLock::new();
        *KIND.get_or_init(|| match uring::probe() {
            Ok(()) => EngineKind::IoUring,
            Err(error) => {
                tracing::debug!(%error, "io_uring_setup(2): disks use threads");
                EngineKind::Threads
            }
        })
    }

    /// An engine for a disk, with room for this number of operations. One without io_uring if that fails now.
    pub(super) fn start(self, disk: &Arc<Disk>, operations: u16) -> io::Result<Box<dyn Engine>> {
        #[cfg(feature = "testing")]
        if self == EngineKind::Immediate {
            return Ok(Box::new(immediate::Immediate::new(Arc::clone(disk))));
        }
        let threads = Threads::new(Arc::clone(disk))?;
        if self == EngineKind::IoUring {
            match Uring::new(Arc::clone(disk), operations) {
                Ok(ring) => return Ok(Box::new(uring::WithThreads { ring, threads })),
                Err(error) => tracing::warn!(%error, "io_uring_setup(2) failed: a disk uses threads"),
            }
        }
        Ok(Box::new(threads))
    }
}

impl Display for EngineKind {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            EngineKind::IoUring => "io_uring",
            EngineKind::Threads => "threads",
            #[cfg(feature = "testing")]
            EngineKind::Immediate => "immediate",
        })
    }
}

/// Carries out operations on a disk's file.
///
/// Dropping an engine waits for the operations that the kernel has begun, and forgets the others: no operation of a driver takes
/// effect after the driver's reset.
pub(super) trait Engine: Send {
    /// Starts an operation, or prepares it for the next [`submit`](Self::submit). No two operations with one token at a time.
    ///
    /// # Errors
    /// Returns an error if no operation can be started any more.
    fn start(&mut self, operation: Operation) -> io::Result<()>;

    /// Passes prepared operations to the kernel.
    ///
    /// # Errors
    /// Returns an error if the host refuses them.
    fn submit(&mut self) -> io::Result<()>;

    /// An operation that has completed; `None` if there is none now.
    fn completed(&mut self) -> Option<Completion>;

    /// The descriptors that are readable after an operation has completed.
    fn events(&self) -> Vec<RawFd>;
}

/// A part of a request.
#[derive(Debug)]
pub(super) struct Operation {
    /// Identifies it among those in flight.
    pub(super) token: u16,
    pub(super) work: Work,
    /// The first byte of the file.
    pub(super) offset: u64,
    /// The data of a read or a write.
    pub(super) buffer: Bounce,
}

impl Operation {
    /// Carries it out on this thread. A long one returns early once `stop` is set.
    fn carry_out(self, disk: &Disk, stop: &AtomicBool) -> Completion {
        let Operation { token, work, offset, mut buffer } = self;
        let outcome = match work {
            Work::Read => disk.read(offset, buffer.bytes_mut()),
            Work::Write { sync } => disk.write(offset, buffer.bytes(), sync),
            Work::Flush => disk.flush(),
            Work::Discard { len } => disk.discard(offset, len, stop),
            Work::WriteZeroes { len, zeroes } => disk.write_zeroes(offset, len, zeroes, stop),
        };
        Completion { token, buffer, outcome }
    }
}

/// What an operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    /// Fills the buffer.
    Read,
    /// Writes the buffer; with `sync`, to stable storage.
    Write { sync: bool },
    /// Flushes completed writes to stable storage.
    Flush,
    /// Discards bytes.
    Discard { len: u64 },
    /// Makes bytes zero.
    WriteZeroes { len: u64, zeroes: Zeroes },
}

/// The end of an operation.
#[derive(Debug)]
pub(super) struct Completion {
    pub(super) token: u16,
    pub(super) buffer: Bounce,
    pub(super) outcome: io::Result<()>,
}
