//! Access to a disk's file past the host's page cache.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::libc;
use rustix::fs::{AtFlags, Statx, StatxFlags, ioctl_blksszget, statx};

use super::DiskError;
use crate::virtio_block::bounce;

/// A file that is open with O_DIRECT.
#[derive(Debug)]
pub(super) struct Direct {
    file: File,
    /// Of offsets and lengths, in bytes.
    alignment: u64,
}

/// The alignment if the host does not report one: the largest logical block size that is common.
const DEFAULT_ALIGNMENT: u32 = 4096;

impl Direct {
    /// Opens `file` once more, by the path that it was opened by.
    pub(super) fn open(path: &Path, file: &File, read_only: bool) -> Result<Self, DiskError> {
        let alignment = alignment(file)?;
        let refused = |source| DiskError::Open { read_only, source };
        let options = OpenOptions::new().read(true).write(!read_only).custom_flags(libc::O_DIRECT).open(path);
        let direct = options.map_err(|error| match error.raw_os_error() {
            Some(libc::EINVAL) => {
                DiskError::NoDirect { reason: "its file system does not support it (open(2), O_DIRECT)" }
            }
            _ => refused(error),
        })?;
        let id = |file: &File| file.metadata().map(|metadata| (metadata.dev(), metadata.ino()));
        if id(&direct).map_err(refused)? != id(file).map_err(refused)? {
            return Err(refused(io::Error::other("the file was replaced while it was opened")));
        }
        Ok(Direct { file: direct, alignment })
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Whether a transfer is aligned. The memory always is ([`bounce::ALIGNMENT`]).
    pub(super) fn takes(&self, offset: u64, len: usize) -> bool {
        offset.is_multiple_of(self.alignment) && (len as u64).is_multiple_of(self.alignment)
    }
}

/// The alignment of offsets and lengths.
fn alignment(file: &File) -> Result<u64, DiskError> {
    let status =
        statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN).map_err(|e| DiskError::Read(e.into()));
    let alignment = match reported(&status?)? {
        Some(alignment) => alignment,
        // The file is no block device, or its logical block size.
        None => ioctl_blksszget(file).unwrap_or_default().max(DEFAULT_ALIGNMENT),
    };
    Ok(alignment.into())
}

/// The alignment that the kernel reports (statx(2), STATX_DIOALIGN, since Linux 6.1); `None` if the kernel or the file system
/// does not.
fn reported(status: &Statx) -> Result<Option<u32>, DiskError> {
    if status.stx_mask & StatxFlags::DIOALIGN.bits() == 0 {
        return Ok(None);
    }
    if status.stx_dio_offset_align == 0 {
        return Err(DiskError::NoDirect {
            reason: "its file system does not support it for this file (statx(2), STATX_DIOALIGN)",
        });
    }
    if status.stx_dio_mem_align as usize > bounce::ALIGNMENT {
        return Err(DiskError::NoDirect {
            reason: "it needs memory with an alignment of more than 4096 bytes",
        });
    }
    Ok(Some(status.stx_dio_offset_align))
}
