//! A file that holds guest memory, and keeps its pages when the process ends.
//!
//! A page of it that is poisoned stays in the file: the next process that maps the file has it at the same place. Only files whose pages
//! are memory can be used: those of tmpfs and of hugetlbfs.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{FlockOperation, StatFs, flock, fstatfs, ftruncate};

use crate::backing::Backing;

/// A file that holds guest memory.
#[derive(Debug)]
pub struct MemoryFile {
    file: File,
    id: MemoryFileId,
    had_contents: bool,
}

/// What identifies the memory in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryFileId {
    /// The device of its file system.
    pub device: u64,
    /// Its inode.
    pub inode: u64,
    /// Its bytes.
    pub len: u64,
    /// Bytes of its pages.
    pub page_size: u64,
}

/// Why a file cannot hold guest memory.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MemoryFileError {
    /// A system call failed.
    #[error("{call}: {source}")]
    System {
        /// The call.
        call: &'static str,
        /// Its error.
        source: io::Error,
    },
    /// It is no regular file.
    #[error("it is not a regular file")]
    NotAFile,
    /// Another process has it.
    #[error("another machine has this memory (flock(2))")]
    InUse,
    /// It is on another file system.
    #[error(
        "guest memory with this backing is in a file of {expected}, and this one is on another file system (f_type {found:#x})"
    )]
    FileSystem {
        /// The file system that it has to be on.
        expected: &'static str,
        /// The type of the one that it is on (statfs(2)).
        found: u64,
    },
    /// The file system has other pages.
    #[error("the file system has pages of {found} bytes, and the guest's memory has pages of {expected}")]
    PageSize {
        /// Bytes of the guest's pages.
        expected: u64,
        /// Bytes of the file system's.
        found: u64,
    },
    /// It has another length than the guest's memory.
    #[error("the file has {found} bytes, and the guest {expected} bytes of memory")]
    Length {
        /// Bytes of guest memory.
        expected: u64,
        /// Bytes of the file.
        found: u64,
    },
    /// Memory with this backing has no file.
    #[error("private anonymous memory is in no file")]
    Anonymous,
}

/// f_type of tmpfs (TMPFS_MAGIC of Linux, include/uapi/linux/magic.h).
const TMPFS: u64 = 0x0102_1994;
/// f_type of hugetlbfs (HUGETLBFS_MAGIC).
const HUGETLBFS: u64 = 0x9584_58f6;

/// The type of a file system: 32 bits.
fn file_system(statistics: &StatFs) -> u64 {
    statistics.f_type.cast_unsigned() & 0xffff_ffff
}

impl MemoryFile {
    /// Opens a file for this process alone, or makes it, with mode 0600 and `len` bytes.
    ///
    /// # Errors
    /// Returns an error if the file is in use, of another length or on another file system, or if a system call fails.
    pub fn open(path: &Path, len: u64, backing: Backing) -> Result<Self, MemoryFileError> {
        let failed = |call| move |source| MemoryFileError::System { call, source };
        let options =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).clone();
        let file = options.open(path).map_err(failed("open(2)"))?;
        let metadata = file.metadata().map_err(failed("fstat(2)"))?;
        if !metadata.is_file() {
            return Err(MemoryFileError::NotAFile);
        }
        let statistics = fstatfs(&file).map_err(|error| failed("fstatfs(2)")(error.into()))?;
        let (found, block) = (file_system(&statistics), statistics.f_bsize.unsigned_abs());
        let page_size = backing.page_size();
        let (expected, is_expected) = match backing {
            Backing::Anonymous => return Err(MemoryFileError::Anonymous),
            Backing::Memfd => ("tmpfs", found == TMPFS),
            Backing::Hugetlbfs { .. } => ("hugetlbfs", found == HUGETLBFS),
        };
        if !is_expected {
            return Err(MemoryFileError::FileSystem { expected, found });
        }
        if matches!(backing, Backing::Hugetlbfs { .. }) && block != page_size {
            return Err(MemoryFileError::PageSize { expected: page_size, found: block });
        }
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(MemoryFileError::InUse),
            Err(error) => return Err(failed("flock(2)")(error.into())),
        }
        match metadata.len() {
            0 => ftruncate(&file, len).map_err(|error| failed("ftruncate(2)")(error.into()))?,
            found if found != len => return Err(MemoryFileError::Length { expected: len, found }),
            _ => {}
        }
        let id = MemoryFileId { device: metadata.dev(), inode: metadata.ino(), len, page_size };
        Ok(MemoryFile { file, id, had_contents: metadata.blocks() > 0 })
    }

    /// What identifies its memory.
    #[must_use]
    pub const fn id(&self) -> MemoryFileId {
        self.id
    }

    /// Whether it had pages when it was opened.
    #[must_use]
    pub const fn had_contents(&self) -> bool {
        self.had_contents
    }

    pub(crate) const fn file(&self) -> &File {
        &self.file
    }

    /// The bytes of its pages now.
    pub(crate) fn allocated(&self) -> u64 {
        // In blocks of 512 bytes (stat(2)).
        self.file.metadata().map_or(0, |metadata| metadata.blocks().saturating_mul(512))
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use rustix::fs::{MemfdFlags, memfd_create};

    use super::*;
    use crate::GuestRam;

    const MIB: u64 = 1 << 20;

    #[test]
    fn memory_in_a_file_outlives_its_process_and_has_the_regions_one_after_the_other() {
        // A memfd is a file of a tmpfs, and can be opened by this path.
        let memfd = memfd_create("kept", MemfdFlags::CLOEXEC).expect("a memfd");
        let path = format!("/proc/self/fd/{}", memfd.as_raw_fd());
        let path = Path::new(&path);
        let regions = [(0, MIB), (16 * MIB, 2 * MIB)];
        for turn in 0..2_u8 {
            let file = MemoryFile::open(path, 3 * MIB, Backing::Memfd).expect("a file");
            assert!(matches!(MemoryFile::open(path, 3 * MIB, Backing::Memfd), Err(MemoryFileError::InUse)));
            assert_eq!(file.had_contents(), turn > 0);
            let ram = GuestRam::map_file(&regions, Backing::Memfd, &file, &mut |_| {}).expect("memory");
            let mut bytes = [0; 2];
            for (byte, gpa) in bytes.iter_mut().zip([MIB - 1, 17 * MIB]) {
                ram.read(gpa, std::slice::from_mut(byte)).expect("memory");
                ram.write(gpa, &[turn + 1]).expect("memory");
            }
            assert_eq!(bytes, [turn; 2]);
            // A page is replaced in the file, at its own place.
            ram.replace_pages(16 * MIB, 0x1000).expect("memory");
            assert!(ram.read(17 * MIB, &mut bytes[..1]).is_ok() && bytes[0] == turn + 1);
        }
        assert!(matches!(
            MemoryFile::open(path, 4 * MIB, Backing::Memfd),
            Err(MemoryFileError::Length { found: 0x30_0000, .. })
        ));
        let huge = Backing::Hugetlbfs { page_size: 2 * MIB };
        assert!(matches!(
            MemoryFile::open(path, 3 * MIB, huge),
            Err(MemoryFileError::FileSystem { expected: "hugetlbfs", .. })
        ));
    }

    #[test]
    fn other_files_hold_no_memory() {
        let open = |path: &str| MemoryFile::open(Path::new(path), MIB, Backing::Memfd).expect_err("refused");
        assert!(matches!(open("/dev/null"), MemoryFileError::NotAFile));
        assert!(matches!(open("/missing/memory"), MemoryFileError::System { call: "open(2)", .. }));
    }
}
