//! Guest memory that the guest does not use as its own: the reserved areas of the memory map, with the firmware tables and the
//! error records. What it holds is known, so a poisoned page of it is replaced by one with the same contents, and the guest
//! is not notified.
//!
//! Of what the guest writes to it, one thing is needed later: it acknowledges a record, by clearing the first field of the status block and then
//! setting the acknowledge register. The two are in different pages, so each tells what the other held. What it writes to describe an error
//! that it injects (EINJ) is zero in a page that was replaced: nothing is injected then. So is what it passes to its store for error records
//! (ERST). A boot error record (BERT) that it has read and cleared is there again.

use std::io;

use guest_memory::{AccessError, Backing, GuestRam};
use platform::{MemoryMap, Range, RegionKind};
use ras_core::{RecordArea, RecordSlot, Span};

use crate::journal::{Journal, Note};

/// What a guest's reserved memory holds.
#[derive(Debug, Default)]
pub struct PlatformMemory {
    /// The reserved parts of guest memory.
    reserved: Vec<Range>,
    /// What was written there: GPA and bytes. The rest is zero.
    written: Vec<(u64, Vec<u8>)>,
    /// The addresses in the record area.
    slots: Vec<RecordSlot>,
}

/// Bytes of the block status, the first field of a status block. It is zero if the block is empty.
const STATUS_LEN: u64 = 4;
/// Base-two logarithm of the bytes of the smallest page.
const PAGE_LOG2_LEN: u8 = 12;
/// Bytes of an acknowledge register.
const REGISTER_LEN: u64 = 8;

impl PlatformMemory {
    /// The reserved memory of a machine into which these bytes were loaded, each with its GPA; those elsewhere are the guest's.
    #[must_use]
    pub fn new(
        map: &MemoryMap,
        area: Option<&RecordArea>,
        loaded: impl IntoIterator<Item = (u64, Vec<u8>)>,
    ) -> Self {
        let is_reserved = |kind| matches!(kind, RegionKind::Reserved | RegionKind::AcpiNvs);
        let regions = map.regions.iter().filter(|region| is_reserved(region.kind));
        let reserved: Vec<_> =
            regions.map(|region| region.range).filter(|range| map.is_ram(*range)).collect();
        let is_within = |gpa: u64| reserved.iter().any(|range| range.contains(gpa));
        let written = loaded.into_iter().filter(|(gpa, _)| is_within(*gpa)).collect();
        let slots = area.map_or(Vec::new(), |area| area.slots().collect());
        PlatformMemory { reserved, written, slots }
    }

    /// Whether all of these pages are reserved.
    #[must_use]
    pub fn contains(&self, pages: Span) -> bool {
        let is_within = |range: &Range| range.contains(pages.gpa) && pages.bytes() <= range.end() - pages.gpa;
        self.reserved.iter().any(is_within)
    }

    /// The VMM has written a part of an error record.
    pub(super) fn record_written(&mut self, gpa: u64, bytes: &[u8]) {
        self.put(gpa, bytes);
        // A record begins with its acknowledge register: the block's old one is no longer valid.
        let begun = self.slots.iter().find(|slot| slot.ack_gpa == gpa).map(|slot| slot.block_gpa);
        if let Some(block) = begun {
            self.put(block, &[0; STATUS_LEN as usize]);
        }
    }

    /// Accesses guest memory. If a poisoned page of reserved memory fails that, replaces the page and accesses it again.
    pub(super) fn access<T>(
        &self,
        ram: &GuestRam,
        journal: &Journal,
        access: impl Fn() -> Result<T, AccessError>,
    ) -> Result<T, AccessError> {
        let outcome = access();
        if let Err(AccessError::Poisoned(page)) = &outcome {
            let page = Span::around(page.gpa, page.log2_len);
            if self.contains(page) && self.replace(ram, page).is_ok() {
                journal.note(Note::Repaired(page));
                return access();
            }
        }
        outcome
    }

