//! Discarding and zeroing sectors.
//!
//! | | file | block device |
//! |---|---|---|
//! | discard | a hole: FALLOC_FL_PUNCH_HOLE | BLKDISCARD |
//! | write zeroes, and unmap | a hole, else as below | the same: zeroes that the device unmaps, if it can |
//! | write zeroes | FALLOC_FL_ZERO_RANGE, else written | the same |
//!
//! A discard is a hint (VIRTIO 1.2, 5.2.6): what the host does not support is left as it is.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

/// How sectors become zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::virtio_block) struct Zeroes {
    /// Whether the host may give the space to others.
    pub(in crate::virtio_block) unmap: bool,
    /// Whether the zeroes are to reach stable storage.
    pub(in crate::virtio_block) sync: bool,
}

/// Bytes between two looks at the stop flag, if the file system does not transfer them.
const STEP: u64 = 128 << 20;
/// Bytes that are written at a time.
const WRITE_LEN: usize = 256 << 10;

const HOLE: FallocateFlags = FallocateFlags::PUNCH_HOLE.union(FallocateFlags::KEEP_SIZE);
const ZERO: FallocateFlags = FallocateFlags::ZERO_RANGE.union(FallocateFlags::KEEP_SIZE);

pub(super) fn discard(
    file: &File,
    is_block_device: bool,
    offset: u64,
    len: u64,
    stop: &AtomicBool,
) -> io::Result<()> {
    let discarded = in_steps(offset, len, stop, |offset, len| {
        if is_block_device {
            block_device::discard(file, offset, len)
        } else {
            fallocate(file, HOLE, offset, len)
        }
    });
    match discarded {
        Err(error) if is_unsupported(error) => {
            tracing::debug!(%error, "the host cannot discard: the sectors keep their content");
            Ok(())
        }
        outcome => Ok(outcome?),
    }
}

pub(super) fn write_zeroes(
    file: &File,
    offset: u64,
    len: u64,
    Zeroes { unmap, sync }: Zeroes,
    stop: &AtomicBool,
) -> io::Result<()> {
    let modes: &[FallocateFlags] = if unmap { &[HOLE, ZERO] } else { &[ZERO] };
    let mut is_done = false;
    for mode in modes {
        match in_steps(offset, len, stop, |offset, len| fallocate(file, *mode, offset, len)) {
            Err(error) if is_unsupported(error) => {}
            outcome => {
                outcome?;
                is_done = true;
                break;
            }
        }
    }
    if !is_done {
        write(file, offset, len, stop)?;
    }
    if sync { file.sync_data() } else { Ok(()) }
}

/// Whether the host lacks an operation, for this file or for blocks as small as these.
fn is_unsupported(error: Errno) -> bool {
    [Errno::OPNOTSUPP, Errno::NOSYS, Errno::INVAL, Errno::NOTTY].contains(&error)
}

/// Runs an operation on parts of a range.
fn in_steps(
    mut offset: u64,
    mut len: u64,
    stop: &AtomicBool,
    mut operation: impl FnMut(u64, u64) -> rustix::io::Result<()>,
) -> rustix::io::Result<()> {
    while len > 0 && !stop.load(Ordering::Relaxed) {
        let part = len.min(STEP);
        match operation(offset, part) {
            Err(Errno::INTR) => continue,
            outcome => outcome?,
        }
        offset += part;
        len -= part;
    }
    Ok(())
}

/// Writes zeroes.
fn write(file: &File, mut offset: u64, mut len: u64, stop: &AtomicBool) -> io::Result<()> {
    let zeroes = vec![0; WRITE_LEN];
    while len > 0 && !stop.load(Ordering::Relaxed) {
        let part = len.min(WRITE_LEN as u64);
        file.write_all_at(zeroes.get(..part as usize).unwrap_or(&zeroes), offset)?;
        offset += part;
        len -= part;
    }
    Ok(())
}

#[expect(unsafe_code, reason = "no crate of the tree has this ioctl")]
mod block_device {
    use std::fs::File;

    use rustix::io;
    use rustix::ioctl::{Setter, ioctl, opcode};

    /// BLKDISCARD (linux/fs.h): takes offset and length in bytes.
    const BLKDISCARD: rustix::ioctl::Opcode = opcode::none(0x12, 119);

    pub(super) fn discard(file: &File, offset: u64, len: u64) -> io::Result<()> {
        // SAFETY: the ioctl reads two 64-bit values, and only those.
        unsafe { ioctl(file, Setter::<BLKDISCARD, [u64; 2]>::new([offset, len])) }
    }
}
