//! What a Linux guest makes of a status block: whether its GHES driver takes the block, and what it then does.
//!
//! Written from the driver's rules (drivers/acpi/apei/ghes.c and drivers/firmware/efi/cper.c of Linux 6.1 to 7.3) and from nothing else of
//! this crate: it judges what the writer writes, so it shares neither structures nor constants with it.
//!
//! Not judged, for a block does not show it: a block whose bytes equal another of the last ten seconds (printed once; dropped and yet
//! claimed on SEA and NMI), pages that the guest does not have, kernels without CONFIG_MEMORY_FAILURE.

use alloc::vec::Vec;
use core::fmt;

use crate::notification::Notification;

/// What Linux does with a block that it takes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "kebab-case"))]
pub enum LinuxVerdict {
    /// The block says that it is empty.
    NothingToRead,
    /// "Fatal hardware error".
    Panic,
    /// The block is printed, cleared and acknowledged.
    Handled {
        /// What else is done, in the order of the sections.
        actions: Vec<GuestAction>,
        /// A synchronous error that leads to no page being taken out of use costs the task that runs its life (SIGBUS).
        kills_current_task: bool,
    },
}

/// What Linux does about a section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "kebab-case"))]
pub enum GuestAction {
    /// Takes the page out of use, and kills those who use it when they touch it next.
    MemoryFailure {
        /// Page frame number, of 4 KiB pages.
        pfn: u64,
    },
    /// Takes the page out of use, and kills the task that runs: its access cannot be completed.
    MemoryFailureActionRequired {
        /// Page frame number, of 4 KiB pages.
        pfn: u64,
    },
    /// Moves the page's contents elsewhere and takes it out of use.
    SoftOffline {
        /// Page frame number, of 4 KiB pages.
        pfn: u64,
    },
    /// Nothing: the list of pages to be taken out of use has 16 places for each processor.
    Dropped {
        /// Page frame number, of 4 KiB pages.
        pfn: u64,
    },
    /// Prints that the section is too short.
    TooShort {
        /// Which, from 0.
        section: usize,
    },
}

impl fmt::Display for LinuxVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LinuxVerdict::NothingToRead => {
                f.write_str("does not look any further: the block says that it is empty")
            }
            LinuxVerdict::Panic => f.write_str("panics"),
            LinuxVerdict::Handled { actions, kills_current_task } => {
                f.write_str("prints it")?;
                actions.iter().try_for_each(|action| write!(f, ", {action}"))?;
                if *kills_current_task { f.write_str(", kills the task that runs") } else { Ok(()) }
            }
        }
    }
}

impl fmt::Display for GuestAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GuestAction::MemoryFailure { pfn } => write!(f, "takes page {pfn:#x} out of use"),
            GuestAction::MemoryFailureActionRequired { pfn } => {
                write!(f, "takes page {pfn:#x} out of use and kills the task that touched it")
            }
            GuestAction::SoftOffline { pfn } => write!(f, "moves page {pfn:#x} elsewhere"),
            GuestAction::Dropped { pfn } => write!(f, "forgets page {pfn:#x}: its list is full"),
            GuestAction::TooShort { section } => write!(f, "finds entry {} too short", section + 1),
        }
    }
}

/// Why Linux does not take a block. It clears and acknowledges the block all the same, once it has seen that something is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "kebab-case"))]
pub enum Rejection {
    /// The source was never registered.
    #[error("Linux knows no sources that notify by {notification}")]
    UnknownNotification {
        /// How it would notify.
        notification: &'static str,
    },
    /// Not even the first 20 bytes are there.
    #[error("the block has {len} bytes")]
    NoHeader {
        /// Bytes.
        len: usize,
    },
    /// More than HEST allows, or than Linux ever reads.
    #[error("the block is {len} bytes long where the source's blocks have {limit} at most")]
    TooLong {
        /// Bytes that the block says it has.
        len: u64,
        /// Bytes that it may have.
        limit: u32,
    },
    /// Entries that are shorter than one.
    #[error("{data_length} bytes of entries are less than one")]
    DataTooShort {
        /// Bytes of entries.
        data_length: u32,
    },
    /// Raw data among the entries.
    #[error("raw data starts at {raw_data_offset}, among the entries")]
    RawDataOverlaps {
        /// Where it starts.
        raw_data_offset: u32,
    },
    /// Entries do not end where the block says they do.
    #[error("the entry at byte {offset} has {needed} bytes and there are {available}")]
    EntryTooLong {
        /// Where the entry starts.
        offset: usize,
        /// Bytes that it says it has.
        needed: u64,
        /// Bytes that are left of the entries.
        available: u64,
    },
}