    /// Replaces these pages, which are poisoned and [reserved](Self::contains), by pages with the same contents. Allocates no
    /// memory of the heap.
    pub(super) fn replace(&self, ram: &GuestRam, pages: Span) -> io::Result<()> {
        self.replace_and_change(ram, pages, (pages.gpa, &[]))
    }

    /// The same, with these bytes at that GPA.
    fn replace_and_change(&self, ram: &GuestRam, pages: Span, (at, bytes): (u64, &[u8])) -> io::Result<()> {
        let load = |gpa| {
            let mut bytes = [0; STATUS_LEN as usize];
            ram.read(gpa, &mut bytes).is_ok().then(|| u32::from_le_bytes(bytes))
        };
        ram.replace_pages_with(pages.gpa, pages.bytes(), |gpa, page| {
            self.fill(gpa, page, load);
            copy(gpa, page, at, bytes);
        })
    }

    /// Changes bytes of one page that were [loaded](Self::new), in guest memory too. After an error both are as they were before, unless
    /// the page is still poisoned.
    ///
    /// A guest may map the page as a device (an arm64 guest does so with the registers of a devicetree), and then reads memory, not the
    /// caches of the host's processors, unless these have FEAT_S2FWB. KVM cleans the caches for a page that it maps: so the page is
    /// replaced, or mapped again. A guest that reads the bytes before it is notified sees either the old ones or the new ones if the memory
    /// is anonymous, and otherwise may see some of both.
    pub(super) fn rewrite(
        &mut self,
        ram: &GuestRam,
        journal: &Journal,
        gpa: u64,
        bytes: &[u8],
    ) -> io::Result<()> {
        if ram.backing() == Backing::Anonymous {
            self.replace_and_change(ram, Span::around(gpa, PAGE_LOG2_LEN), (gpa, bytes))?;
            self.put(gpa, bytes);
            return Ok(());
        }
        self.access(ram, journal, || ram.write(gpa, bytes)).map_err(io::Error::other)?;
        self.put(gpa, bytes);
        // Huge pages before Linux 5.18 stay mapped (`Unsupported`).
        if let Err(error) = ram.unmap_pages(gpa, bytes.len() as u64)
            && error.kind() != io::ErrorKind::Unsupported
        {
            tracing::warn!(%error, gpa, "a guest that maps this page as a device may read what it held before");
        }
        Ok(())
    }

    /// Writes the loaded bytes that start at this GPA to guest memory.
    pub(super) fn write_loaded(
        &self,
        ram: &GuestRam,
        journal: &Journal,
        gpa: u64,
    ) -> Result<(), AccessError> {
        let mut loaded = self.written.iter().filter(|(start, _)| *start == gpa);
        loaded.try_for_each(|(gpa, bytes)| self.access(ram, journal, || ram.write(*gpa, bytes)))
    }

    /// Makes `page`, which is zero, what guest memory holds from `gpa` on. `load` is the word at a GPA, or `None` if it cannot be
    /// read.
    fn fill(&self, gpa: u64, page: &mut [u8], load: impl Fn(u64) -> Option<u32>) {
        for (start, bytes) in &self.written {
            copy(gpa, page, *start, bytes);
        }
        let page_range = Range { start: gpa, len: page.len() as u64 };
        // The page itself is poisoned, or about to be taken for it.
        let load = |gpa| if page_range.contains(gpa) { None } else { load(gpa) };
        for slot in &self.slots {
            let register = Range { start: slot.ack_gpa, len: REGISTER_LEN };
            let block = Range { start: slot.block_gpa, len: slot.block_len.into() };
            if (page_range.overlaps(register) || page_range.overlaps(block)) && self.is_free(slot, load) {
                copy(gpa, page, slot.ack_gpa, &RecordSlot::FREE.to_le_bytes());
                copy(gpa, page, slot.block_gpa, &[0; STATUS_LEN as usize]);
            }
        }
    }

