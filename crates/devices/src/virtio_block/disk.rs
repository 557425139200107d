//! The file that a disk is.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::path::Path;

/// Bytes of a sector, the unit of virtio-blk whatever the medium's own is (VIRTIO 1.2, 5.2.4).
pub const SECTOR: u64 = 512;

/// Why a file cannot be a disk.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// The host does not open it.
    #[error("the disk cannot be opened{}: {source}", if *.read_only { "" } else { " for writing" })]
    Open {
        /// Whether it was to be read only.
        read_only: bool,
        /// What the host said.
        source: io::Error,
    },
    /// It is a directory, a pipe or the like.
    #[error("a disk is a file or a block device, and this is neither")]
    NotAFile,
    /// Its end is in the middle of a sector.
    #[error("a disk is a multiple of {SECTOR} bytes, and this has {len}")]
    Uneven {
        /// Its bytes.
        len: u64,
    },
}

impl DiskError {
    /// What to do about it.
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

/// An open disk. Its size is what it was when it was opened.
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
    /// Where the host does not open it, or it is not as long as a number of sectors.
    pub fn open(path: &Path, read_only: bool) -> Result<Self, DiskError> {
        let refused = |source| DiskError::Open { read_only, source };
        // To open a pipe would be to wait for whoever writes to it.
        let kind = path.metadata().map_err(refused)?.file_type();
        if !kind.is_file() && !kind.is_block_device() {
            return Err(DiskError::NotAFile);
        }
        let mut file = OpenOptions::new().read(true).write(!read_only).open(path).map_err(refused)?;
        // A block device has no length of its own.
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

    /// Whether it may only be read.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// The place in bytes of `len` bytes from a sector on. None where these are not whole sectors, all of the disk's.
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

    /// Makes what was written outlast the host.
    pub(super) fn flush(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}
