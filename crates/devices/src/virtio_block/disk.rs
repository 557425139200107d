//! The file of a disk.

mod direct;
mod discard;
mod geometry;

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::AtomicBool;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use rustix::io::{ReadWriteFlags, pwritev2};

use self::direct::Direct;
pub(super) use self::discard::Zeroes;
pub(super) use self::geometry::Geometry;
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
    /// The host uses the block device, or another program has opened it exclusively.
    #[error(
        "the block device is in use: it is mounted, part of another device, or open in another machine (open(2), O_EXCL)"
    )]
    Busy,
    /// The file cannot be read and written past the host's page cache.
    #[error("the disk cannot be accessed directly: {reason}")]
    NoDirect {
        /// Why.
        reason: &'static str,
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
            DiskError::Busy => {
                "unmount it, end the machine that uses it (lsblk(8) and fuser(1) list its users), or write `read-only = true`"
            }
            DiskError::NoDirect { .. } => {
                "write `direct = false`, or place the image on a file system with direct I/O (ext4, XFS and Btrfs have it)"
            }
            DiskError::Format { .. } => {
                "convert it with `qemu-img convert -O raw`, or write `format = \"raw\"` if these bytes are the guest's own"
            }
        }
    }
}

/// How a disk is opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskOptions {
    /// Whether it can only be read.
    pub read_only: bool,
    /// The format of the image. `None`: raw, and an image of another format is refused.
    pub format: Option<Format>,
    /// Whether reads and writes bypass the host's page cache (open(2), O_DIRECT).
    pub direct: bool,
    /// Whether the guest can discard sectors, unless the disk is read-only.
    pub discard: bool,
}

/// An open disk. Its size is that of the file when it was opened.
///
/// While it is open, the file is locked: exclusively if it can be written, else shared. The lock is that of an open file
/// description (fcntl(2), F_OFD_SETLK) on the whole file. It is advisory, and respected by other machines of this crate and
/// of Cloud Hypervisor. QEMU locks single bytes (`raw_check_lock_bytes` in its `block/file-posix.c`): it does not open a file
/// that is locked here, and a file that QEMU has open, even for writing, can be opened here for reading only. On a file
/// system without locks, the disk is used without one.
///
/// A block device that can be written is also opened exclusively (open(2), O_EXCL), whatever its nodes: not if the host has
/// mounted it.
#[derive(Debug)]
pub struct Disk {
    file: File,
    direct: Option<Direct>,
    sectors: u64,
    is_block_device: bool,
    options: DiskOptions,
    geometry: Geometry,
}

impl Disk {
    /// Opens and locks a file or a block device. An image that has the signature of another format than raw is refused unless
    /// [`DiskOptions::format`] says that it is raw.
    ///
    /// # Errors
    /// Returns an error if the file cannot be opened, is neither a regular file nor a block device, is locked, has a partial
    /// sector or another format, or cannot be accessed directly although the options require it.
    pub fn open(path: &Path, options: DiskOptions) -> Result<Self, DiskError> {
        let (file, is_block_device) = open(path, options)?;
        lock(&file, path, options.read_only)?;
        let len = examine(&file, options.format)?;
        Ok(Disk {
            direct: options.direct.then(|| Direct::open(path, &file, options.read_only)).transpose()?,
            geometry: Geometry::of(&file, is_block_device),
            file,
            sectors: len / SECTOR,
            is_block_device,
            options,
        })
    }

    /// Checks a file as [`open`](Self::open) does, but for the lock and the permission to write to it.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn inspect(path: &Path, options: DiskOptions) -> Result<(), DiskError> {
        let (file, _) = open(path, DiskOptions { read_only: true, ..options })?;
        examine(&file, options.format)?;
        if options.direct {
            Direct::open(path, &file, true)?;
        }
        Ok(())
    }

    /// Its size in sectors.
    #[must_use]
    pub fn sectors(&self) -> u64 {
        self.sectors
    }

    /// Whether it is read-only.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.options.read_only
    }

    /// Whether the guest can discard sectors.
    #[must_use]
    pub fn can_discard(&self) -> bool {
        self.options.discard && !self.options.read_only
    }

    pub(super) fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// The offset of a sector in bytes. `None` unless the `len` bytes from there on are whole sectors of the disk.
    pub(super) fn offset(&self, sector: u64, len: u64) -> Option<u64> {
        let end = sector.checked_add(len / SECTOR)?;
        (len.is_multiple_of(SECTOR) && end <= self.sectors).then(|| sector * SECTOR)
    }

    /// The open file by which to read and write these bytes: past the page cache if the disk is accessed directly and they are
    /// aligned. A driver that ignores the block size may send others.
    pub(super) fn file(&self, offset: u64, len: usize) -> &File {
        let direct = self.direct.as_ref().filter(|direct| direct.takes(offset, len));
        direct.map_or(&self.file, Direct::file)
    }

    pub(super) fn read(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.file(offset, bytes.len()).read_exact_at(bytes, offset)
    }

    /// Writes; with `sync`, to stable storage.
    pub(super) fn write(&self, mut offset: u64, mut bytes: &[u8], sync: bool) -> io::Result<()> {
        if !sync {
            return self.file(offset, bytes.len()).write_all_at(bytes, offset);
        }
        while !bytes.is_empty() {
            let file = self.file(offset, bytes.len());
            match pwritev2(file, &[IoSlice::new(bytes)], offset, ReadWriteFlags::DSYNC) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    bytes = bytes.get(written..).unwrap_or_default();
                    offset += written as u64;
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Flushes completed writes to stable storage.
    pub(super) fn flush(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// States that the content of these bytes is no longer needed. Returns early once `stop` is set.
    pub(super) fn discard(&self, offset: u64, len: u64, stop: &AtomicBool) -> io::Result<()> {
        discard::discard(&self.file, self.is_block_device, offset, len, stop)
    }

    /// Makes these bytes zero. Returns early once `stop` is set.
    pub(super) fn write_zeroes(
        &self,
        offset: u64,
        len: u64,
        zeroes: Zeroes,
        stop: &AtomicBool,
    ) -> io::Result<()> {
        discard::write_zeroes(&self.file, offset, len, zeroes, stop)
    }
}

/// Opens a file. Returns also whether it is a block device.
fn open(path: &Path, options: DiskOptions) -> Result<(File, bool), DiskError> {
    let read_only = options.read_only;
    let refused = |source| DiskError::Open { read_only, source };
    // Opening a FIFO would block until it has a writer, and opening other devices has effects.
    let kind = path.metadata().map_err(refused)?.file_type();
    let is_block_device = kind.is_block_device();
    if !kind.is_file() && !is_block_device {
        return Err(DiskError::NotAFile);
    }
    let exclusive = if is_block_device && !read_only { libc::O_EXCL } else { 0 };
    let opened = OpenOptions::new().read(true).write(!read_only).custom_flags(exclusive).open(path);
    let file = opened.map_err(|error| match Errno::try_from(error) {
        Ok(Errno::EBUSY) => DiskError::Busy,
        Ok(error) => refused(error.into()),
        Err(error) => refused(error),
    })?;
    Ok((file, is_block_device))
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