/// Judges a block that a source with blocks of `hest_block_length` bytes holds.
///
/// # Errors
/// When Linux would not take it.
pub fn linux_accepts(
    block: &[u8],
    hest_block_length: u32,
    notification: Notification,
) -> Result<LinuxVerdict, Rejection> {
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
        return Ok(LinuxVerdict::NothingToRead);
    }

    let entries_end = BLOCK_HEADER + u64::from(data_length);
    let len = if raw_length == 0 { entries_end } else { u64::from(raw_offset) + u64::from(raw_length) };
    if len < BLOCK_HEADER {
        return Err(no_header);
    }
    let limit = hest_block_length.min(LONGEST_BLOCK);
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
        return Ok(LinuxVerdict::Panic);
    }
    let mut handling = Handling {
        block_severity: severity,
        synchronous: notification.is_synchronous(),
        actions: Vec::new(),
        queued: 0,
        last_led_to_a_page: false,
    };
    for (index, section) in sections.iter().enumerate() {
        handling.section(index, section);
    }
    let kills_current_task = handling.synchronous && !handling.last_led_to_a_page;
    Ok(LinuxVerdict::Handled { actions: handling.actions, kills_current_task })
}

const BLOCK_HEADER: u64 = 20;
/// Linux reads no more of a block, whatever HEST says.
const LONGEST_BLOCK: u32 = 64 << 10;
const OLD_ENTRY_HEADER: u32 = 64;
const NEW_ENTRY_HEADER: u32 = 72;
const RECOVERABLE: u32 = 0;
const FATAL: u32 = 1;
const CORRECTED: u32 = 2;
const INFORMATIONAL: u32 = 3;
/// An entry's flag: so many corrected errors that the resource should be given up.
const THRESHOLD: u8 = 0x08;
/// Pages that one processor's list holds.
const LIST_PLACES: usize = 16;

/// An entry, as far as the driver looks at it.
struct Section<'a> {
    kind: [u8; 16],
    severity: u32,
    flags: u8,
    payload: &'a [u8],
}

/// Walks the entries: they have to take up `data_length` bytes to the last.
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
        // The revision's upper byte counts.
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
    last_led_to_a_page: bool,
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
        const SHORTEST: usize = 73;
        let payload = section.payload;
        let (true, Some(validation), Some(address)) =
            (payload.len() >= SHORTEST, long(payload, 0), long(payload, 16))
        else {
            self.actions.push(GuestAction::TooShort { section: index });
            self.last_led_to_a_page = false;
            return;
        };
        let address_is_valid = validation & 0x2 != 0;
        let soft = section.severity == CORRECTED && section.flags & THRESHOLD != 0;
        self.last_led_to_a_page = address_is_valid && (soft || self.is_recoverable(section));
        if !self.last_led_to_a_page {
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
            self.last_led_to_a_page = false;
            return;
        };
        self.last_led_to_a_page = false;
        if !self.is_recoverable(section) {
            return;
        }
        let count = number(header, 4).unwrap_or(0) as u16;
        for _ in 0..count {
            // An error says itself how long it is.
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
                self.last_led_to_a_page = true;
            }
            infos = next;
        }
    }

    /// Block and section have to agree.
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
        let has_place = self.queued < LIST_PLACES;
        self.queued += usize::from(has_place);
        self.actions.push(if has_place { action } else { GuestAction::Dropped { pfn: address >> 12 } });
    }
}

/// a5bc1114-6f64-4ede-b863-3e83ed7c83b1, as it lies in memory.
const MEMORY: [u8; 16] = *b"\x14\x11\xbc\xa5\x64\x6f\xde\x4e\xb8\x63\x3e\x83\xed\x7c\x83\xb1";
/// e19e3d16-bc11-11e4-9caa-c2051d5d46b0, as it lies in memory.
const ARM_PROCESSOR: [u8; 16] = *b"\x16\x3d\x9e\xe1\x11\xbc\xe4\x11\x9c\xaa\xc2\x05\x1d\x5d\x46\xb0";

fn number(bytes: &[u8], offset: usize) -> Option<u32> {
    bytes.get(offset..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
}

fn long(bytes: &[u8], offset: usize) -> Option<u64> {
    bytes.get(offset..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
}
