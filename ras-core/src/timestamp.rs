//! Timestamps of error records.

use alloc::format;
use alloc::string::String;
use core::fmt;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// A date and time of day (ACPI 6.5, 18.3.2.7.1; UEFI 2.10, N.2.1), in binary-coded decimals according to both. Records do not contain
/// the time zone: UEFI says local time, this crate writes UTC.
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

/// How the numbers of a timestamp are encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeEncoding {
    /// Two decimal digits in each byte, as UEFI 2.10, N.2.1 requires.
    Bcd,
    /// A binary number in each byte, as Windows writes it (`WHEA_TIMESTAMP` of its `ntddk.h`).
    Binary,
}

/// What the bytes of a timestamp that is not a date are printed behind.
const NOT_A_DATE: &str = "not a date:";

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

    /// Bits of its flags that are reserved.
    #[must_use]
    pub const fn reserved_flags(&self) -> u8 {
        self.flags & !PRECISE
    }

    /// Its date and time in ISO 8601, without a time zone, and how they are encoded: as `expected` if they are a date and time in that
    /// encoding, otherwise in the other. `None` if they are one in neither.
    #[must_use]
    pub fn date_and_time(&self, expected: TimeEncoding) -> Option<(String, TimeEncoding)> {
        let other = match expected {
            TimeEncoding::Bcd => TimeEncoding::Binary,
            TimeEncoding::Binary => TimeEncoding::Bcd,
        };
        [expected, other].into_iter().find_map(|encoding| Some((self.decode(encoding)?, encoding)))
    }

    /// The timestamp of its text, as [`Timestamp::date_and_time`] or its `Display` form has it. The latter has its flags.
    pub(crate) fn parse(text: &str, encoding: TimeEncoding, flags: u8) -> Option<Self> {
        if let Some(bytes) = text.strip_prefix(NOT_A_DATE) {
            let mut digits = bytes.split_ascii_whitespace();
            let mut byte = || digits.next().and_then(|digits| u8::from_str_radix(digits, 16).ok());
            let [second, minute, hour, flags, day, month, year, century] =
                [byte()?, byte()?, byte()?, byte()?, byte()?, byte()?, byte()?, byte()?];
            let time = Timestamp { second, minute, hour, flags, day, month, year, century };
            return digits.next().is_none().then_some(time);
        }
        let number = |from: usize| {
            let digits = text.get(from..from + 2)?;
            let number: u8 = digits.parse().ok().filter(|_| digits.bytes().all(|it| it.is_ascii_digit()))?;
            Some(match encoding {
                TimeEncoding::Bcd => bcd(number.into()),
                TimeEncoding::Binary => number,
            })
        };
        // 2026-08-09T10:11:12
        let time = Timestamp {
            second: number(17)?,
            minute: number(14)?,
            hour: number(11)?,
            flags,
            day: number(8)?,
            month: number(5)?,
            year: number(2)?,
            century: number(0)?,
        };
        // It has these separators and nothing behind them, and is a date.
        (time.decode(encoding).as_deref() == Some(text)).then_some(time)
    }

    fn decode(&self, encoding: TimeEncoding) -> Option<String> {
        let below_100 = |byte| match encoding {
            TimeEncoding::Bcd => from_bcd(byte),
            TimeEncoding::Binary => (byte < 100).then_some(byte),
        };
        let century = below_100(self.century)?;
        let year = below_100(self.year)?;
        let month = below_100(self.month).filter(|month| (1..=12).contains(month))?;
        let day = below_100(self.day).filter(|day| (1..=31).contains(day))?;
        let hour = below_100(self.hour).filter(|hour| *hour < 24)?;
        let minute = below_100(self.minute).filter(|minute| *minute < 60)?;
        // A leap second is the sixtieth.
        let second = below_100(self.second).filter(|second| *second <= 60)?;
        Some(format!("{century:02}{year:02}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}"))
    }
}

/// In ISO 8601, without a time zone; the bytes if they are not a date and time.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.date_and_time(TimeEncoding::Bcd) {
            Some((text, _)) => f.write_str(&text),
            None => {
                f.write_str(NOT_A_DATE)?;
                self.as_bytes().iter().try_for_each(|byte| write!(f, " {byte:02x}"))
            }
        }
    }
}

