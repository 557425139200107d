//! Dates, as a real-time clock shows them.

use crate::failure::Failure;
use crate::format::{Padded, Show, Sink};

/// A date and a time of day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Date {
    pub(crate) year: u64,
    pub(crate) month: u64,
    pub(crate) day: u64,
    pub(crate) hour: u64,
    pub(crate) minute: u64,
    pub(crate) second: u64,
}

impl Date {
    /// Fails if a field is out of range.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        let is_date = (1..=12).contains(&self.month)
            && (1..=31).contains(&self.day)
            && self.hour < 24
            && self.minute < 60
            && self.second < 60;
        if is_date { Ok(()) } else { Err(Failure::new("the real-time clock shows an invalid time")) }
    }
}

/// `YYYY-MM-DDTHH:MM:SS`.
impl Show for Date {
    fn show(&self, out: &mut dyn Sink) {
        Padded { value: self.year, width: 4 }.show(out);
        let rest =
            [("-", self.month), ("-", self.day), ("T", self.hour), (":", self.minute), (":", self.second)];
        for (before, value) in rest {
            before.show(out);
            Padded { value, width: 2 }.show(out);
        }
    }
}
