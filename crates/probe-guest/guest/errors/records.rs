//! Sources of records, where their records lie, and what is in them.

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering, fence};

use super::lost;
use crate::arch;
use crate::failure::Failure;
use crate::format::Hex;
use crate::hest::{Notification, Source};
use crate::memory_map::MemoryMap;
use crate::memory_section;
use crate::physical::{Register, Word, bytes_at};
use crate::report::{fail, say};
use crate::status_block::Block;

/// More sources than any machine this guest is made for.
pub(crate) const MAX_SOURCES: usize = 64;
/// The first bytes of a block: its status, 0 while there is nothing to read.
const STATUS_LEN: u64 = 4;

static SOURCES: Sources = Sources {
    slots: [const { UnsafeCell::new(None) }; MAX_SOURCES],
    owners: [const { AtomicU32::new(NOBODY) }; MAX_SOURCES],
    count: AtomicUsize::new(0),
};
const NOBODY: u32 = u32::MAX;

struct Sources {
    slots: [UnsafeCell<Option<Known>>; MAX_SOURCES],
    /// The processors that look at records of the sources.
    owners: [AtomicU32; MAX_SOURCES],
    /// Those before are known, and never change again.
    count: AtomicUsize,
}

// SAFETY: a slot is written while it is not counted, by the one processor that reads tables, and only read after.
unsafe impl Sync for Sources {}

/// A source, whichever table tells of it.
pub(crate) struct Known {
    pub(crate) id: u32,
    /// How this guest calls the way in which it tells of records.
    pub(crate) name: &'static str,
    pub(crate) notification: Notification,
    /// GPA of the status block.
    pub(crate) block: u64,
    /// The most bytes of it.
    pub(crate) block_len: u32,
    /// GPA of the bits that acknowledge a record, a multiple of their length.
    pub(crate) ack: u64,
    /// They are 64, and not 32.
    pub(crate) ack_is_wide: bool,
    /// Bits that an acknowledgement leaves as they are, and bits that it sets.
    pub(crate) preserve: u64,
    pub(crate) write: u64,
}

/// Learns of a source. All of it must be memory that this guest reaches.
pub(super) fn learn(memory: &MemoryMap, source: Known) -> Result<(), Failure> {
    reach(memory, source.ack, if source.ack_is_wide { 8 } else { 4 })?;
    reach(memory, source.block, u64::from(source.block_len))?;
    if u64::from(source.block_len) < STATUS_LEN || !source.block.is_multiple_of(STATUS_LEN) {
        return Err(Failure::with("no room for records at", source.block));
    }
    let count = SOURCES.count.load(Ordering::Relaxed);
    let slot = SOURCES.slots.get(count).ok_or(Failure::new("over 64 error sources"))?;
    // SAFETY: not counted yet, and nobody else learns of sources.
    unsafe { *slot.get() = Some(source) };
    SOURCES.count.store(count + 1, Ordering::Release);
    Ok(())
}

/// Refuses what is not memory that is mapped.
fn reach(memory: &MemoryMap, gpa: u64, len: u64) -> Result<(), Failure> {
    let refused = Failure::with("no memory for an error source at", gpa);
    let end = gpa.checked_add(len).ok_or(refused)?;
    if gpa != 0 && memory.knows(gpa, end) && end <= arch::mapped_end(memory) { Ok(()) } else { Err(refused) }
}

/// All sources, with who looks at their records.
fn all() -> impl Iterator<Item = (&'static Known, &'static AtomicU32)> {
    let count = SOURCES.count.load(Ordering::Acquire);
    let slots = SOURCES.slots.iter().zip(&SOURCES.owners).take(count);
    // SAFETY: counted, so it does not change any more.
    slots.filter_map(|(slot, owner)| unsafe { &*slot.get() }.as_ref().map(|known| (known, owner)))
}

/// The interrupts of sources that have one of their own, each with its place among the sources.
pub(crate) fn external() -> impl Iterator<Item = (usize, u32)> {
    all().enumerate().filter_map(|(index, (known, _))| match known.notification {
        Notification::External { gsi } => Some((index, gsi)),
        _ => None,
    })
}

/// Takes all records of the sources that notify in such a way. May be called anywhere, in a handler too.
pub(crate) fn look(wanted: impl Fn(Notification) -> bool) {
    for (known, owner) in all().filter(|(known, _)| wanted(known.notification)) {
        while known.status().read() != 0 {
            let own = arch::processor();
            match owner.compare_exchange(NOBODY, own, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => {
                    // Another processor may have taken it meanwhile.
                    if known.status().read() != 0
                        && let Err(why) = known.take()
                    {
                        fail(&why);
                    }
                    owner.store(NOBODY, Ordering::Release);
                }
                // This is a handler, and what it has interrupted looks again when it is done.
                Err(whose) if whose == own => break,
                Err(_) => core::hint::spin_loop(),
            }
        }
    }
}

impl Known {
    /// A source of a HEST: its block is where a cell says.
    pub(super) fn of_hest(memory: &MemoryMap, source: &Source) -> Result<Self, Failure> {
        let Source { id, notification, cell, block_len, ack, preserve, write } = *source;
        reach(memory, cell, size_of::<u64>() as u64)?;
        // SAFETY: memory, mapped, and a multiple of 8 as the table's reader sees to.
        let block = unsafe { Word::at(cell) }.read();
        let (id, name) = (u32::from(id), notification.name());
        Ok(Known { id, name, notification, block, block_len, ack, ack_is_wide: true, preserve, write })
    }

    fn status(&self) -> Register {
        // SAFETY: `learn` looked at the address; only the firmware and this guest's handlers write there.
        unsafe { Register::at(self.block) }
    }

    /// Takes a record and acknowledges it.
    fn take(&self) -> Result<(), Failure> {
        let Known { id, block_len, .. } = *self;
        // The firmware writes the status last.
        fence(Ordering::SeqCst);
        // SAFETY: `learn` looked at the range, and the firmware leaves the block alone until the acknowledgement.
        let block = Block::read(unsafe { bytes_at(self.block, block_len as usize) })?;
        say!("error record source ", id, " severity ", block.severity.name(), " entries ", block.count);
        for entry in block.entries() {
            let Some(address) = memory_section::address(&entry)? else { continue };
            let page = lost::page(address);
            say!("error page ", Hex(page), " section-severity ", entry.severity.name());
            lost::tell(page, entry.severity.is_loss());
        }
        self.status().write(0);
        fence(Ordering::SeqCst);
        self.acknowledge();
        say!("error acknowledged source ", id);
        Ok(())
    }

    /// ActionExecutor the block back.
    fn acknowledge(&self) {
        let Known { ack, preserve, write, .. } = *self;
        if self.ack_is_wide {
            // SAFETY: `learn` looked at the address, and the table's reader sees to its alignment.
            let register = unsafe { Word::at(ack) };
            register.write(register.read() & preserve | write);
        } else {
            // SAFETY: likewise.
            let register = unsafe { Register::at(ack) };
            register.write(register.read() & preserve as u32 | write as u32);
        }
    }
}