    /// Whether a source's block holds no record, or one that the guest has acknowledged, or is about to.
    fn is_free(&self, slot: &RecordSlot, load: impl Fn(u64) -> Option<u32>) -> bool {
        let is_set = |register: u32| u64::from(register) & RecordSlot::FREE != 0;
        self.word(slot.ack_gpa).is_none_or(is_set)
            || load(slot.ack_gpa).is_some_and(is_set)
            || load(slot.block_gpa) == Some(0)
    }

    /// A word that was written.
    fn word(&self, gpa: u64) -> Option<u32> {
        let (start, bytes) = self.written.iter().find(|(start, bytes)| holds(*start, bytes, gpa))?;
        let bytes = bytes.get((gpa - start) as usize..)?.first_chunk()?;
        Some(u32::from_le_bytes(*bytes))
    }

    fn put(&mut self, gpa: u64, bytes: &[u8]) {
        if let Some((start, written)) =
            self.written.iter_mut().find(|(start, written)| holds(*start, written, gpa))
        {
            copy(*start, written, gpa, bytes);
        }
    }
}

/// Whether bytes that start at `start` include the one at `gpa`.
fn holds(start: u64, bytes: &[u8], gpa: u64) -> bool {
    gpa >= start && gpa - start < bytes.len() as u64
}