/// A number below 100 as two binary-coded decimal digits.
const fn bcd(number: u64) -> u8 {
    (number / 10 % 10 * 16 + number % 10) as u8
}

/// The number below 100 of two binary-coded decimal digits. `None` if they are not decimal.
const fn from_bcd(byte: u8) -> Option<u8> {
    let (tens, ones) = (byte >> 4, byte & 0xf);
    if tens < 10 && ones < 10 { Some(tens * 10 + ones) } else { None }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;

    #[test]
    fn dates_around_leap_days_and_centuries() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00"),
            (951_782_399, "2000-02-28T23:59:59"),
            (951_782_400, "2000-02-29T00:00:00"),
            (951_868_800, "2000-03-01T00:00:00"),
            (1_543_622_400, "2018-12-01T00:00:00"),
            (1_735_689_599, "2024-12-31T23:59:59"),
            (4_107_542_399, "2100-02-28T23:59:59"),
            (4_107_542_400, "2100-03-01T00:00:00"),
            (LAST_SECOND, "9999-12-31T23:59:59"),
            (u64::MAX, "9999-12-31T23:59:59"),
        ] {
            assert_eq!(Timestamp::from_unix(seconds).to_string(), text);
        }
    }

    const BINARY: Timestamp =
        Timestamp { second: 20, minute: 20, hour: 14, flags: 0, day: 24, month: 10, year: 24, century: 20 };

    #[test]
    fn binary_numbers_are_a_date() {
        let decoded = |time: Timestamp, expected| time.date_and_time(expected);
        let binary = Some(("2024-10-24T14:20:20".to_string(), TimeEncoding::Binary));
        assert_eq!(decoded(BINARY, TimeEncoding::Binary), binary);
        // 24 is 0x18, whose digits are decimal; 14 is 0x0e, whose digits are not.
        assert_eq!(decoded(BINARY, TimeEncoding::Bcd), binary);
        let bcd = Some(("2024-12-31T23:59:59".to_string(), TimeEncoding::Bcd));
        assert_eq!(decoded(Timestamp::from_unix(1_735_689_599), TimeEncoding::Bcd), bcd);
        assert_eq!(decoded(Timestamp::from_unix(1_735_689_599), TimeEncoding::Binary), bcd);
    }

    #[test]
    fn what_is_no_date_is_printed_as_bytes() {
        assert_eq!(Timestamp::NONE.to_string(), "not a date: 00 00 00 00 00 00 00 00");
        let good = Timestamp::from_unix(0);
        for bad in [
            Timestamp { second: 0x61, ..good },
            Timestamp { minute: 0x60, ..good },
            Timestamp { hour: 0x24, ..good },
            Timestamp { day: 0x32, ..good },
            Timestamp { month: 0x13, ..good },
            Timestamp { year: 0xff, ..good },
            Timestamp { century: 0xff, ..good },
        ] {
            assert!(bad.to_string().starts_with("not a date: "), "{bad}");
        }
    }

    #[test]
    fn what_is_printed_is_parsed() {
        for (time, encoding) in [
            (Timestamp::from_unix(1_786_270_272), TimeEncoding::Bcd),
            (BINARY, TimeEncoding::Binary),
            (Timestamp { flags: 0x83, ..BINARY }, TimeEncoding::Binary),
            (Timestamp { month: 0xff, flags: 0x83, ..BINARY }, TimeEncoding::Bcd),
            (Timestamp::NONE, TimeEncoding::Bcd),
        ] {
            let text = time.date_and_time(encoding).map_or_else(|| time.to_string(), |(text, _)| text);
            assert_eq!(Timestamp::parse(&text, encoding, time.flags), Some(time), "{text}");
        }
        for text in [
            "",
            "2026-13-09T10:11:12",
            "2026-08-09 10:11:12",
            "2026-08-09T10:11:12Z",
            "2026-08-09T+1:11:12",
            "2026-08-0éT10:11:12",
            "not a date: 00",
            "not a date: 00 00 00 00 00 00 00 00 00",
        ] {
            assert_eq!(Timestamp::parse(text, TimeEncoding::Bcd, 0), None, "{text}");
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
