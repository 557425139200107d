//! Why a guest could not be put into memory.

use std::io;
use std::path::PathBuf;

use guest_memory::AccessError;

use crate::describe::DescribeError;

/// Why a guest could not be put into memory. [`key`](Self::key) names the key of the profile that asked for it.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// The tables.
    #[error(transparent)]
    Describe(#[from] DescribeError),
    /// The host gives no random numbers.
    #[error("no random seed for the guest: {0}")]
    Seed(io::Error),
    /// The kernel's file.
    #[error("{path}: {error}")]
    Kernel {
        /// The file; `builtin:probe` for the built-in guest.
        path: String,
        /// What is wrong with it.
        error: ImageError,
    },
    /// The initrd's file cannot be read.
    #[error("{path}: {source}")]
    Initrd {
        /// The file.
        path: PathBuf,
        /// What the host said.
        source: io::Error,
    },
    /// The initrd does not fit between the kernel and the end of memory.
    #[error(
        "the initrd of {len} bytes does not fit: the kernel takes memory up to {kernel_end:#x}, \
         and memory for an initrd ends at {limit:#x}"
    )]
    InitrdTooLarge {
        /// Bytes of the initrd.
        len: u64,
        /// The first GPA after what the kernel takes.
        kernel_end: u64,
        /// The first GPA that the initrd may not take.
        limit: u64,
    },
    /// The memory map has too many regions for the protocol.
    #[error("the memory map has {0} regions, more than the boot protocol has room for")]
    MemoryMap(usize),
    /// What has its place in every machine's memory cannot be put there.
    #[error("tables and boot parameters cannot be put in their place: {0}")]
    Fixed(AccessError),
}

/// What is wrong with a kernel's file.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// It cannot be read.
    #[error("{0}")]
    Read(io::Error),
    /// It is no kernel of this architecture.
    #[error("this is not {wanted}: it has {len} bytes and starts with {start}")]
    Unknown {
        /// What would be one.
        wanted: &'static str,
        /// Bytes of the file.
        len: u64,
        /// Its first bytes.
        start: String,
    },
    /// It ends before its header says so.
    #[error("the file is cut short: its header speaks of {wanted} bytes, it has {len}")]
    Truncated {
        /// Bytes that the header speaks of.
        wanted: u64,
        /// Bytes of the file.
        len: u64,
    },
    /// It is damaged or of a kind that the loader does not take.
    #[error("the file cannot be loaded: {0}")]
    Loader(String),
    /// Its 64-bit entry is missing.
    #[error("the kernel has no 64-bit entry (boot protocol {major}.{minor}, XLF_KERNEL_64 not set)")]
    No64BitEntry {
        /// Version of the boot protocol.
        major: u8,
        /// Version of the boot protocol.
        minor: u8,
    },
    /// PVH was asked for and the file has no PVH note.
    #[error("the file has no PVH entry (an ELF note of owner `Xen` and type 18)")]
    NoPvhEntry,
    /// It wants memory that the machine has not.
    #[error(
        "the kernel takes memory from {start:#x} to {end:#x}, and memory below the hole ends at {limit:#x}"
    )]
    TooLarge {
        /// First GPA that it takes.
        start: u64,
        /// First GPA after it.
        end: u64,
        /// End of memory.
        limit: u64,
    },
    /// It wants to lie where the VMM puts tables and parameters.
    #[error(
        "the kernel wants to be loaded at {start:#x}, below 1 MiB, where the boot parameters and tables are"
    )]
    TooLow {
        /// First GPA that it takes.
        start: u64,
    },
    /// It is entered outside of what was loaded.
    #[error("the kernel's entry {entry:#x} is not in what it loads ({start:#x} to {end:#x})")]
    EntryOutside {
        /// The entry.
        entry: u64,
        /// First GPA that it takes.
        start: u64,
        /// First GPA after it.
        end: u64,
    },
}

impl BootError {
    /// The key of the profile that asked for what cannot be had, and a way out.
    #[must_use]
    pub fn key(&self) -> (&'static str, &'static str) {
        match self {
            BootError::Kernel { error, .. } => match error {
                ImageError::TooLarge { .. } => ("machine.memory", "give the machine more memory"),
                ImageError::NoPvhEntry | ImageError::No64BitEntry { .. } => {
                    ("boot.protocol", "choose \"auto\", or a kernel that has this entry")
                }
                _ => (
                    "boot.kernel",
                    "name a kernel for this architecture, or leave it out for the built-in guest",
                ),
            },
            BootError::Describe(_) => ("machine.firmware", "choose other tables"),
            BootError::Seed(_) => ("boot", "run on a host whose getrandom(2) works"),
            BootError::Initrd { .. } => ("boot.initrd", "name a file that can be read, or leave it out"),
            BootError::InitrdTooLarge { .. } | BootError::MemoryMap(_) | BootError::Fixed(_) => {
                ("machine.memory", "give the machine more memory")
            }
        }
    }
}
