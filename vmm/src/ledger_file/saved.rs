//! What the file of a ledger says.

use std::fmt;

use guest_memory::MemoryFileId;
use machine_profile::Machine;
use platform::Range;
use ras_core::ledger::{ConsumedBy, Entry, Ledger};
use ras_core::{Kind, MemoryError, Origin, Severity, Span};
use serde::{Deserialize, Serialize};

use super::{Inherited, KeptMemory};

/// A ledger, and whose memory it is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct SavedLedger {
    /// The machine's name.
    pub machine: String,
    /// The id of the host's boot (/proc/sys/kernel/random/boot_id).
    pub boot_id: String,
    /// The memory that outlives the process. `None` if there is none.
    pub memory: Option<SavedMemory>,
    /// When it was written: seconds since 1970, as all times here.
    pub written: u64,
    /// The number of entries that the file has no space for.
    pub omitted: u64,
    /// The entries, ascending by address.
    pub entries: Vec<SavedEntry>,
}

/// The identity of memory in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct SavedMemory {
    device: u64,
    inode: u64,
    len: u64,
    page_size: u64,
}

impl From<MemoryFileId> for SavedMemory {
    fn from(id: MemoryFileId) -> Self {
        let MemoryFileId { device, inode, len, page_size } = id;
        SavedMemory { device, inode, len, page_size }
    }
}

/// Memory with errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct SavedEntry {
    /// Its first GPA.
    pub gpa: u64,
    /// Its bytes.
    pub span: u64,
    /// When the first error was reported.
    pub first_seen: u64,
    /// When the last error was reported. 0 if the page was poisoned on request, and not accessed yet.
    pub last_seen: u64,
    /// How many errors were reported.
    pub times: u64,
    /// How the last one was reported.
    pub origin: Origin,
    /// The worst severity.
    pub severity: Severity,
    /// What consumed it last.
    pub consumed_by: Option<ConsumedBy>,
    /// When it was replaced by fresh memory. `None` while it is poisoned.
    pub repaired: Option<u64>,
}

impl SavedEntry {
    /// An entry of a running machine. `unix` converts its times.
    pub(super) fn of(entry: &Entry, unix: impl Fn(u64) -> u64) -> Self {
        SavedEntry {
            gpa: entry.span.gpa,
            span: entry.span.bytes(),
            first_seen: unix(entry.first_seen_ns),
            last_seen: unix(entry.last_seen_ns),
            times: entry.times,
            origin: entry.origin,
            severity: entry.severity,
            consumed_by: entry.consumed_by,
            repaired: entry.repaired_ns.map(unix),
        }
    }

    /// The first GPA after it, if it ends within the address space.
    fn end(&self) -> Option<u64> {
        self.gpa.checked_add(self.span)
    }

    /// Adds an entry that follows, if nothing but its address is different: an error of a huge page has thousands.
    pub(super) fn extend(&mut self, next: &SavedEntry) -> bool {
        let follows =
            self.end() == Some(next.gpa) && SavedEntry { gpa: self.gpa, span: self.span, ..*next } == *self;
        if follows {
            self.span += next.span;
        }
        follows
    }
}

impl SavedLedger {
    /// What a machine takes over on the host's boot `boot_id`.
    pub(super) fn inherit(
        &self,
        machine: &Machine,
        boot_id: &str,
        ram: &[Range],
        kept: Option<KeptMemory>,
    ) -> Inherited {
        let poisoned: Vec<SavedEntry> =
            self.entries.iter().filter(|entry| entry.repaired.is_none()).copied().collect();
        let found = Some(poisoned.iter().map(|entry| entry.span).fold(0, u64::saturating_add));
        let outcome = match self.other_memory(machine, boot_id, kept) {
            Some(because) => Err(because),
            None => ledger(&poisoned, ram),
        };
        match outcome {
            Ok(ledger) => Inherited { ledger, entries: poisoned, found, not_applied: None },
            Err(because) => Inherited { found, not_applied: Some(because), ..Inherited::default() },
        }
    }

    /// Why the memory of a machine is not the memory that this ledger is about. `None` if it is.
    fn other_memory(&self, machine: &Machine, boot_id: &str, kept: Option<KeptMemory>) -> Option<String> {
        let Some(KeptMemory { id, had_contents }) = kept else {
            return Some(
                "the machine's memory ends with its process, and another process has other pages (`memory.path` keeps them)"
                    .to_owned(),
            );
        };
        if self.machine != machine.name {
            return Some(format!("it is of another machine, `{}`", self.machine));
        }
        if self.boot_id != boot_id || boot_id.is_empty() {
            return Some("the host has booted since, and its memory has other contents".to_owned());
        }
        match self.memory {
            None => Some("the memory that it is about has ended with its process".to_owned()),
            Some(memory) if memory != id.into() || !had_contents => {
                Some("it is about another memory file, or the file is new".to_owned())
            }
            Some(_) => None,
        }
    }
}

/// A ledger with these entries as poisoned, which have to be in memory. It has no times: they are before the start of the process.
fn ledger(entries: &[SavedEntry], ram: &[Range]) -> Result<Ledger, String> {
    let mut ledger = Ledger::default();
    for entry in entries {
        let is_memory = |end| ram.iter().any(|range| entry.gpa >= range.start && end <= range.end());
        let is_page = |number: u64| number.is_multiple_of(0x1000);
        if entry.span == 0 || !is_page(entry.gpa | entry.span) || !entry.end().is_some_and(is_memory) {
            return Err(format!("its entry of {} bytes at {:#x} is not guest memory", entry.span, entry.gpa));
        }
        let (mut gpa, mut left) = (entry.gpa, entry.span);
        while left > 0 {
            // The largest span that is aligned and not longer than what is left.
            let log2_len = gpa.trailing_zeros().min(left.ilog2()).min(30) as u8;
            let span = Span::around(gpa, log2_len);
            ledger.record(&MemoryError {
                span,
                gpa,
                kind: Kind::ActionOptional,
                severity: entry.severity,
                vcpu: None,
                origin: entry.origin,
                time_ns: 0,
            });
            (gpa, left) = (gpa + span.bytes(), left - span.bytes());
        }
    }
    Ok(ledger)
}

/// For people.
impl fmt::Display for SavedLedger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "ledger of poisoned pages of the machine {}", self.machine)?;
        writeln!(
            f,
            "written       {} (seconds since 1970), in the host's boot {}",
            self.written, self.boot_id
        )?;
        match self.memory {
            Some(SavedMemory { device, inode, len, page_size }) => writeln!(
                f,
                "memory        inode {inode} of device {device:#x}: {len} bytes in pages of {page_size}"
            )?,
            None => writeln!(f, "memory        ended with its process")?,
        }
        for entry in &self.entries {
            let SavedEntry { gpa, span, first_seen, last_seen, times, origin, severity, repaired, .. } =
                entry;
            let state = repaired.map_or("poisoned".to_owned(), |time| format!("repaired at {time}"));
            let origin = serde_json::to_value(origin).unwrap_or_default();
            writeln!(
                f,
                "{gpa:#014x}  {span} bytes, {state}; {times} errors from {first_seen} to {last_seen}, the last by {}, {}",
                origin.as_str().unwrap_or_default(),
                severity.name()
            )?;
        }
        if self.omitted > 0 {
            writeln!(f, "omitted       {} entries", self.omitted)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
