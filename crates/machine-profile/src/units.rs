//! Sizes, rates and durations: a whole number and its unit.

/// A unit.
pub(crate) struct Unit {
    pub(crate) name: &'static str,
    /// Its value in bytes, in bytes a second or in milliseconds.
    pub(crate) factor: u64,
    /// Spellings, in lower case, that get a suggestion to write this unit.
    pub(crate) misspellings: &'static [&'static str],
}

/// Units of memory, from the largest.
pub(crate) static SIZES: &[Unit] = &[
    Unit { name: "TiB", factor: 1 << 40, misspellings: &["t", "tb", "ti"] },
    Unit { name: "GiB", factor: 1 << 30, misspellings: &["g", "gb", "gi"] },
    Unit { name: "MiB", factor: 1 << 20, misspellings: &["m", "mb", "mi"] },
    Unit { name: "KiB", factor: 1 << 10, misspellings: &["k", "kb", "ki"] },
];

/// Units of bandwidth, from the largest.
pub(crate) static RATES: &[Unit] = &[
    Unit { name: "GiB/s", factor: 1 << 30, misspellings: &["g", "gb", "gi", "gib", "gb/s", "gibps", "gbps"] },
    Unit { name: "MiB/s", factor: 1 << 20, misspellings: &["m", "mb", "mi", "mib", "mb/s", "mibps", "mbps"] },
    Unit { name: "KiB/s", factor: 1 << 10, misspellings: &["k", "kb", "ki", "kib", "kb/s", "kibps", "kbps"] },
];

/// Units of time, from the largest.
pub(crate) static PERIODS: &[Unit] = &[
    Unit { name: "h", factor: 3_600_000, misspellings: &["hr", "hour", "hours"] },
    Unit { name: "min", factor: 60_000, misspellings: &["m", "mins", "minute", "minutes"] },
    Unit { name: "s", factor: 1_000, misspellings: &["sec", "secs", "second", "seconds"] },
    Unit { name: "ms", factor: 1, misspellings: &["msec", "msecs", "millis", "millisecond", "milliseconds"] },
];

/// Why a text is not a quantity.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum QuantityError {
    /// It does not start with a whole number.
    NoNumber,
    /// A number without a unit.
    MissingUnit(u64),
    /// The text after the number is not a unit.
    UnknownUnit { number: u64, unit: String, suggestion: Option<&'static str> },
    /// It does not fit in 64 bits.
    TooLarge,
}

/// Parses a quantity, in bytes, in bytes a second or in milliseconds. One space is allowed between number and unit.
pub(crate) fn parse(text: &str, units: &'static [Unit]) -> Result<u64, QuantityError> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    if number.is_empty() {
        return Err(QuantityError::NoNumber);
    }
    let number: u64 = number.parse().map_err(|_| QuantityError::TooLarge)?;
    let unit = unit.strip_prefix(' ').unwrap_or(unit);
    if unit.is_empty() {
        return Err(QuantityError::MissingUnit(number));
    }
    if unit.starts_with(['.', ',', '_', ' ']) {
        return Err(QuantityError::NoNumber);
    }
    match units.iter().find(|known| known.name == unit) {
        Some(known) => number.checked_mul(known.factor).ok_or(QuantityError::TooLarge),
        None => {
            let folded = unit.to_lowercase();
            let suggestion = units.iter().find(|known| {
                known.name.to_lowercase() == folded || known.misspellings.contains(&folded.as_str())
            });
            let suggestion = suggestion.map(|known| known.name);
            Err(QuantityError::UnknownUnit { number, unit: unit.to_owned(), suggestion })
        }
    }
}

/// Formats a quantity exactly, in the largest unit that divides it; 0 in the smallest unit.
pub(crate) fn format(quantity: u64, units: &'static [Unit]) -> String {
    let unit = units.iter().find(|unit| quantity >= unit.factor && quantity.is_multiple_of(unit.factor));
    match unit.or(units.last()) {
        Some(unit) => format!("{}{}", quantity / unit.factor, unit.name),
        None => quantity.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_and_written() {
        for (text, units, quantity) in [
            ("4KiB", SIZES, 4 << 10),
            ("512MiB", SIZES, 512 << 20),
            ("1TiB", SIZES, 1 << 40),
            ("100MiB/s", RATES, 100 << 20),
            ("100ms", PERIODS, 100),
            ("1s", PERIODS, 1_000),
            ("5min", PERIODS, 300_000),
            ("1h", PERIODS, 3_600_000),
        ] {
            assert_eq!(parse(text, units), Ok(quantity));
            assert_eq!(format(quantity, units), text);
        }
        assert_eq!(parse("6 GiB", SIZES), Ok(6 << 30));
        assert_eq!(format(1536 << 20, SIZES), "1536MiB");
    }

    #[test]
    fn the_error_says_why_a_text_is_not_a_quantity() {
        let unknown = |unit: &str, suggestion| {
            Err(QuantityError::UnknownUnit { number: 512, unit: unit.to_owned(), suggestion })
        };
        assert_eq!(parse("512", SIZES), Err(QuantityError::MissingUnit(512)));
        assert_eq!(parse("512MB", SIZES), unknown("MB", Some("MiB")));
        assert_eq!(parse("512m", SIZES), unknown("m", Some("MiB")));
        assert_eq!(parse("512m", PERIODS), unknown("m", Some("min")));
        assert_eq!(parse("512 apples", SIZES), unknown("apples", None));
        assert_eq!(parse("1.5GiB", SIZES), Err(QuantityError::NoNumber));
        assert_eq!(parse("", SIZES), Err(QuantityError::NoNumber));
        assert_eq!(parse("99999999TiB", SIZES), Err(QuantityError::TooLarge));
        assert_eq!(parse("99999999999999999999TiB", SIZES), Err(QuantityError::TooLarge));
    }
}
