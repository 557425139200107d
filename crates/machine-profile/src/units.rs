//! Sizes and periods: a whole number and its unit.

/// A unit, how many of the smallest it is, and what people write when they mean it.
pub(crate) struct Unit {
    pub(crate) name: &'static str,
    pub(crate) factor: u64,
    pub(crate) near_misses: &'static [&'static str],
}

/// Of bytes, from the biggest.
pub(crate) static SIZES: &[Unit] = &[
    Unit { name: "TiB", factor: 1 << 40, near_misses: &["t", "tb", "ti"] },
    Unit { name: "GiB", factor: 1 << 30, near_misses: &["g", "gb", "gi"] },
    Unit { name: "MiB", factor: 1 << 20, near_misses: &["m", "mb", "mi"] },
    Unit { name: "KiB", factor: 1 << 10, near_misses: &["k", "kb", "ki"] },
];

/// Of milliseconds, from the biggest.
pub(crate) static PERIODS: &[Unit] = &[
    Unit { name: "h", factor: 3_600_000, near_misses: &["hr", "hour", "hours"] },
    Unit { name: "min", factor: 60_000, near_misses: &["m", "mins", "minute", "minutes"] },
    Unit { name: "s", factor: 1_000, near_misses: &["sec", "secs", "second", "seconds"] },
    Unit { name: "ms", factor: 1, near_misses: &["msec", "msecs", "millis", "millisecond", "milliseconds"] },
];

/// Why a text is no quantity.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NoQuantity {
    /// It does not start with a whole number.
    NoNumber,
    /// A number alone.
    NoUnit(u64),
    /// Something follows the number that is no unit, but may have been meant as one.
    UnknownUnit { number: u64, unit: String, meant: Option<&'static str> },
    /// Beyond 64 bits.
    TooBig,
}

/// How many of the smallest unit `text` says. One blank may stand between number and unit.
pub(crate) fn parse(text: &str, units: &'static [Unit]) -> Result<u64, NoQuantity> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    if number.is_empty() {
        return Err(NoQuantity::NoNumber);
    }
    let number: u64 = number.parse().map_err(|_| NoQuantity::TooBig)?;
    let unit = unit.strip_prefix(' ').unwrap_or(unit);
    if unit.is_empty() {
        return Err(NoQuantity::NoUnit(number));
    }
    if unit.starts_with(['.', ',', '_', ' ']) {
        return Err(NoQuantity::NoNumber);
    }
    match units.iter().find(|known| known.name == unit) {
        Some(known) => number.checked_mul(known.factor).ok_or(NoQuantity::TooBig),
        None => {
            let folded = unit.to_lowercase();
            let meant = units.iter().find(|known| {
                known.name.to_lowercase() == folded || known.near_misses.contains(&folded.as_str())
            });
            let meant = meant.map(|known| known.name);
            Err(NoQuantity::UnknownUnit { number, unit: unit.to_owned(), meant })
        }
    }
}

/// The shortest way to write `quantity` exactly; of nothing, 0 of the smallest unit.
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
    fn what_is_no_quantity_says_why() {
        let unknown =
            |unit: &str, meant| Err(NoQuantity::UnknownUnit { number: 512, unit: unit.to_owned(), meant });
        assert_eq!(parse("512", SIZES), Err(NoQuantity::NoUnit(512)));
        assert_eq!(parse("512MB", SIZES), unknown("MB", Some("MiB")));
        assert_eq!(parse("512m", SIZES), unknown("m", Some("MiB")));
        assert_eq!(parse("512m", PERIODS), unknown("m", Some("min")));
        assert_eq!(parse("512 apples", SIZES), unknown("apples", None));
        assert_eq!(parse("1.5GiB", SIZES), Err(NoQuantity::NoNumber));
        assert_eq!(parse("", SIZES), Err(NoQuantity::NoNumber));
        assert_eq!(parse("99999999TiB", SIZES), Err(NoQuantity::TooBig));
        assert_eq!(parse("99999999999999999999TiB", SIZES), Err(NoQuantity::TooBig));
    }
}
