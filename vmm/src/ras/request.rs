//! What a profile requests of `ras-core`.

use std::num::NonZeroU32;

use machine_profile::Machine;
use ras_core::request::Request;

/// What the machine's profile requests.
#[must_use]
pub fn of(machine: &Machine) -> Request {
    Request {
        arch: machine.arch,
        tables: machine.firmware,
        synchronous: machine.ras.synchronous,
        asynchronous: machine.ras.asynchronous,
        corrected: machine.ras.corrected.map(|corrected| corrected.response),
        corrected_threshold: machine.ras.corrected.and_then(|corrected| corrected.threshold),
        // A profile's interval is 1 ms to 1 h.
        poll_interval_ms: u32::try_from(machine.ras.poll_interval.as_millis())
            .ok()
            .and_then(NonZeroU32::new)
            .unwrap_or(NonZeroU32::MIN),
        on_missing_support: machine.ras.on_missing_support,
        repair: machine.ras.repair,
    }
}
