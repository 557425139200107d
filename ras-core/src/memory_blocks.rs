//! Status blocks that report poisoned memory.

use crate::cper::memory::MemorySection;
use crate::fru_text::FruText;
use crate::memory_error::{Kind, Span};
use crate::severity::Severity;
use crate::status_block::{BlockWriter, BufferTooSmall, Heading, section_flags};
use crate::timestamp::Timestamp;

/// The largest number of entries of one block. 26 fit into 4 KiB, but Linux queues detected errors in a FIFO of 16 for each processor
/// (`MEMORY_FAILURE_FIFO_ORDER` of mm/memory-failure.c), drains it only after the whole block, and drops what does not fit with only a
/// line in its log.
pub const MAX_MEMORY_ENTRIES: usize = 16;

/// What all entries of one memory error have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryReport {
    /// Severity of the error.
    pub severity: Severity,
    /// Flags of the entry: [`section_flags`].
    pub flags: u8,
    /// When it was detected.
    pub time: Timestamp,
    /// The name of the memory in the FRU text.
    pub part: PartName,
    /// The error's number, unique for each error: part of the FRU text, as in "memory #17". Linux drops a record that repeats another of
    /// the last ten seconds byte for byte, and acknowledges it. Only the last nine digits are shown.
    pub number: u64,
}

/// The name of the memory in the FRU text of error records: up to nine printable ASCII characters, so that nine digits of the error's
/// number fit behind it.
///
/// ```
/// use ras_core::PartName;
///
/// assert!(PartName::new("vmm mem").is_some());
/// assert!(PartName::new("long name!").is_none());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PartName(&'static str);

impl PartName {
    /// "memory".
    pub const MEMORY: PartName = PartName("memory");
    /// The largest number of characters.
    pub const MAX_LEN: usize = 9;

    /// The name with that text. `None` if it is longer than [`Self::MAX_LEN`] or not printable ASCII.
    #[must_use]
    pub const fn new(text: &'static str) -> Option<Self> {
        let mut bytes = text.as_bytes();
        if bytes.len() > Self::MAX_LEN {
            return None;
        }
        while let [first, rest @ ..] = bytes {
            if !matches!(first, b' '..=b'~') {
                return None;
            }
            bytes = rest;
        }
        Some(PartName(text))
    }

    /// The text.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        self.0
    }
}

impl Default for PartName {
    /// [`Self::MEMORY`].
    fn default() -> Self {
        PartName::MEMORY
    }
}

impl MemoryReport {
    /// Poisoned memory, consumed or detected `unix_seconds` after 1970-01-01 00:00 UTC.
    #[must_use]
    pub const fn uncorrected(kind: Kind, unix_seconds: u64, number: u64) -> Self {
        let flags = match kind {
            Kind::ActionRequired | Kind::Corrected => section_flags::PRIMARY,
            Kind::ActionOptional => section_flags::PRIMARY | section_flags::LATENT,
        };
        Self::new(Severity::Recoverable, flags, unix_seconds, number)
    }

    /// Errors of memory that were corrected, the last one `unix_seconds` after 1970-01-01 00:00 UTC.
    #[must_use]
    pub const fn corrected(unix_seconds: u64, number: u64) -> Self {
        Self::new(Severity::Corrected, section_flags::PRIMARY, unix_seconds, number)
    }

    const fn new(severity: Severity, flags: u8, unix_seconds: u64, number: u64) -> Self {
        MemoryReport {
            severity,
            flags,
            time: Timestamp::from_unix(unix_seconds),
            part: PartName::MEMORY,
            number,
        }
    }

    /// The same report, with that severity.
    #[must_use]
    pub const fn with_severity(self, severity: Severity) -> Self {
        MemoryReport { severity, ..self }
    }

    /// The same report, with that name of the memory.
    #[must_use]
    pub const fn with_part(self, part: PartName) -> Self {
        MemoryReport { part, ..self }
    }

    fn heading(&self) -> Heading {
        let number = self.number % 1_000_000_000;
        Heading {
            severity: self.severity,
            flags: self.flags,
            fru_id: None,
            fru_text: Some(FruText::new(format_args!("{} #{number}", self.part.as_str()))),
            time: Some(self.time),
        }
    }
}

