//! Starts the other processors (Intel SDM 3A, 10.4.4; MultiProcessor Specification 1.4, appendix B.4).

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use super::topology::{MAX_PROCESSORS, Topology};
use super::{cpu, interrupts, local_apic, machine_check};
use crate::errors::errand;
use crate::failure::Failure;
use crate::frames::{FRAME, Frames};
use crate::memory_map::MemoryMap;
use crate::report::say;

/// Where real mode ends, and the lowest page to take: below lie the real-mode vectors and what a BIOS left.
const TRAMPOLINE_PAGES: core::ops::Range<u64> = 0x8000..0xa_0000;

/// APIC ids in the order of the tables, for processors to find themselves.
static APIC_IDS: [AtomicU32; MAX_PROCESSORS] = [const { AtomicU32::new(0) }; MAX_PROCESSORS];
static ONLINE: [AtomicBool; MAX_PROCESSORS] = [const { AtomicBool::new(false) }; MAX_PROCESSORS];
static LISTED: AtomicU32 = AtomicU32::new(0);
static ONLINE_COUNT: AtomicU32 = AtomicU32::new(0);
/// The APIC id of a processor that no table lists, plus one.
static STRANGER: AtomicU64 = AtomicU64::new(0);

unsafe extern "C" {
    static trampoline: u8;
    static trampoline_cr3: u8;
    static trampoline_end: u8;
    /// The next free stack, of one frame.
    static next_stack: AtomicU64;
}

/// Starts all listed processors but this one and reports each.
pub(crate) fn start_all(topology: &Topology, memory: &MemoryMap, frames: &mut Frames) -> Result<(), Failure> {
    let own_id = local_apic::id();
    let ids = topology.apic_ids();
    for (slot, id) in APIC_IDS.iter().zip(ids) {
        slot.store(*id, Ordering::Relaxed);
    }
    LISTED.store(ids.len() as u32, Ordering::Release);
    come_online();
    let others = || ids.iter().copied().filter(move |id| *id != own_id);
    if others().next().is_some() {
        let stacks = frames.take(ids.len() as u64)?;
        // SAFETY: a variable of `entry.s`; no other processor runs yet.
        unsafe { &next_stack }.store(stacks, Ordering::Release);
        let page = place_trampoline(memory)?;
        for id in others() {
            local_apic::send_init(id)?;
        }
        local_apic::delay(10_000);
        for id in others() {
            local_apic::send_start_up(id, page)?;
        }
        local_apic::delay(200);
        // Once more, for those that missed the first; the others do not listen.
        for (id, online) in ids.iter().zip(&ONLINE) {
            if !online.load(Ordering::Acquire) {
                local_apic::send_start_up(*id, page)?;
            }
        }
        wait_while_they_come(ids.len() as u32);
    }
    for (index, (id, online)) in ids.iter().zip(&ONLINE).enumerate() {
        let state = match online.load(Ordering::Acquire) {
            _ if *id == own_id => "boot",
            true => "online",
            false => "silent",
        };
        say!("cpu ", index, " apic-id ", *id, " ", state);
    }
    let online = ONLINE_COUNT.load(Ordering::Acquire);
    say!("cpus ", ids.len(), " listed, ", online, " online");
    match STRANGER.load(Ordering::Acquire).checked_sub(1) {
        Some(id) => Err(Failure::with("no table lists the processor with APIC id", id)),
        None if online as usize != ids.len() => Err(Failure::new("not all processors came online")),
        None => Ok(()),
    }
}

/// Waits until `count` are online; gives up when nobody came for a while.
fn wait_while_they_come(count: u32) {
    let mut before = ONLINE_COUNT.load(Ordering::Acquire);
    while before < count {
        local_apic::wait_until(|| ONLINE_COUNT.load(Ordering::Acquire) != before);
        let now = ONLINE_COUNT.load(Ordering::Acquire);
        if now == before {
            return;
        }
        before = now;
    }
}

/// Copies the code that processors start with to a usable page: the page's number.
fn place_trampoline(memory: &MemoryMap) -> Result<u8, Failure> {
    let page = memory
        .usable()
        .find_map(|region| {
            let page = region.start.max(TRAMPOLINE_PAGES.start).next_multiple_of(FRAME);
            (page + FRAME <= region.end.min(TRAMPOLINE_PAGES.end)).then_some(page)
        })
        .ok_or(Failure::new("no usable memory below 640 KiB to start processors in"))?;
    let code = &raw const trampoline;
    let end = &raw const trampoline_end;
    let cr3 = page + ((&raw const trampoline_cr3) as u64 - code as u64);
    // SAFETY: usable memory, of which nothing is needed any more: what the boot loader left there was read. The code
    // is far shorter than a page. Page tables lie in frames, which lie below 4 GiB.
    unsafe {
        core::ptr::copy_nonoverlapping(code, page as *mut u8, end as usize - code as usize);
        core::ptr::write_unaligned(cr3 as *mut u32, cpu::read_cr3() as u32);
    }
    Ok((page / FRAME) as u8)
}

/// Where a started processor goes after `entry.s`, on its own stack.
#[unsafe(no_mangle)]
extern "C" fn processor_started() -> ! {
    interrupts::load_table();
    local_apic::enable();
    local_apic::accept_interrupts();
    local_apic::accept_nmis();
    machine_check::set_up();
    let own = come_online();
    loop {
        cpu::disable_interrupts();
        if !own.is_some_and(errand::run) {
            cpu::enable_interrupts_and_wait();
        }
    }
}

/// The place in the tables of the processor that runs this; 0 before they were read.
pub(crate) fn own_index() -> u32 {
    if LISTED.load(Ordering::Acquire) == 0 { 0 } else { index_of(local_apic::id()).unwrap_or(0) }
}

/// Ends the wait of the processor at that place in the tables, which was started.
pub(crate) fn wake(index: u32) -> Result<(), Failure> {
    let nobody = Failure::with("the tables list no processor", u64::from(index));
    let listed = LISTED.load(Ordering::Acquire);
    let id = APIC_IDS.get(index as usize).filter(|_| index < listed).ok_or(nobody)?;
    local_apic::send_wake(id.load(Ordering::Relaxed))
}

fn index_of(id: u32) -> Option<u32> {
    let listed = LISTED.load(Ordering::Acquire) as usize;
    let place = APIC_IDS.iter().take(listed).position(|slot| slot.load(Ordering::Relaxed) == id)?;
    Some(place as u32)
}

/// Puts the processor that runs this on the list of those that do: its place in the tables.
fn come_online() -> Option<u32> {
    let id = local_apic::id();
    let place = index_of(id);
    match place.and_then(|place| ONLINE.get(place as usize)) {
        Some(online) => {
            online.store(true, Ordering::Release);
            ONLINE_COUNT.fetch_add(1, Ordering::AcqRel);
        }
        None => STRANGER.store(u64::from(id) + 1, Ordering::Release),
    }
    place
}
