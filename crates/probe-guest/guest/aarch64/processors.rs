//! Starts the other processors, by PSCI.

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use super::timer::wait_until;
use super::topology::{MAX_PROCESSORS, Topology};
use super::{cpu, paging, psci};
use crate::errors::errand;
use crate::failure::Failure;
use crate::format::Hex;
use crate::frames::{FRAME, Frames};
use crate::report::say;

/// MPIDR affinities in the order of the tables, for processors to find themselves.
static MPIDRS: [AtomicU64; MAX_PROCESSORS] = [const { AtomicU64::new(0) }; MAX_PROCESSORS];
static ONLINE: [AtomicBool; MAX_PROCESSORS] = [const { AtomicBool::new(false) }; MAX_PROCESSORS];
static LISTED: AtomicU32 = AtomicU32::new(0);
static ONLINE_COUNT: AtomicU32 = AtomicU32::new(0);
/// The place in the tables of the processor that listens.
static LISTENER: AtomicU32 = AtomicU32::new(0);
/// The MPIDR affinity of a processor that no table lists, plus one.
static STRANGER: AtomicU64 = AtomicU64::new(0);

unsafe extern "C" {
    /// Where `entry.s` takes processors that were started.
    static processor_entry: u8;
}

/// Starts all listed processors but this one and reports each. The one at the place `listener` then waits to be woken.
pub(crate) fn start_all(topology: &Topology, frames: &mut Frames, listener: u32) -> Result<(), Failure> {
    LISTENER.store(listener, Ordering::Release);
    let own = cpu::affinity();
    let mpidrs = topology.mpidrs();
    for (slot, mpidr) in MPIDRS.iter().zip(mpidrs) {
        slot.store(*mpidr, Ordering::Relaxed);
    }
    LISTED.store(mpidrs.len() as u32, Ordering::Release);
    come_online();
    let mut refused = None;
    let mut coming = 1;
    for mpidr in mpidrs.iter().copied().filter(|mpidr| *mpidr != own) {
        let stack_end = frames.take(1)? + FRAME;
        // SAFETY: the code of `entry.s` makes of the stack what `processor_started` needs.
        if unsafe { psci::start(mpidr, (&raw const processor_entry) as u64, stack_end) }.is_err() {
            refused.get_or_insert(mpidr);
        } else {
            coming += 1;
        }
    }
    wait_while_they_come(coming);
    for (index, (mpidr, online)) in mpidrs.iter().zip(&ONLINE).enumerate() {
        let state = match online.load(Ordering::Acquire) {
            _ if *mpidr == own => "boot",
            true => "online",
            false => "silent",
        };
        say!("cpu ", index, " mpidr ", Hex(*mpidr), " ", state);
    }
    let online = ONLINE_COUNT.load(Ordering::Acquire);
    say!("cpus ", mpidrs.len(), " listed, ", online, " online");
    if let Some(mpidr) = STRANGER.load(Ordering::Acquire).checked_sub(1) {
        return Err(Failure::with("no table lists the processor with MPIDR", mpidr));
    }
    if let Some(mpidr) = refused {
        return Err(Failure::with("PSCI does not start the processor with MPIDR", mpidr));
    }
    if online as usize != mpidrs.len() {
        return Err(Failure::new("not all processors came online"));
    }
    Ok(())
}

/// Waits until `count` are online; gives up when nobody came for a while.
fn wait_while_they_come(count: u32) {
    let mut before = ONLINE_COUNT.load(Ordering::Acquire);
    while before < count {
        wait_until(|| ONLINE_COUNT.load(Ordering::Acquire) != before);
        let now = ONLINE_COUNT.load(Ordering::Acquire);
        if now == before {
            return;
        }
        before = now;
    }
}

/// Where a started processor goes after `entry.s`, on its own stack.
#[unsafe(no_mangle)]
extern "C" fn processor_started() -> ! {
    paging::switch();
    let own = come_online();
    // Only who may be sent on an errand listens: others halt, which costs nothing.
    match own.filter(|own| *own == LISTENER.load(Ordering::Acquire)) {
        None => cpu::take_errors(),
        Some(own) => loop {
            if !errand::run(own) {
                cpu::wait_for_signal();
            }
        },
    }
}

/// The place in the tables of the processor that runs this; 0 before they were read.
pub(crate) fn own_index() -> u32 {
    index_of(cpu::affinity()).unwrap_or(0)
}

/// Ends the wait of the processor at that place in the tables, which was started to listen.
pub(crate) fn wake(index: u32) -> Result<(), Failure> {
    if index >= LISTED.load(Ordering::Acquire) {
        return Err(Failure::with("the tables list no processor", u64::from(index)));
    }
    cpu::signal();
    Ok(())
}

fn index_of(mpidr: u64) -> Option<u32> {
    let listed = LISTED.load(Ordering::Acquire) as usize;
    let place = MPIDRS.iter().take(listed).position(|slot| slot.load(Ordering::Relaxed) == mpidr)?;
    Some(place as u32)
}

/// Puts the processor that runs this on the list of those that do: its place in the tables.
fn come_online() -> Option<u32> {
    let mpidr = cpu::affinity();
    let place = index_of(mpidr);
    match place.and_then(|place| ONLINE.get(place as usize)) {
        Some(online) => {
            online.store(true, Ordering::Release);
            ONLINE_COUNT.fetch_add(1, Ordering::AcqRel);
        }
        None => STRANGER.store(mpidr + 1, Ordering::Release),
    }
    place
}
