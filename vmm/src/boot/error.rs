//! Why a guest cannot be loaded into memory.

use std::borrow::Cow;
use std::io;
use std::path::PathBuf;

use guest_memory::AccessError;

use crate::command_line::CommandLineError;
use crate::describe::DescribeError;

/// Why a guest cannot be loaded into memory. [`key`](Self::key) is the profile's key that caused it.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// The tables cannot be built.
    #[error(transparent)]
    Describe(#[from] DescribeError),
    /// The host has no random numbers for the guest's seeds.
    #[error("getrandom(2) for the guest's seeds: {0}")]
    Seed(io::Error),
    /// The kernel's file cannot be loaded.
    #[error("{path}: {error}")]
    Kernel {
        /// Its path, or `builtin:probe` for the built-in guest.
        path: String,
        /// Why.
        error: ImageError,
    },
    /// The command line is longer than what the kernel takes.
    #[error(transparent)]
    CommandLine(#[from] CommandLineError),
    /// The initrd's file cannot be read.
    #[error("{path}: {source}")]
    Initrd {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The initrd does not fit between the kernel and the end of memory.
    #[error(
        "the initrd of {len} bytes does not fit: the kernel uses memory up to {kernel_end:#x}, \
         and memory for an initrd ends at {limit:#x}"
    )]
    InitrdTooLarge {
        /// Bytes of the initrd.
        len: u64,
        /// The first GPA after the kernel.
        kernel_end: u64,
        /// The first GPA that the initrd cannot use.
        limit: u64,
    },
    /// The initrd would fit, but there is a poisoned page in every place for it.
    #[error(
        "the initrd of {len} bytes has no place without a poisoned page between {kernel_end:#x} and {limit:#x}: the page at {page:#x} \
         is poisoned and not repaired"
    )]
    InitrdPoisoned {
        /// Bytes of the initrd.
        len: u64,
        /// The first GPA after the kernel.
        kernel_end: u64,
        /// The first GPA that the initrd cannot use.
        limit: u64,
        /// GPA of the lowest page that was in the way.
        page: u64,
    },
    /// The memory map has too many regions for the protocol.
    #[error("the memory map has {0} regions, more than the boot protocol's table holds")]
    MemoryMap(usize),
    /// Tables or data structures of the boot protocol cannot be written. Their GPA is fixed.
    #[error("tables and boot parameters cannot be written to guest memory: {0}")]
    Fixed(AccessError),
    /// Their page is poisoned.
    #[error(
        "tables and boot parameters have a fixed place at {gpa:#x}, and the page at {page:#x} is poisoned and not repaired"
    )]
    FixedPoisoned {
        /// Their GPA.
        gpa: u64,
        /// GPA of the page.
        page: u64,
    },
}

/// Why a kernel's file cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// It cannot be read.
    #[error("{0}")]
    Read(io::Error),
    /// It has no bytes.
    #[error("the file is empty: expected {expected}")]
    Empty {
        /// The formats that can be loaded.
        expected: &'static str,
    },
    /// It is compressed in a way that is not undone here.
    #[error("the file is compressed with {format}: expected {expected}")]
    Compressed {
        /// The formats that can be loaded.
        expected: &'static str,
        /// The compression format.
        format: &'static str,
        /// The program that decompresses it.
        program: &'static str,
    },
    /// It is not a kernel of this architecture.
    #[error("expected {expected}, found {found}")]
    Unknown {
        /// The formats that can be loaded.
        expected: &'static str,
        /// What it is, or its first bytes.
        found: String,
    },
    /// It is shorter than its header requires.
    #[error("the file is truncated: {what} needs {expected} bytes, the file has {len}")]
    Truncated {
        /// The field or structure that determines the length.
        what: &'static str,
        /// Bytes that the file must have for it.
        expected: u64,
        /// Bytes of the file.
        len: u64,
    },
    /// It is damaged, or of a kind that cannot be loaded.
    #[error("the file cannot be loaded: {0}")]
    Loader(String),
    /// It has no 64-bit entry.
    #[error(
        "the kernel has no 64-bit entry: it needs boot protocol 2.12 with XLF_KERNEL_64 in xloadflags (offset 0x236), and has {}.{:02}, xloadflags {xloadflags:#x}",
        .version.0, .version.1
    )]
    No64BitEntry {
        /// Version of the boot protocol: major and minor.
        version: (u8, u8),
        /// The header's xloadflags.
        xloadflags: u16,
    },
    /// The profile requests PVH, and the file has no PVH note.
    #[error("the file has no PVH entry: {}", PVH_NOTE)]
    NoPvhEntry,
    /// A 32-bit ELF file has no PVH note.
    #[error(
        "a 32-bit ELF file (i386) is entered by PVH, and this one has no PVH entry: {}{}",
        PVH_NOTE, .multiboot.map_or(String::new(), |name| format!("; it is a kernel for {name} loaders"))
    )]
    Elf32WithoutPvh {
        /// The specification that it has a header of, for a loader such as GRUB.
        multiboot: Option<&'static str>,
    },
    /// The profile requests the Linux protocol for a 32-bit ELF file.
    #[error("a 32-bit ELF file (i386) has no 64-bit entry")]
    Elf32AsLinux,
    /// A 64-bit ELF file without a PVH note is for loaders that enter it in 32-bit mode.
    #[error(
        "it is a kernel for {specification} loaders such as GRUB, which enter it in 32-bit mode, and it has no PVH entry: {}",
        PVH_NOTE
    )]
    MultibootOnly {
        /// The specification that it has a header of.
        specification: &'static str,
    },
    /// It needs memory that the machine does not have.
    #[error(
        "the kernel needs memory from {start:#x} to {end:#x}, and the first range of memory ends at {limit:#x}"
    )]
    TooLarge {
        /// The first GPA that it uses.
        start: u64,
        /// The first GPA after it.
        end: u64,
        /// The end of memory.
        limit: u64,
    },
    /// Its place has a poisoned page, and there is no other place for it.
    #[error(
        "the kernel needs memory from {start:#x} to {end:#x}, where the page at {page:#x} is poisoned and not repaired, and it cannot be \
         loaded elsewhere"
    )]
    Poisoned {
        /// The first GPA that it uses.
        start: u64,
        /// The first GPA after it.
        end: u64,
        /// GPA of the page.
        page: u64,
    },
    /// Its load address is where the tables and boot parameters are.
    #[error("the kernel's load address is {start:#x}: below 1 MiB are the tables and boot parameters")]
    TooLow {
        /// The first GPA that it uses.
        start: u64,
    },
    /// Its entry is outside of its segments.
    #[error("the kernel's entry {entry:#x} is not in its segments ({start:#x} to {end:#x})")]
    EntryOutside {
        /// The entry's GPA.
        entry: u64,
        /// The first GPA that it uses.
        start: u64,
        /// The first GPA after it.
        end: u64,
    },
}

