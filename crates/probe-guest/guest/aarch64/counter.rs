//! The virtual counter, as a clock for waits (Arm ARM, D11.2).

use super::cpu::{self, read_register};

/// Limit for events that should happen immediately.
const TIMEOUT_SECONDS: u64 = 10;

/// Busy-waits for a condition for up to ten seconds. Returns whether it was met.
pub(crate) fn wait_until(mut condition: impl FnMut() -> bool) -> bool {
    wait(TIMEOUT_SECONDS * frequency(), &mut condition)
}

/// Busy-waits for a condition for up to `milliseconds`. Returns whether it was met.
pub(crate) fn wait_for(milliseconds: u32, mut condition: impl FnMut() -> bool) -> bool {
    wait(ticks(milliseconds), &mut condition)
}

/// Busy-waits for a condition for up to `ticks` of the counter.
fn wait(ticks: u64, condition: &mut dyn FnMut() -> bool) -> bool {
    /// Number of polls after which the wait ends even if the counter does not count.
    const MAX_POLLS: u64 = 1 << 32;
    let start = count();
    for _ in 0..MAX_POLLS {
        if condition() {
            return true;
        }
        if count().wrapping_sub(start) >= ticks {
            break;
        }
        cpu::pause();
    }
    condition()
}

pub(crate) fn ticks(milliseconds: u32) -> u64 {
    (frequency() / 1000).saturating_mul(u64::from(milliseconds))
}

/// Ticks per second. At least one million, so that waits are not shorter than intended on a wrong value.
pub(crate) fn frequency() -> u64 {
    read_register!("cntfrq_el0").max(1_000_000)
}

pub(crate) fn count() -> u64 {
    read_register!("cntvct_el0")
}
