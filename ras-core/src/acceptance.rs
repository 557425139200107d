//! A model of Linux's GHES driver: whether it accepts a status block, and what it does with it.
//!
//! Written from the driver's rules (drivers/acpi/apei/ghes.c and drivers/firmware/efi/cper.c of Linux 6.1 to 7.3) only: it checks the
//! writer of this crate, so it shares neither structures nor constants with it.
//!
//! Not modelled, because it does not depend on the block: a block that equals another of the last ten seconds (printed once; on SEA and NMI
//! dropped and claimed), pages that the guest does not have, kernels without CONFIG_MEMORY_FAILURE.

use alloc::vec::Vec;
use core::fmt;

use crate::notification::Notification;

/// What Linux does with a block that it accepts.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "kebab-case"))]
pub enum LinuxOutcome {
    /// Nothing: the block's status says that it is empty.
    NothingToRead,
    /// It panics: "Fatal hardware error".
    Panic,
    /// It prints, clears and acknowledges the block.
    Handled {
        /// What else it does, in the order of the sections.
        actions: Vec<GuestAction>,
        /// It kills the current task (SIGBUS): the error is synchronous and no page is offlined for it.
        kills_current_task: bool,
    },
}

/// What Linux does for a section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "kebab-case"))]
pub enum GuestAction {
    /// Offlines the page; processes that map it are killed at their next access.
    MemoryFailure {
        /// Page frame number, of 4 KiB pages.
        pfn: u64,
    },
    /// Offlines the page and kills the current task, whose access cannot be completed.
    MemoryFailureActionRequired {
        /// Page frame number, of 4 KiB pages.
        pfn: u64,
    },
    /// Migrates the page's contents and offlines it.
    SoftOffline {
        /// Page frame number, of 4 KiB pages.
        pfn: u64,
    },
    /// Nothing: the FIFO of pages to be offlined has 16 entries for each processor.
    Dropped {
        /// Page frame number, of 4 KiB pages.
        pfn: u64,
    },
    /// Prints that the section is too short.
    TooShort {
        /// Its index, from 0.
        section: usize,
    },
}

impl fmt::Display for LinuxOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LinuxOutcome::NothingToRead => f.write_str("reads nothing: the block is empty"),
            LinuxOutcome::Panic => f.write_str("panics"),
            LinuxOutcome::Handled { actions, kills_current_task } => {
                f.write_str("prints it")?;
                actions.iter().try_for_each(|action| write!(f, ", {action}"))?;
                if *kills_current_task { f.write_str(", kills the current task") } else { Ok(()) }
            }
        }
    }
}

impl fmt::Display for GuestAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GuestAction::MemoryFailure { pfn } => write!(f, "offlines page {pfn:#x}"),
            GuestAction::MemoryFailureActionRequired { pfn } => {
                write!(f, "offlines page {pfn:#x} and kills the task that accessed it")
            }
            GuestAction::SoftOffline { pfn } => write!(f, "soft-offlines page {pfn:#x}"),
            GuestAction::Dropped { pfn } => write!(f, "drops page {pfn:#x}: its FIFO is full"),
            GuestAction::TooShort { section } => write!(f, "rejects entry {} as too short", section + 1),
        }
    }
}

/// Why Linux rejects a block. It clears and acknowledges the block nevertheless, unless it is empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum Rejection {
    /// It refused to register the source.
    #[error("Linux supports no sources that notify by {notification}")]
    UnknownNotification {
        /// Name of the notification type.
        notification: &'static str,
    },
    /// It is shorter than the header of 20 bytes.
    #[error("the block has {len} bytes, and its header has 20")]
    NoHeader {
        /// Bytes.
        len: usize,
    },
    /// It is longer than HEST allows, or than Linux reads.
    #[error("the block has {len} bytes, and the limit is {limit}")]
    TooLong {
        /// Its length in bytes, according to its header.
        len: u64,
        /// The largest length in bytes.
        limit: u32,
    },
    /// The data length is less than one entry.
    #[error("the data length of {data_length} bytes is less than one entry")]
    DataTooShort {
        /// Data length in bytes.
        data_length: u32,
    },
    /// Raw data overlaps the entries.
    #[error("raw data at offset {raw_data_offset} overlaps the entries")]
    RawDataOverlaps {
        /// Its offset in bytes.
        raw_data_offset: u32,
    },
    /// An entry exceeds the data length.
    #[error("the entry at offset {offset} has {needed} bytes, and {available} are left")]
    EntryTooLong {
        /// Offset of the entry in bytes.
        offset: usize,
        /// Its length in bytes, according to its header.
        needed: u64,
        /// Bytes that are left of the data length.
        available: u64,
    },
}

