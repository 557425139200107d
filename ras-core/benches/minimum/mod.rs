//! The minimum time of a call over many runs.

use std::hint::black_box;
use std::time::{Duration, Instant};

const RUNS: u32 = 200;
const CALLS: u32 = 1000;

/// Nanoseconds of one call in the fastest run.
pub(crate) fn minimum_ns<T>(mut work: impl FnMut() -> T) -> f64 {
    let run = |_| {
        let start = Instant::now();
        (0..CALLS).for_each(|_| drop(black_box(work())));
        start.elapsed()
    };
    (0..RUNS).map(run).min().unwrap_or(Duration::ZERO).as_secs_f64() * 1e9 / f64::from(CALLS)
}
