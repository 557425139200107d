//! The file of a disk.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

use super::format::{self, Format};

/// Bytes of a sector, the unit of virtio-blk whatever the block size of the medium (VIRTIO 1.2, 5.2.4).
pub const SECTOR: u64 = 512;

/// Why a file cannot be a disk.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DiskError {
    /// open(2) failed.
    #[error("the disk cannot be opened{}: {source}", if *.read_only { "" } else { " for writing" })]
    Open {
        /// Whether it was opened read-only.
        read_only: bool,
        /// The error of the system call.
        source: io::Error,
    },
    /// It is neither a regular file nor a block device.
    #[error("a disk is a file or a block device, and this is neither")]
    NotAFile,
    /// Its size is not a multiple of [`SECTOR`].
    #[error("a disk is a multiple of {SECTOR} bytes, and this has {len}")]
    Uneven {
        /// Its size in bytes.
        len: u64,
    },
    /// Another machine, or another program, has locked the file.
    #[error(
        "the disk is in use: {} (fcntl(2), F_OFD_SETLK)",
        if *.read_only { "another program has locked it for writing" } else { "another program has locked it" }
    )]
    InUse {
        /// Whether it was opened read-only.
        read_only: bool,
    },
    /// It is an image of another format than raw.
    #[error("the file has the signature of a {format} image, and a disk is read as raw bytes")]
    Format {
        /// The format.
        format: &'static str,
    },
    /// The file cannot be read.
    #[error("the disk cannot be read: {0}")]
    Read(io::Error),
}

impl DiskError {
    /// A suggestion for the user.
    #[must_use]
    pub fn help(&self) -> &'static str {
        match self {
            DiskError::Open { read_only: false, .. } => {
                "name a file that can be read and written, or write `read-only = true`"
            }
            DiskError::Open { read_only: true, .. } | DiskError::Read(_) => "name a file that can be read",
            DiskError::NotAFile => "name a raw disk image, or a block device",
            DiskError::Uneven { .. } => "name a raw disk image, or lengthen the file with truncate(1)",
            DiskError::InUse { .. } => {
                "end the machine that uses it (lslocks(8) lists it), name a copy of the file, or write `read-only = true` in \
                 the profiles of all machines that share it"
            }
            DiskError::Format { .. } => {
                "convert it with `qemu-img convert -O raw`, or write `format = \"raw\"` if these bytes are the guest's own"
            }
        }
    }
}

/// An open disk. Its size is that of the file when it was opened.
///
/// While it is open, the file is locked: exclusively if it can be written, else shared. The lock is that of an open file
/// description (fcntl(2), F_OFD_SETLK) on the whole file. It is advisory, and respected by other machines of this crate and
/// of Cloud Hypervisor. QEMU locks single bytes (`raw_check_lock_bytes` in its `block/file-posix.c`): it does not open a file
/// that is locked here, and a file that QEMU has open, even for writing, can be opened here for reading only. On a file
/// system without locks, the disk is used without one.
#[derive(Debug)]
pub struct Disk {
    file: File,
    sectors: u64,
    read_only: bool,
}

impl Disk {
    /// Opens and locks a file or a block device. An image that has the signature of another format than raw is refused unless
    /// `format` says that it is raw.
    ///
    /// # Errors
    /// Returns an error if the file cannot be opened, is neither a regular file nor a block device, is locked, has a partial
    /// sector or another format.
    pub fn open(path: &Path, read_only: bool, format: Option<Format>) -> Result<Self, DiskError> {
        let file = open(path, read_only)?;
        lock(&file, path, read_only)?;
        let len = examine(&file, format)?;
        Ok(Disk { file, sectors: len / SECTOR, read_only })
    }

    /// Checks a file as [`open`](Self::open) does, but for the lock and the permission to write to it.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn inspect(path: &Path, format: Option<Format>) -> Result<(), DiskError> {
        examine(&open(path, true)?, format).map(drop)
    }

    /// Its size in sectors.
    #[must_use]
    pub fn sectors(&self) -> u64 {
        self.sectors
    }

    /// Whether it is read-only.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// The offset of a sector in bytes. `None` unless the `len` bytes from there on are whole sectors of the disk.
    pub(super) fn offset(&self, sector: u64, len: u64) -> Option<u64> {
        let end = sector.checked_add(len / SECTOR)?;
        (len.is_multiple_of(SECTOR) && end <= self.sectors).then_some(sector * SECTOR)
    }

    pub(super) fn read(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(bytes, offset)
    }

    pub(super) fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    /// Flushes completed writes to stable storage.
    pub(super) fn flush(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

fn open(path: &Path, read_only: bool) -> Result<File, DiskError> {
    let refused = |source| DiskError::Open { read_only, source };
    // Opening a FIFO would block until it has a writer, and opening other devices has effects.
    let kind = path.metadata().map_err(refused)?.file_type();
    if !kind.is_file() && !kind.is_block_device() {
        return Err(DiskError::NotAFile);
    }
    OpenOptions::new().read(true).write(!read_only).open(path).map_err(refused)
}

/// Checks the size and the format of a file. Returns its size in bytes.
fn examine(mut file: &File, format: Option<Format>) -> Result<u64, DiskError> {
    // stat(2) gives no size for a block device.
    let len = file.seek(SeekFrom::End(0)).map_err(DiskError::Read)?;
    if format.is_none()
        && let Some(format) = format::signature(file, len).map_err(DiskError::Read)?
    {
        return Err(DiskError::Format { format });
    }
    if !len.is_multiple_of(SECTOR) {
        return Err(DiskError::Uneven { len });
    }
    Ok(len)
}

fn lock(file: &File, path: &Path, read_only: bool) -> Result<(), DiskError> {
    let kind = if read_only { libc::F_RDLCK } else { libc::F_WRLCK };
    let whole = libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        // Up to the end, however long the file becomes.
        l_len: 0,
        l_pid: 0,
    };
    match fcntl(file, FcntlArg::F_OFD_SETLK(&whole)) {
        Ok(_) => Ok(()),
        // fcntl(2) names both.
        Err(Errno::EAGAIN | Errno::EACCES) => Err(DiskError::InUse { read_only }),
        Err(error) => {
            tracing::warn!(
                ?path,
                %error,
                "the disk's file system has no locks: nothing keeps two machines from writing this disk"
            );
            Ok(())
        }
    }
}
