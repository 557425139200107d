//! The ledger of poisoned pages in a file (`ras.ledger`), which is read again at the next start of the same machine.
//!
//! ```text
//! main thread: tick -> LedgerWriter::update -> thread ledger: JSON, into a free slot (devices::slot_file), fdatasync(2)
//! next start:  Opened -> Opened::inherit -> memory::renew, or unusable in the guest's memory map
//! ```
//!
//! A poisoned page of the host is never used again until the host boots: another process has other pages. Only memory that outlives the
//! process (`memory.path`) has its poisoned pages at the next start too. So the file says whose memory it is about, and what is poisoned
//! is applied to that memory only.

mod saved;
mod writer;

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use devices::slot_file::{Layout, OpenError, SlotFile, records};
use guest_memory::MemoryFileId;
use machine_profile::Machine;
use platform::Range;
use ras_core::ledger::Ledger;

pub use saved::{SavedEntry, SavedLedger, SavedMemory};
pub use writer::{LedgerWriter, failures};

/// A file of 2 MiB, which never grows. One slot has the ledger, and the other one is free for the next.
const LAYOUT: Layout = Layout {
    what: "ledger of poisoned pages",
    magic: *b"ghest RAS ledger",
    slot_magic: *b"LDGRslot",
    slots: 2,
    slot_len: 1 << 20,
};

/// The identifier of the only record.
const RECORD: u64 = 1;

/// The file of a ledger, before the machine runs.
#[derive(Debug)]
pub struct Opened {
    file: SlotFile<File>,
    content: Content,
}

/// What a file of a ledger has.
#[derive(Debug)]
enum Content {
    /// Nothing: it is new.
    New,
    /// Nothing that is complete.
    Damaged,
    Saved(SavedLedger),
}

/// What a machine takes over of the ledger of an earlier process.
#[derive(Debug, Default)]
pub struct Inherited {
    /// What is poisoned in its memory.
    pub ledger: Ledger,
    /// The same as it was saved, with its times.
    pub entries: Vec<SavedEntry>,
    /// The bytes that were poisoned, whether they are in this memory or not. `None` if no earlier process has left a ledger.
    pub found: Option<u64>,
    /// Why it is not applied.
    pub not_applied: Option<String>,
}

/// The memory of a machine that outlives its process.
#[derive(Clone, Copy, Debug)]
pub struct KeptMemory {
    /// What identifies it.
    pub id: MemoryFileId,
    /// Whether the file had pages when it was opened.
    pub had_contents: bool,
}

impl Opened {
    /// Opens the file of a ledger, or makes it, for this machine alone.
    ///
    /// # Errors
    /// Returns an error if the file is in use or something else, or a system call fails.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let is_new = fs::metadata(path).map_or(0, |metadata| metadata.len()) == 0;
        let file = SlotFile::open_file(path, LAYOUT)?;
        let read = file.read(RECORD).map_err(|source| OpenError::System { call: "pread(2)", source })?;
        let content = match read.map(|bytes| serde_json::from_slice(&bytes)) {
            Some(Ok(saved)) => Content::Saved(saved),
            None if is_new => Content::New,
            None | Some(Err(_)) => Content::Damaged,
        };
        Ok(Opened { file, content })
    }

    /// What a machine takes over. `ram` is its memory, `kept` what of it outlives a process.
    #[must_use]
    pub fn inherit(&self, machine: &Machine, ram: &[Range], kept: Option<KeptMemory>) -> Inherited {
        match &self.content {
            Content::New => Inherited::default(),
            Content::Damaged => {
                let not_applied = Some(DAMAGED.to_owned());
                Inherited { found: Some(0), not_applied, ..Inherited::default() }
            }
            Content::Saved(saved) => saved.inherit(machine, &boot_id(), ram, kept),
        }
    }
}

const DAMAGED: &str =
    "the file has no complete ledger: it is damaged, or the process that made it has ended at once";

/// What a start of the machine on this host would find in its ledger, for users. Nothing is locked or changed. `None` if there is none.
#[must_use]
pub fn note(machine: &Machine, ram: &[Range]) -> Option<String> {
    let path = machine.ras.ledger.as_deref()?;
    let kept = machine.memory.path.as_deref().and_then(|path| {
        let metadata = fs::metadata(path).ok()?;
        let page_size = machine.memory.page_size.bytes().max(rustix::param::page_size() as u64);
        let (device, inode, len) = (metadata.dev(), metadata.ino(), metadata.len());
        let id = MemoryFileId { device, inode, len, page_size };
        Some(KeptMemory { id, had_contents: metadata.blocks() > 0 })
    });
    let saved = read(&fs::read(path).ok()?)?;
    let inherited = match saved {
        Some(saved) => saved.inherit(machine, &boot_id(), ram, kept),
        None => Inherited { found: Some(0), not_applied: Some(DAMAGED.to_owned()), ..Inherited::default() },
    };
    inherited.note(path)
}

impl Inherited {
    /// What users should know of it, if anything was found.
    #[must_use]
    pub fn note(&self, path: &Path) -> Option<String> {
        let (bytes, path) = (self.found?, path.display());
        Some(match &self.not_applied {
            Some(because) => {
                format!("the ledger {path}, with {bytes} poisoned bytes, is not applied: {because}")
            }
            None => format!(
                "the ledger {path}: {bytes} bytes of this memory are poisoned; they are replaced, or unusable for the guest"
            ),
        })
    }
}

/// The ledger in the bytes of a file. `None` if they are something else; no ledger if none is complete.
#[must_use]
pub fn read(file: &[u8]) -> Option<Option<SavedLedger>> {
    let records = records(file, LAYOUT)?;
    Some(records.last().and_then(|bytes| serde_json::from_slice(bytes).ok()))
}

/// The id of this boot of the host. Empty if the kernel does not say it.
fn boot_id() -> String {
    let id: io::Result<String> = fs::read_to_string("/proc/sys/kernel/random/boot_id");
    id.map(|id| id.trim().to_owned()).unwrap_or_default()
}