/// The status blocks that report a poisoned span, with one entry for each page of 4 KiB: Linux offlines one page for each entry, whatever
/// its mask. Each block is to be written after the guest has acknowledged the one before.
///
/// ```
/// use ras_core::{Kind, MemoryBlocks, MemoryReport, Span};
///
/// let poisoned = Span::around(0x4020_0000, 16);
/// let mut blocks = MemoryBlocks::new(poisoned, MemoryReport::uncorrected(Kind::ActionOptional, 1_543_622_400, 17));
/// let mut block = [0; 0x1000];
/// assert_eq!(blocks.blocks_left(block.len()), Some(1));
/// let len = blocks.write_next(&mut block)?;
/// assert_eq!((len, blocks.pages_left()), (20 + 16 * (72 + 80), 0));
/// # Ok::<(), ras_core::BufferTooSmall>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryBlocks {
    next: u64,
    pages_left: u64,
    report: MemoryReport,
}

impl MemoryBlocks {
    /// Bytes of one entry.
    const ENTRY_LEN: usize = 72 + size_of::<MemorySection>();
    const PAGE_LEN: u64 = 0x1000;

    /// The blocks for all pages of `span`.
    #[must_use]
    pub const fn new(span: Span, report: MemoryReport) -> Self {
        // A span that was read from a file may have any value.
        let span = Span::around(span.gpa, span.log2_len);
        MemoryBlocks { next: span.gpa, pages_left: span.bytes() / Self::PAGE_LEN, report }
    }

    /// Number of pages that no block has reported yet.
    #[must_use]
    pub const fn pages_left(&self) -> u64 {
        self.pages_left
    }

    /// Number of blocks of `block_len` bytes that these pages take. `None` if a block cannot hold one entry.
    #[must_use]
    pub fn blocks_left(&self, block_len: usize) -> Option<u64> {
        let entries = (block_len.checked_sub(20)? / Self::ENTRY_LEN).min(MAX_MEMORY_ENTRIES);
        (entries > 0).then(|| self.pages_left.div_ceil(entries as u64))
    }

    /// Writes the next block into `bytes` and returns its length, or zero if no page is left.
    ///
    /// # Errors
    /// Returns an error if `bytes` cannot hold a block with one entry: 172 bytes.
    pub fn write_next(&mut self, bytes: &mut [u8]) -> Result<usize, BufferTooSmall> {
        if self.pages_left == 0 {
            return Ok(0);
        }
        let heading = self.report.heading();
        let mut block = BlockWriter::new(bytes)?;
        for entry in 0..MAX_MEMORY_ENTRIES {
            if self.pages_left == 0 {
                break;
            }
            match block.push(&heading, &MemorySection::of_page(self.next)) {
                Ok(()) => {}
                Err(error) if entry == 0 => return Err(error),
                Err(_full) => break,
            }
            self.pages_left -= 1;
            // Wraps after the last page of the address space; then no page is left.
            self.next = self.next.wrapping_add(Self::PAGE_LEN);
        }
        Ok(block.finish())
    }
}

/// Writes a block with so many errors of one page, each of them an entry, because Linux counts entries; no more than
/// [`MAX_MEMORY_ENTRIES`]. The last one has these further [flags](section_flags). Returns its length.
///
/// # Errors
/// Returns an error if `bytes` cannot hold that block.
#[cfg(feature = "ghes")]
pub(crate) fn write_page_errors(
    page: u64,
    errors: u32,
    report: &MemoryReport,
    flags_of_last: u8,
    bytes: &mut [u8],
) -> Result<usize, BufferTooSmall> {
    let heading = report.heading();
    let mut block = BlockWriter::new(bytes)?;
    for left in (0..errors.min(MAX_MEMORY_ENTRIES as u32)).rev() {
        let flags = if left == 0 { heading.flags | flags_of_last } else { heading.flags };
        block.push(&Heading { flags, ..heading }, &MemorySection::of_page(page))?;
    }
    Ok(block.finish())
}

/// Number of blocks of `block_len` bytes that report `span`. `None` if a block cannot hold one entry.
#[must_use]
pub fn blocks_needed(span: Span, block_len: usize) -> Option<u64> {
    let report = MemoryReport::uncorrected(Kind::ActionOptional, 0, 0);
    MemoryBlocks::new(span, report).blocks_left(block_len)
}
