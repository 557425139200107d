//! Status blocks for poisoned memory.

use crate::cper::memory::MemorySection;
use crate::fru_text::FruText;
use crate::memory_error::{Kind, Span};
use crate::severity::Severity;
use crate::status_block::{BlockWriter, Heading, NoRoom, section_flags};
use crate::timestamp::Timestamp;

/// The most entries of one block. 26 fit 4 KiB, but Linux queues the pages that nobody consumed yet in a list of 16 for each processor
/// (`MEMORY_FAILURE_FIFO_ORDER` of mm/memory-failure.c), empties it only once it is through with the block, and drops what does not
/// fit with nothing but a line in its log.
pub const MAX_MEMORY_ENTRIES: usize = 16;

/// What all entries about one memory error say, beside their page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryReport {
    /// How bad it is.
    pub severity: Severity,
    /// [`section_flags`].
    pub flags: u8,
    /// When it was found.
    pub time: Timestamp,
    /// The error's number, another for each: the guest sees it as the part's name, "ghest mem #17". Linux drops a record that repeats
    /// another of the last ten seconds byte by byte and claims to have handled it. Only the last nine digits are shown.
    pub number: u64,
}

impl MemoryReport {
    /// Memory that is lost, whether someone has consumed it yet or not, `unix_seconds` after 1970 began (UTC).
    #[must_use]
    pub const fn uncorrected(kind: Kind, unix_seconds: u64, number: u64) -> Self {
        let flags = match kind {
            Kind::ActionRequired => section_flags::PRIMARY,
            Kind::ActionOptional => section_flags::PRIMARY | section_flags::LATENT,
        };
        MemoryReport {
            severity: Severity::Recoverable,
            flags,
            time: Timestamp::from_unix(unix_seconds),
            number,
        }
    }

    fn heading(&self) -> Heading {
        let number = self.number % 1_000_000_000;
        Heading {
            severity: self.severity,
            flags: self.flags,
            fru_id: None,
            fru_text: Some(FruText::new(format_args!("ghest mem #{number}"))),
            time: Some(self.time),
        }
    }
}

/// The blocks that tell a guest of a lost span, one entry for each page of 4 KiB: Linux reads one page from an entry, whatever its mask.
/// Each is to be written when the guest has acknowledged the one before.
///
/// ```
/// use ras_core::{Kind, MemoryBlocks, MemoryReport, Span};
///
/// let lost = Span::around(0x4020_0000, 16);
/// let mut blocks = MemoryBlocks::new(lost, MemoryReport::uncorrected(Kind::ActionOptional, 1_543_622_400, 17));
/// let mut block = [0; 0x1000];
/// assert_eq!(blocks.blocks_left(block.len()), Some(1));
/// let len = blocks.write_next(&mut block)?;
/// assert_eq!((len, blocks.pages_left()), (20 + 16 * (72 + 80), 0));
/// # Ok::<(), ras_core::NoRoom>(())
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
        // A span that was read from a file may say anything.
        let span = Span::around(span.gpa, span.log2_len);
        MemoryBlocks { next: span.gpa, pages_left: span.bytes() / Self::PAGE_LEN, report }
    }

    /// Pages that no block has told of yet.
    #[must_use]
    pub const fn pages_left(&self) -> u64 {
        self.pages_left
    }

    /// Blocks of `block_len` bytes that these pages take; none where a block holds not even one entry.
    #[must_use]
    pub fn blocks_left(&self, block_len: usize) -> Option<u64> {
        let entries = (block_len.checked_sub(20)? / Self::ENTRY_LEN).min(MAX_MEMORY_ENTRIES);
        (entries > 0).then(|| self.pages_left.div_ceil(entries as u64))
    }

    /// Writes the next block into `bytes` and gives its length, or zero when none is left.
    ///
    /// # Errors
    /// When `bytes` do not hold a block with one entry: 172.
    pub fn write_next(&mut self, bytes: &mut [u8]) -> Result<usize, NoRoom> {
        if self.pages_left == 0 {
            return Ok(0);
        }
        let heading = self.report.heading();
        let mut block = BlockWriter::new(bytes)?;
        for entry in 0..MAX_MEMORY_ENTRIES {
            if self.pages_left == 0 {
                break;
            }
            match block.push(&heading, &MemorySection::poisoned_page(self.next)) {
                Ok(()) => {}
                Err(no_room) if entry == 0 => return Err(no_room),
                Err(_full) => break,
            }
            self.pages_left -= 1;
            // Wraps behind the last page of all, when no page is left.
            self.next = self.next.wrapping_add(Self::PAGE_LEN);
        }
        Ok(block.finish())
    }
}

/// Blocks of `block_len` bytes that tell of `span`; none where a block holds not even one entry.
#[must_use]
pub fn blocks_needed(span: Span, block_len: usize) -> Option<u64> {
    let report = MemoryReport::uncorrected(Kind::ActionOptional, 0, 0);
    MemoryBlocks::new(span, report).blocks_left(block_len)
}