/// Copies the part of `bytes`, which start at `from`, that is in `page`, which starts at `gpa`.
fn copy(gpa: u64, page: &mut [u8], from: u64, bytes: &[u8]) {
    let skipped = usize::try_from(gpa.saturating_sub(from)).unwrap_or(usize::MAX);
    let at = usize::try_from(from.saturating_sub(gpa)).unwrap_or(usize::MAX);
    let (Some(to), Some(bytes)) = (page.get_mut(at..), bytes.get(skipped..)) else { return };
    to.iter_mut().zip(bytes).for_each(|(to, byte)| *to = *byte);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use platform::Region;
    use ras_core::{ErrorSource, Notification};

    use super::*;
    use crate::timings::Timings;

    const PAGE: u64 = 0x1000;
    const TABLES: u64 = 0x10_0000;
    const RECORDS: u64 = 0x20_0000;

    fn area() -> RecordArea {
        let sources = [Notification::Sea, Notification::Gsiv];
        let sources: Vec<_> =
            sources.into_iter().zip(0..).map(|(notification, id)| ErrorSource { id, notification }).collect();
        RecordArea::lay_out(RECORDS, 1 << 20, &sources).expect("an area")
    }

    /// Tables of a page and a half, and an initial record area, in memory of 4 MiB.
    fn platform_memory() -> PlatformMemory {
        let region = |start, len, kind| Region { range: Range { start, len }, kind };
        let area = area();
        let map = MemoryMap {
            ram: vec![Range { start: 0, len: 4 << 20 }],
            regions: vec![
                region(0, TABLES, RegionKind::Usable),
                region(TABLES, 0x1_0000, RegionKind::Reserved),
                region(RECORDS, area.bytes(), RegionKind::AcpiNvs),
                region(8 << 20, PAGE, RegionKind::Reserved),
            ],
            tables: Range { start: TABLES, len: 0x1_0000 },
            devicetree: None,
            records: None,
            boot_record: None,
            error_log: None,
        };
        let loaded =
            [(TABLES + 0x800, vec![7; 0x1800]), (RECORDS, area.initial_bytes()), (0x1000, vec![9; 0x1000])];
        PlatformMemory::new(&map, Some(&area), loaded)
    }

    fn filled(memory: &PlatformMemory, gpa: u64, load: impl Fn(u64) -> Option<u32>) -> Vec<u8> {
        let mut page = vec![0; PAGE as usize];
        memory.fill(gpa, &mut page, load);
        page
    }

    #[test]
    fn only_whole_reserved_pages_of_guest_memory_are_restored() {
        let memory = platform_memory();
        let contains = |gpa, log2_len| memory.contains(Span::around(gpa, log2_len));
        assert!(contains(TABLES + 5, 12) && contains(TABLES, 16) && contains(RECORDS + 0x2_1000, 12));
        assert!(!contains(TABLES, 17), "half of it is not reserved");
        assert!(!contains(TABLES - 1, 12) && !contains(8 << 20, 12) && !contains(RECORDS, 21));
    }

    #[test]
    fn tables_are_what_was_loaded() {
        let memory = platform_memory();
        let expected = |from: usize| [vec![0; from], vec![7; PAGE as usize - from]].concat();
        assert_eq!(filled(&memory, TABLES, |_| None), expected(0x800));
        assert_eq!(filled(&memory, TABLES + PAGE, |_| None), expected(0));
        assert_eq!(filled(&memory, TABLES + 2 * PAGE, |_| None), [0; PAGE as usize]);
        assert_eq!(filled(&memory, 0x1000, |_| None), [0; PAGE as usize], "the guest's own memory");
    }

    /// Cells, registers and blocks, in every state of a handshake.
    #[test]
    fn records_are_what_vmm_and_guest_have_made_of_them() {
        let mut memory = platform_memory();
        let [sea, gsiv] = [0, 1].map(|id| area().slot(id).expect("a source"));
        let word = |page: &[u8], gpa: u64| {
            let at = (gpa % PAGE) as usize;
            u64::from_le_bytes(page[at..at + 8].try_into().expect("8 bytes"))
        };
        let cells = filled(&memory, sea.cell_gpa, |_| None);
        assert_eq!(
            [word(&cells, sea.cell_gpa), word(&cells, gsiv.cell_gpa)],
            [sea.block_gpa, gsiv.block_gpa]
        );
        let registers = |memory: &PlatformMemory, load: fn(u64) -> Option<u32>| {
            let page = filled(memory, sea.ack_gpa, load);
            [word(&page, sea.ack_gpa), word(&page, gsiv.ack_gpa)]
        };
        assert_eq!(registers(&memory, |_| None), [1, 1]);

        // A record of the first source.
        memory.record_written(sea.ack_gpa, &[0; 8]);
        memory.record_written(sea.block_gpa + 4, &[5; 100]);
        memory.record_written(sea.block_gpa, &[0x12, 0, 0, 0]);
        assert_eq!(registers(&memory, |_| Some(0x12)), [0, 1], "it is in its block");
        assert_eq!(registers(&memory, |_| None), [0, 1], "its block is poisoned too");
        assert_eq!(registers(&memory, |_| Some(0)), [1, 1], "the guest has read it");
        let block = filled(&memory, sea.block_gpa, |_| Some(0));
        assert_eq!((&block[..4], &block[4..104], block[104]), (&[0x12, 0, 0, 0][..], &[5; 100][..], 0));
        let block = filled(&memory, sea.block_gpa, |_| Some(1));
        assert_eq!((&block[..4], block[4]), (&[0; 4][..], 5), "the guest has acknowledged it");
        assert_eq!(filled(&memory, gsiv.block_gpa, |_| None), [0; PAGE as usize]);

        // The next one has begun, and its block cannot be written: the old one is not valid any more.
        memory.record_written(sea.ack_gpa, &[0; 8]);
        assert_eq!(filled(&memory, sea.block_gpa, |_| Some(0))[..5], [0, 0, 0, 0, 5]);
    }

    #[test]
    fn pages_are_replaced_in_guest_memory() {
        let memory = platform_memory();
        let ram = GuestRam::allocate(&[(0, 4 << 20)], Backing::Memfd).expect("memory");
        ram.write(TABLES, &[0xee; 3 * PAGE as usize]).expect("memory");
        memory.replace(&ram, Span::around(TABLES + PAGE, 12)).expect("a fresh page");
        let mut bytes = [0; 3 * PAGE as usize];
        ram.read(TABLES, &mut bytes).expect("memory");
        let pages: Vec<_> = bytes.chunks(PAGE as usize).map(|page| (page[0], page[0xfff])).collect();
        assert_eq!(pages, [(0xee, 0xee), (7, 7), (0xee, 0xee)]);
    }

    #[test]
    fn bytes_that_are_changed_are_restored_as_they_were_changed_to() {
        let mut memory = platform_memory();
        let journal = journal();
        for backing in [Backing::Anonymous, Backing::Memfd] {
            let ram = GuestRam::allocate(&[(0, 4 << 20)], backing).expect("memory");
            memory.write_loaded(&ram, &journal, TABLES + 0x800).expect("memory");
            memory.rewrite(&ram, &journal, TABLES + 0x810, &[3; 16]).expect("memory");
            let mut bytes = [0; 0x40];
            ram.read(TABLES + 0x800, &mut bytes).expect("memory");
            let expected = [&[7; 0x10][..], &[3; 0x10], &[7; 0x20]].concat();
            assert_eq!(bytes[..], expected);
            assert_eq!(filled(&memory, TABLES, |_| None)[0x800..0x840], expected);
        }
    }

    /// What a vCPU that runs meanwhile can read.
    #[test]
    fn a_reader_of_bytes_that_are_changed_sees_old_and_new_ones_only() {
        let mut memory = platform_memory();
        let journal = journal();
        for backing in [Backing::Anonymous, Backing::Memfd] {
            let ram = GuestRam::allocate(&[(0, 4 << 20)], backing).expect("memory");
            ram.write(TABLES + 0x810, &[4; 16]).expect("memory");
            let is_over = AtomicBool::new(false);
            let seen = std::thread::scope(|scope| {
                let reader = scope.spawn(|| {
                    let mut seen = BTreeSet::new();
                    while !is_over.load(Ordering::Relaxed) {
                        let mut bytes = [0xff; 16];
                        ram.read(TABLES + 0x810, &mut bytes).expect("memory");
                        seen.extend(bytes);
                    }
                    seen
                });
                let mut bytes = (0..2000).map(|round| [4 + (round % 2) as u8; 16]);
                let outcome =
                    bytes.try_for_each(|bytes| memory.rewrite(&ram, &journal, TABLES + 0x810, &bytes));
                is_over.store(true, Ordering::Relaxed);
                outcome.expect("memory");
                reader.join().expect("no panic")
            });
            assert!(seen.iter().all(|byte| [4, 5].contains(byte)), "{backing:?}: {seen:?}");
        }
    }

    /// What is not in guest memory is not restored later either.
    #[test]
    fn a_change_that_fails_changes_nothing() {
        let mut memory = platform_memory();
        for backing in [Backing::Anonymous, Backing::Memfd] {
            let ram = GuestRam::allocate(&[(0, TABLES)], backing).expect("memory");
            memory.rewrite(&ram, &journal(), TABLES + 0x810, &[3; 16]).expect_err("no memory");
            assert_eq!(filled(&memory, TABLES, |_| None)[0x810..0x820], [7; 16]);
        }
    }

    #[test]
    fn what_was_loaded_is_written() {
        let memory = platform_memory();
        let ram = GuestRam::allocate(&[(0, 4 << 20)], Backing::Anonymous).expect("memory");
        memory.write_loaded(&ram, &journal(), TABLES + 0x800).expect("memory");
        let mut bytes = [0; 0x1802];
        ram.read(TABLES + 0x7ff, &mut bytes).expect("memory");
        assert_eq!((bytes[0], &bytes[1..0x1801], bytes[0x1801]), (0, &[7; 0x1800][..], 0));
    }

    fn journal() -> Journal {
        Journal::start(None, Arc::new(Timings::start())).expect("a journal")
    }
}
