//! Seconds since the start of 1970, as dates.

use crate::date::Date;

/// The date of a number of seconds since the start of 1970, UTC.
pub(crate) fn date(seconds: u32) -> Date {
    let of_day = u64::from(seconds % 86_400);
    let mut day = u64::from(seconds / 86_400);
    let mut year = 1970;
    while day >= days_of_year(year) {
        day -= days_of_year(year);
        year += 1;
    }
    let mut month = 1;
    while day >= days_of_month(year, month) {
        day -= days_of_month(year, month);
        month += 1;
    }
    Date { year, month, day: day + 1, hour: of_day / 3600, minute: of_day / 60 % 60, second: of_day % 60 }
}

fn days_of_year(year: u64) -> u64 {
    if is_leap(year) { 366 } else { 365 }
}

fn days_of_month(year: u64, month: u64) -> u64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}
