//! Starts the other processors, by PSCI.

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use super::counter::wait_until;
use super::topology::{MAX_PROCESSORS, Topology};
use super::{cpu, paging, psci};
use crate::errors::remote_touch;
use crate::failure::Failure;
use crate::format::Hex;
use crate::frames::{FRAME, Frames};
use crate::report::say;

/// MPIDR affinities in table order.
static MPIDRS: [AtomicU64; MAX_PROCESSORS] = [const { AtomicU64::new(0) }; MAX_PROCESSORS];
static ONLINE: [AtomicBool; MAX_PROCESSORS] = [const { AtomicBool::new(false) }; MAX_PROCESSORS];
static LISTED: AtomicU32 = AtomicU32::new(0);
static ONLINE_COUNT: AtomicU32 = AtomicU32::new(0);
/// Index of the processor that waits for requests.
static SERVING_PROCESSOR: AtomicU32 = AtomicU32::new(0);
/// MPIDR affinity of a processor that came online but is not listed, plus one; 0 if there is none.
static UNLISTED: AtomicU64 = AtomicU64::new(0);

unsafe extern "C" {
    /// Entry of started processors in `entry.s`.
    static processor_entry: u8;
}

/// Starts all listed processors but this one and reports each. The one with index `serving` then waits for requests.
pub(crate) fn start_all(topology: &Topology, frames: &mut Frames, serving: u32) -> Result<(), Failure> {
    SERVING_PROCESSOR.store(serving, Ordering::Release);
    let own = cpu::affinity();
    let mpidrs = topology.mpidrs();
    for (slot, mpidr) in MPIDRS.iter().zip(mpidrs) {
        slot.store(*mpidr, Ordering::Relaxed);
    }
    LISTED.store(mpidrs.len() as u32, Ordering::Release);
    report_online();
    let mut refused = None;
    let mut started = 1;
    for mpidr in mpidrs.iter().copied().filter(|mpidr| *mpidr != own) {
        let stack_end = frames.allocate(1)? + FRAME;
        // SAFETY: the code of `entry.s` sets up the stack for `processor_started`.
        if unsafe { psci::start(mpidr, (&raw const processor_entry) as u64, stack_end) }.is_err() {
            refused.get_or_insert(mpidr);
        } else {
            started += 1;
        }
    }
    wait_for_online(started);
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
    if let Some(mpidr) = UNLISTED.load(Ordering::Acquire).checked_sub(1) {
        return Err(Failure::with("a processor is online that no table lists, MPIDR", mpidr));
    }
    if let Some(mpidr) = refused {
        return Err(Failure::with("PSCI does not start the processor with MPIDR", mpidr));
    }
    if online as usize != mpidrs.len() {
        return Err(Failure::new("not all processors came online"));
    }
    Ok(())
}

/// Waits until `count` processors are online. Ends early if none came online for ten seconds.
fn wait_for_online(count: u32) {
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

/// Entered from `entry.s` on each started processor, with its own stack.
#[unsafe(no_mangle)]
extern "C" fn processor_started() -> ! {
    paging::switch();
    let own = report_online();
    // Only one processor serves requests. Others halt, which needs no host CPU time.
    match own.filter(|own| *own == SERVING_PROCESSOR.load(Ordering::Acquire)) {
        None => cpu::halt_with_serrors(),
        Some(own) => loop {
            if !remote_touch::serve(own) {
                cpu::wait_for_signal();
            }
        },
    }
}

/// Index of the processor that runs this, in table order; 0 before the tables are read.
pub(crate) fn own_index() -> u32 {
    index_of(cpu::affinity()).unwrap_or(0)
}

/// Wakes the processor at an index in table order, which must be the one that serves requests.
pub(crate) fn wake(index: u32) -> Result<(), Failure> {
    if index >= LISTED.load(Ordering::Acquire) {
        return Err(Failure::with("the tables list no processor", u64::from(index)));
    }
    cpu::signal();
    Ok(())
}

fn index_of(mpidr: u64) -> Option<u32> {
    let listed = LISTED.load(Ordering::Acquire) as usize;
    let index = MPIDRS.iter().take(listed).position(|slot| slot.load(Ordering::Relaxed) == mpidr)?;
    Some(index as u32)
}

/// Marks the processor that runs this as online. Returns its index; `None` if it is not listed.
fn report_online() -> Option<u32> {
    let mpidr = cpu::affinity();
    let index = index_of(mpidr);
    match index.and_then(|index| ONLINE.get(index as usize)) {
        Some(online) => {
            online.store(true, Ordering::Release);
            ONLINE_COUNT.fetch_add(1, Ordering::AcqRel);
        }
        None => UNLISTED.store(mpidr + 1, Ordering::Release),
    }
    index
}