/// What Linux does with the block of a source whose HEST entry allows `hest_block_length` bytes.
///
/// # Errors
/// Returns an error if Linux rejects the block.
pub fn linux_accepts(
    block: &[u8],
    hest_block_length: u32,
    notification: Notification,
) -> Result<LinuxOutcome, Rejection> {
    if matches!(notification, Notification::Sei) {
        return Err(Rejection::UnknownNotification { notification: notification.name() });
    }
    let no_header = Rejection::NoHeader { len: block.len() };
    let [block_status, raw_offset, raw_length, data_length, severity] =
        [0, 4, 8, 12, 16].map(|offset| number(block, offset));
    let (Some(block_status), Some(raw_offset), Some(raw_length), Some(data_length), Some(severity)) =
        (block_status, raw_offset, raw_length, data_length, severity)
    else {
        return Err(no_header);
    };
    if block_status == 0 {
        return Ok(LinuxOutcome::NothingToRead);
    }

    let entries_end = BLOCK_HEADER + u64::from(data_length);
    let len = if raw_length == 0 { entries_end } else { u64::from(raw_offset) + u64::from(raw_length) };
    if len < BLOCK_HEADER {
        return Err(no_header);
    }
    let limit = hest_block_length.min(MAX_BLOCK_LEN);
    if len > limit.into() {
        return Err(Rejection::TooLong { len, limit });
    }
    if data_length != 0 && data_length < OLD_ENTRY_HEADER {
        return Err(Rejection::DataTooShort { data_length });
    }
    if raw_length != 0 && u64::from(raw_offset) < entries_end {
        return Err(Rejection::RawDataOverlaps { raw_data_offset: raw_offset });
    }

    let sections = sections(block, data_length)?;
    if severity == FATAL || severity > INFORMATIONAL {
        return Ok(LinuxOutcome::Panic);
    }
    let mut handling = Handling {
        block_severity: severity,
        synchronous: notification.is_synchronous(),
        actions: Vec::new(),
        queued: 0,
        last_offlines_a_page: false,
    };
    for (index, section) in sections.iter().enumerate() {
        handling.section(index, section);
    }
    let kills_current_task = handling.synchronous && !handling.last_offlines_a_page;
    Ok(LinuxOutcome::Handled { actions: handling.actions, kills_current_task })
}

const BLOCK_HEADER: u64 = 20;
/// The most that Linux reads of a block, whatever HEST says.
const MAX_BLOCK_LEN: u32 = 64 << 10;
const OLD_ENTRY_HEADER: u32 = 64;
const NEW_ENTRY_HEADER: u32 = 72;
const RECOVERABLE: u32 = 0;
const FATAL: u32 = 1;
const CORRECTED: u32 = 2;
const INFORMATIONAL: u32 = 3;
/// Flag of an entry: the threshold of corrected errors is exceeded.
const THRESHOLD: u8 = 0x08;
/// Capacity of one processor's FIFO of pages.
const FIFO_CAPACITY: usize = 16;

/// The parts of an entry that the driver reads.
struct Section<'a> {
    kind: [u8; 16],
    severity: u32,
    flags: u8,
    payload: &'a [u8],
}

/// The entries, which must add up to `data_length` bytes.
fn sections(block: &[u8], data_length: u32) -> Result<Vec<Section<'_>>, Rejection> {
    let mut sections = Vec::new();
    let mut offset = BLOCK_HEADER as usize;
    let mut left = u64::from(data_length);
    while left > 0 {
        let too_long = |needed| Rejection::EntryTooLong { offset, needed, available: left };
        let entry = block.get(offset..).unwrap_or_default();
        let (Some(kind), Some(severity), Some(revision), Some(&flags), Some(payload_length)) =
            (entry.first_chunk(), number(entry, 16), number(entry, 20), entry.get(23), number(entry, 24))
        else {
            return Err(too_long(OLD_ENTRY_HEADER.into()));
        };
        // Only the upper byte of the revision matters.
        let header = if revision as u16 >> 8 >= 3 { NEW_ENTRY_HEADER } else { OLD_ENTRY_HEADER };
        let needed = u64::from(header) + u64::from(payload_length);
        let payload = usize::try_from(needed).ok().and_then(|end| entry.get(header as usize..end));
        match payload {
            Some(payload) if needed <= left => {
                sections.push(Section { kind: *kind, severity, flags, payload });
                offset += header as usize + payload.len();
                left -= needed;
            }
            _ => return Err(too_long(needed)),
        }
    }
    Ok(sections)
}

