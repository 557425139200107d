//! The real-time clock: a PL031 (Arm DDI 0224C, 3.3).

use super::{DEVICES_END, unix_time};
use crate::failure::Failure;
use crate::physical::Register;
use crate::report::say;

/// Prints the time of the clock at `address`: its first register counts seconds since the start of 1970, UTC.
pub(crate) fn report(address: u64) -> Result<(), Failure> {
    if !address.is_multiple_of(4) || address >= DEVICES_END {
        return Err(Failure::with("the real-time clock is not in mapped device memory:", address));
    }
    // SAFETY: aligned, and devices are mapped.
    let seconds = unsafe { Register::at(address) }.read();
    let date = unix_time::date(seconds);
    say!("rtc ", date);
    date.check()
}