/// What makes an ELF file a PVH kernel.
const PVH_NOTE: &str = "an ELF note with the name `Xen` and the type 18 (XEN_ELFNOTE_PHYS32_ENTRY)";

/// The remedy for a poisoned page at a place that nothing else can take.
const REPAIR: &str = "let poisoned pages be replaced (`repair = \"on-reset\"`), by a host that has free ones";

impl BootError {
    /// The profile's key that caused the error, and a suggestion.
    #[must_use]
    pub fn key(&self) -> (&'static str, Cow<'static, str>) {
        let (key, help) = match self {
            BootError::Kernel { error, .. } => return error.key(),
            BootError::CommandLine(error) => ("boot.cmdline", error.remedy()),
            BootError::Describe(_) => ("machine.firmware", "use another table set"),
            BootError::Seed(_) => ("boot", "use a host whose getrandom(2) works"),
            BootError::Initrd { .. } => ("boot.initrd", "name a file that can be read, or remove the key"),
            BootError::InitrdPoisoned { .. } | BootError::FixedPoisoned { .. } => ("ras.repair", REPAIR),
            BootError::InitrdTooLarge { .. } | BootError::MemoryMap(_) | BootError::Fixed(_) => {
                ("machine.memory", "give the machine more memory")
            }
        };
        (key, help.into())
    }
}

impl ImageError {
    fn key(&self) -> (&'static str, Cow<'static, str>) {
        let (key, help) = match self {
            ImageError::Compressed { program, .. } => {
                return ("boot.kernel", format!("decompress it: `{program}`").into());
            }
            ImageError::Poisoned { .. } => ("ras.repair", REPAIR),
            ImageError::TooLarge { .. } => ("machine.memory", "give the machine more memory"),
            ImageError::NoPvhEntry | ImageError::Elf32AsLinux => {
                ("boot.protocol", "use \"auto\", or a kernel that has this entry")
            }
            ImageError::No64BitEntry { .. } => ("boot.kernel", "name a kernel for x86_64, not for i386"),
            ImageError::Elf32WithoutPvh { .. } => {
                ("boot.kernel", "name a kernel with a PVH entry, or a bzImage for x86_64")
            }
            ImageError::MultibootOnly { .. } => (
                "boot.kernel",
                "name a kernel with a PVH entry, or set `protocol = \"linux\"` if its entry is 64-bit code",
            ),
            ImageError::TooLow { .. } => ("boot.kernel", "name a kernel that is loaded at 1 MiB or above"),
            ImageError::Unknown { .. } | ImageError::Empty { .. } => (
                "boot.kernel",
                "name a kernel in such a format, or remove the key to boot the built-in guest",
            ),
            _ => (
                "boot.kernel",
                "name a kernel for this architecture, or remove the key to boot the built-in guest",
            ),
        };
        (key, help.into())
    }
}