struct Handling {
    block_severity: u32,
    synchronous: bool,
    actions: Vec<GuestAction>,
    queued: usize,
    last_offlines_a_page: bool,
}

impl Handling {
    fn section(&mut self, index: usize, section: &Section<'_>) {
        match section.kind {
            MEMORY => self.memory(index, section),
            ARM_PROCESSOR => self.arm_processor(index, section),
            _ => {}
        }
    }

    fn memory(&mut self, index: usize, section: &Section<'_>) {
        const MIN_LEN: usize = 73;
        let payload = section.payload;
        let (true, Some(validation), Some(address)) =
            (payload.len() >= MIN_LEN, long(payload, 0), long(payload, 16))
        else {
            self.actions.push(GuestAction::TooShort { section: index });
            self.last_offlines_a_page = false;
            return;
        };
        let address_is_valid = validation & 0x2 != 0;
        let soft = section.severity == CORRECTED && section.flags & THRESHOLD != 0;
        self.last_offlines_a_page = address_is_valid && (soft || self.is_recoverable(section));
        if !self.last_offlines_a_page {
            return;
        }
        if soft {
            self.queue(GuestAction::SoftOffline { pfn: address >> 12 }, address);
        } else {
            self.memory_failure(address);
        }
    }

    fn arm_processor(&mut self, index: usize, section: &Section<'_>) {
        const HEADER: usize = 40;
        const INFO: usize = 32;
        let Some((header, mut infos)) = section.payload.split_at_checked(HEADER) else {
            self.actions.push(GuestAction::TooShort { section: index });
            self.last_offlines_a_page = false;
            return;
        };
        self.last_offlines_a_page = false;
        if !self.is_recoverable(section) {
            return;
        }
        let count = number(header, 4).unwrap_or(0) as u16;
        for _ in 0..count {
            // Each error information structure has its own length field.
            let Some(next) = infos.get(1).and_then(|length| infos.get(usize::from(*length)..)) else {
                return;
            };
            let (Some(head), Some(address)) = (number(infos, 0), long(infos, 24)) else { return };
            let of_a_cache = infos.get(4).is_some_and(|kind| kind & 0x2 != 0);
            let address_is_valid = head >> 16 & 0x10 != 0;
            if infos.len() < INFO {
                return;
            }
            if of_a_cache && address_is_valid {
                self.memory_failure(address);
                self.last_offlines_a_page = true;
            }
            infos = next;
        }
    }

    /// Both block and section must be recoverable.
    fn is_recoverable(&self, section: &Section<'_>) -> bool {
        self.block_severity == RECOVERABLE && section.severity == RECOVERABLE
    }

    fn memory_failure(&mut self, address: u64) {
        let pfn = address >> 12;
        if self.synchronous {
            self.actions.push(GuestAction::MemoryFailureActionRequired { pfn });
        } else {
            self.queue(GuestAction::MemoryFailure { pfn }, address);
        }
    }

    fn queue(&mut self, action: GuestAction, address: u64) {
        let fits = self.queued < FIFO_CAPACITY;
        self.queued += usize::from(fits);
        self.actions.push(if fits { action } else { GuestAction::Dropped { pfn: address >> 12 } });
    }
}

/// a5bc1114-6f64-4ede-b863-3e83ed7c83b1, in memory byte order.
const MEMORY: [u8; 16] = *b"\x14\x11\xbc\xa5\x64\x6f\xde\x4e\xb8\x63\x3e\x83\xed\x7c\x83\xb1";
/// e19e3d16-bc11-11e4-9caa-c2051d5d46b0, in memory byte order.
const ARM_PROCESSOR: [u8; 16] = *b"\x16\x3d\x9e\xe1\x11\xbc\xe4\x11\x9c\xaa\xc2\x05\x1d\x5d\x46\xb0";

fn number(bytes: &[u8], offset: usize) -> Option<u32> {
    bytes.get(offset..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
}

fn long(bytes: &[u8], offset: usize) -> Option<u64> {
    bytes.get(offset..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
}
