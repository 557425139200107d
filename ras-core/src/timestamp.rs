//! Timestamps of error records.

use core::fmt;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// A date and time of day in binary-coded decimals (ACPI 6.5, 18.3.2.7.1; UEFI 2.10, N.2.1). Records do not contain the time zone;
/// this crate writes UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Timestamp {
    second: u8,
    minute: u8,
    hour: u8,
    flags: u8,
    day: u8,
    month: u8,
    year: u8,
    century: u8,
}

const _: () = assert!(size_of::<Timestamp>() == 8);

/// Flag: the time is that of the error, not that of its detection.
const PRECISE: u8 = 1;

const SECONDS_PER_DAY: u64 = 24 * 60 * 60;
/// Days of 400 years, the period of the calendar.
const DAYS_PER_ERA: u64 = 146_097;
/// Days from 1 March of the year 0 to 1 January 1970. A year that starts in March ends with its leap day.
const DAYS_TO_UNIX: u64 = 719_468;
/// 9999-12-31 23:59:59: the last time that can be represented.
const LAST_SECOND: u64 = 253_402_300_799;

impl Timestamp {
    /// The value of an entry whose timestamp is not valid.
    pub const NONE: Timestamp =
        Timestamp { second: 0, minute: 0, hour: 0, flags: 0, day: 0, month: 0, year: 0, century: 0 };

    /// The time that number of seconds after 1970-01-01 00:00:00 UTC, up to the year 9999. It is the time of detection, not of the error:
    /// it is marked as not precise.
    #[must_use]
    pub const fn from_unix(seconds: u64) -> Self {
        let seconds = if seconds > LAST_SECOND { LAST_SECOND } else { seconds };
        let days = seconds / SECONDS_PER_DAY + DAYS_TO_UNIX;
        let of_day = seconds % SECONDS_PER_DAY;

        let era = days / DAYS_PER_ERA;
        let day = days % DAYS_PER_ERA;
        // Day of the era without its leap days: one in 4 years (1,460 days), none in 100 (36,524), one in 400.
        let year = (day - day / 1_460 + day / 36_524 - day / (DAYS_PER_ERA - 1)) / 365;
        let day = day - (365 * year + year / 4 - year / 100);
        // From March on, each five months have 153 days.
        let month = (5 * day + 2) / 153;
        let day = day - (153 * month + 2) / 5 + 1;
        let (month, year) = if month < 10 { (month + 3, year) } else { (month - 9, year + 1) };
        let year = era * 400 + year;

        Timestamp {
            second: bcd(of_day % 60),
            minute: bcd(of_day / 60 % 60),
            hour: bcd(of_day / 3600),
            flags: 0,
            day: bcd(day),
            month: bcd(month),
            year: bcd(year % 100),
            century: bcd(year / 100),
        }
    }

    /// Whether the time is that of the error, not that of its detection.
    #[must_use]
    pub const fn is_precise(&self) -> bool {
        self.flags & PRECISE != 0
    }
}

/// In ISO 8601. Digits that are not decimal are printed in hexadecimal.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Timestamp { second, minute, hour, flags: _, day, month, year, century } = self;
        write!(f, "{century:02x}{year:02x}-{month:02x}-{day:02x}T{hour:02x}:{minute:02x}:{second:02x}Z")
    }
}

/// A number below 100 as two binary-coded decimal digits.
const fn bcd(number: u64) -> u8 {
    (number / 10 % 10 * 16 + number % 10) as u8
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;

    #[test]
    fn dates_around_leap_days_and_centuries() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_543_622_400, "2018-12-01T00:00:00Z"),
            (1_735_689_599, "2024-12-31T23:59:59Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (LAST_SECOND, "9999-12-31T23:59:59Z"),
            (u64::MAX, "9999-12-31T23:59:59Z"),
        ] {
            assert_eq!(Timestamp::from_unix(seconds).to_string(), text);
        }
    }

    #[test]
    fn consecutive_days_have_consecutive_dates() {
        const LENGTHS: [u64; 12] = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
        let (mut year, mut month, mut day) = (1970, 1, 1);
        for days in 0..400 * 366 {
            let time = Timestamp::from_unix(days * SECONDS_PER_DAY);
            assert_eq!(
                [time.century, time.year, time.month, time.day],
                [bcd(year / 100), bcd(year % 100), bcd(month), bcd(day)]
            );
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let length = LENGTHS[month as usize - 1] + u64::from(leap && month == 2);
            day += 1;
            if day > length {
                (month, day) = (month + 1, 1);
            }
            if month > 12 {
                (year, month) = (year + 1, 1);
            }
        }
    }
}
