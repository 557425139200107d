//! The file of a disk.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::path::Path;

/// Bytes of a sector, the unit of virtio-blk whatever the block size of the medium (VIRTIO 1.2, 5.2.4).
pub const SECTOR: u64 = 512;

/// Why a file cannot be a disk.
#[derive(Debug, thiserror::Error)]
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
}

impl DiskError {
    /// A suggestion for the user.
    #[must_use]
    pub fn help(&self) -> &'static str {
        match self {
            DiskError::Open { read_only: false, .. } => {
                "name a file that can be read and written, or write `read-only = true`"
            }
            DiskError::Open { read_only: true, .. } => "name a file that can be read",
            DiskError::NotAFile => "name a raw disk image, or a block device",
            DiskError::Uneven { .. } => "name a raw disk image, or lengthen the file with truncate(1)",
        }
    }
}

/// An open disk. Its size is that of the file when it was opened.
#[derive(Debug)]
pub struct Disk {
    file: File,
    sectors: u64,
    read_only: bool,
}

impl Disk {
    /// Opens a file or a block device.
    ///
    /// # Errors
    /// Returns an error if the file cannot be opened, is neither a regular file nor a block device, or has a partial sector.
    pub fn open(path: &Path, read_only: bool) -> Result<Self, DiskError> {
        let refused = |source| DiskError::Open { read_only, source };
        // Opening a FIFO would block until it has a writer.
        let kind = path.metadata().map_err(refused)?.file_type();
        if !kind.is_file() && !kind.is_block_device() {
            return Err(DiskError::NotAFile);
        }
        let mut file = OpenOptions::new().read(true).write(!read_only).open(path).map_err(refused)?;
        // stat(2) gives no size for a block device.
        let len = file.seek(SeekFrom::End(0)).map_err(refused)?;
        if !len.is_multiple_of(SECTOR) {
            return Err(DiskError::Uneven { len });
        }
        Ok(Disk { file, sectors: len / SECTOR, read_only })
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
