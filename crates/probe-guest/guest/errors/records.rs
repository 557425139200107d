//! Error sources and their records.

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering, fence};

use super::poisoned;
use crate::arch;
use crate::failure::Failure;
use crate::format::Hex;
use crate::hest::{Notification, Source};
use crate::memory_map::MemoryMap;
use crate::memory_section;
use crate::physical::{Register, Word, bytes_at};
use crate::report::{fail, say};
use crate::status_block::Block;

/// Maximum number of error sources.
pub(crate) const MAX_SOURCES: usize = 64;
/// Bytes of the block status at the start of a status block; the status is 0 while the block is empty.
const STATUS_LEN: u64 = 4;

static SOURCES: Sources = Sources {
    slots: [const { UnsafeCell::new(None) }; MAX_SOURCES],
    owners: [const { AtomicU32::new(NO_PROCESSOR) }; MAX_SOURCES],
    count: AtomicUsize::new(0),
};
const NO_PROCESSOR: u32 = u32::MAX;

struct Sources {
    slots: [UnsafeCell<Option<ErrorSource>>; MAX_SOURCES],
    /// The processor that is processing a record of the source.
    owners: [AtomicU32; MAX_SOURCES],
    /// Number of registered sources; their slots do not change any more.
    count: AtomicUsize,
}

// SAFETY: a slot is written before it is counted, by the one processor that reads tables, and only read afterwards.
unsafe impl Sync for Sources {}

/// An error source, from a HEST or a devicetree.
pub(crate) struct ErrorSource {
    pub(crate) id: u32,
    /// Name of its notification type in the report.
    pub(crate) name: &'static str,
    pub(crate) notification: Notification,
    /// GPA of the status block.
    pub(crate) block: u64,
    /// Maximum length of the status block in bytes.
    pub(crate) block_len: u32,
    /// GPA of the acknowledge register, naturally aligned.
    pub(crate) ack: u64,
    /// The register has 64 bits rather than 32.
    pub(crate) ack_is_wide: bool,
    /// Bits that an acknowledgement preserves, and bits that it sets.
    pub(crate) preserve: u64,
    pub(crate) write: u64,
}

/// Registers a source. Its block and register must be in mapped memory.
pub(super) fn register(memory: &MemoryMap, source: ErrorSource) -> Result<(), Failure> {
    check_mapped(memory, source.ack, if source.ack_is_wide { 8 } else { 4 })?;
    check_mapped(memory, source.block, u64::from(source.block_len))?;
    if u64::from(source.block_len) < STATUS_LEN || !source.block.is_multiple_of(STATUS_LEN) {
        return Err(Failure::with("status block too short or misaligned at", source.block));
    }
    let count = SOURCES.count.load(Ordering::Relaxed);
    let slot = SOURCES.slots.get(count).ok_or(Failure::new("over 64 error sources"))?;
    // SAFETY: not counted yet, and only this processor registers sources.
    unsafe { *slot.get() = Some(source) };
    SOURCES.count.store(count + 1, Ordering::Release);
    Ok(())
}

/// Rejects a range that is not in mapped memory.
fn check_mapped(memory: &MemoryMap, gpa: u64, len: u64) -> Result<(), Failure> {
    let rejected = Failure::with("no memory for an error source at", gpa);
    let end = gpa.checked_add(len).ok_or(rejected)?;
    if gpa != 0 && memory.knows(gpa, end) && end <= arch::mapped_end(memory) { Ok(()) } else { Err(rejected) }
}

/// All sources, with the processor that is processing a record of each.
fn all() -> impl Iterator<Item = (&'static ErrorSource, &'static AtomicU32)> {
    let count = SOURCES.count.load(Ordering::Acquire);
    let slots = SOURCES.slots.iter().zip(&SOURCES.owners).take(count);
    // SAFETY: counted, so it does not change any more.
    slots.filter_map(|(slot, owner)| unsafe { &*slot.get() }.as_ref().map(|source| (source, owner)))
}

/// GSIs of `external` sources, each with the index of its source.
pub(crate) fn external() -> impl Iterator<Item = (usize, u32)> {
    all().enumerate().filter_map(|(index, (source, _))| match source.notification {
        Notification::External { gsi } => Some((index, gsi)),
        _ => None,
    })
}

/// Processes all records of the sources with a wanted notification type. Safe to call from any handler.
pub(crate) fn process(wanted: impl Fn(Notification) -> bool) {
    for (source, owner) in all().filter(|(source, _)| wanted(source.notification)) {
        while source.status().read() != 0 {
            let own = arch::processor();
            match owner.compare_exchange(NO_PROCESSOR, own, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => {
                    // Another processor may have processed it in the meantime.
                    if source.status().read() != 0
                        && let Err(why) = source.process_record()
                    {
                        fail(&why);
                    }
                    owner.store(NO_PROCESSOR, Ordering::Release);
                }
                // This handler interrupted the processing of a record, which checks for another one afterwards.
                Err(current) if current == own => break,
                Err(_) => core::hint::spin_loop(),
            }
        }
    }
}

impl ErrorSource {
    /// Resolves a source of a HEST: reads the address of its status block from memory.
    pub(super) fn of_hest(memory: &MemoryMap, source: &Source) -> Result<Self, Failure> {
        let Source { id, notification, cell, block_len, ack, preserve, write } = *source;
        check_mapped(memory, cell, size_of::<u64>() as u64)?;
        // SAFETY: mapped memory; the table's reader checked that it is a multiple of 8.
        let block = unsafe { Word::at(cell) }.read();
        let (id, name) = (u32::from(id), notification.name());
        Ok(ErrorSource { id, name, notification, block, block_len, ack, ack_is_wide: true, preserve, write })
    }

    fn status(&self) -> Register {
        // SAFETY: `register` validated the address; only the firmware and this guest's handlers write there.
        unsafe { Register::at(self.block) }
    }

    /// Processes a record and acknowledges it.
    fn process_record(&self) -> Result<(), Failure> {
        let ErrorSource { id, block_len, .. } = *self;
        // The firmware writes the status last.
        fence(Ordering::SeqCst);
        // SAFETY: `register` validated the range, and the firmware does not write to the block until the acknowledgement.
        let block = Block::read(unsafe { bytes_at(self.block, block_len as usize) })?;
        say!("error record source ", id, " severity ", block.severity.name(), " entries ", block.count);
        for entry in block.entries() {
            let Some(address) = memory_section::address(&entry)? else { continue };
            let page = poisoned::page(address);
            say!("error page ", Hex(page), " section-severity ", entry.severity.name());
            poisoned::record(page, entry.severity.is_uncorrected());
        }
        self.status().write(0);
        fence(Ordering::SeqCst);
        self.acknowledge();
        say!("error acknowledged source ", id);
        Ok(())
    }

    /// Returns the block to the firmware.
    fn acknowledge(&self) {
        let ErrorSource { ack, preserve, write, .. } = *self;
        if self.ack_is_wide {
            // SAFETY: `register` validated the address; the table's reader checked its alignment.
            let register = unsafe { Word::at(ack) };
            register.write(register.read() & preserve | write);
        } else {
            // SAFETY: likewise.
            let register = unsafe { Register::at(ack) };
            register.write(register.read() & preserve as u32 | write as u32);
        }
    }
}
