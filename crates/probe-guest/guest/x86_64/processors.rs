//! Starts the other processors (Intel SDM 3A, 10.4.4; MultiProcessor Specification 1.4, appendix B.4).

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use super::topology::{MAX_PROCESSORS, Topology};
use super::{cpu, identity, idt, local_apic, machine_check};
use crate::errors::remote_touch;
use crate::failure::Failure;
use crate::frames::{FRAME, Frames};
use crate::memory_map::MemoryMap;
use crate::report::say;

/// Pages for the trampoline: above the real-mode vectors and BIOS data, below the end of base memory.
const TRAMPOLINE_PAGES: core::ops::Range<u64> = 0x8000..0xa_0000;

static ONLINE: [AtomicBool; MAX_PROCESSORS] = [const { AtomicBool::new(false) }; MAX_PROCESSORS];
static ONLINE_COUNT: AtomicU32 = AtomicU32::new(0);
/// APIC id of a processor that came online but is not listed, plus one; 0 if there is none.
static UNLISTED: AtomicU64 = AtomicU64::new(0);

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
    identity::set(ids);
    report_online();
    let others = || ids.iter().copied().filter(move |id| *id != own_id);
    if others().next().is_some() {
        let stacks = frames.allocate(ids.len() as u64)?;
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
        // Sent again to those that missed the first one; processors that are running ignore it.
        for (id, online) in ids.iter().zip(&ONLINE) {
            if !online.load(Ordering::Acquire) {
                local_apic::send_start_up(*id, page)?;
            }
        }
        wait_for_online(ids.len() as u32);
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
    match UNLISTED.load(Ordering::Acquire).checked_sub(1) {
        Some(id) => Err(Failure::with("a processor is online that no table lists, APIC id", id)),
        None if online as usize != ids.len() => Err(Failure::new("not all processors came online")),
        None => Ok(()),
    }
}

/// Waits until `count` processors are online. Ends early if none came online for ten seconds.
fn wait_for_online(count: u32) {
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

/// Copies the start-up code of processors to a usable page. Returns the page's number.
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
    // SAFETY: usable memory that is not needed any more: boot loader data there were read. The code is shorter than a page.
    // Page tables are in frames, which are below 4 GiB.
    unsafe {
        core::ptr::copy_nonoverlapping(code, page as *mut u8, end as usize - code as usize);
        core::ptr::write_unaligned(cr3 as *mut u32, cpu::read_cr3() as u32);
    }
    Ok((page / FRAME) as u8)
}

/// Entered from `entry.s` on each started processor, with its own stack.
#[unsafe(no_mangle)]
extern "C" fn processor_started() -> ! {
    idt::load();
    local_apic::enable();
    local_apic::accept_interrupts();
    local_apic::accept_nmis();
    machine_check::set_up();
    let own = report_online();
    loop {
        cpu::disable_interrupts();
        if !own.is_some_and(remote_touch::serve) {
            cpu::enable_interrupts_and_wait();
        }
    }
}

/// Wakes the processor at an index in table order.
pub(crate) fn wake(index: u32) -> Result<(), Failure> {
    let unlisted = Failure::with("the tables list no processor", u64::from(index));
    local_apic::send_wake(identity::apic_id(index).ok_or(unlisted)?)
}

/// Marks the processor that runs this as online. Returns its index; `None` if it is not listed.
fn report_online() -> Option<u32> {
    let id = local_apic::id();
    let index = identity::index_of(id);
    match index.and_then(|index| ONLINE.get(index as usize)) {
        Some(online) => {
            online.store(true, Ordering::Release);
            ONLINE_COUNT.fetch_add(1, Ordering::AcqRel);
        }
        None => UNLISTED.store(u64::from(id) + 1, Ordering::Release),
    }
    index
}
