//! Times, sizes and counts with units.

/// `12.3 ms`, `1.23 s`.
pub(crate) fn time(ns: u64) -> String {
    let ms = ns as f64 / 1e6;
    if ms < 10.0 {
        format!("{ms:.2} ms")
    } else if ms < 1000.0 {
        format!("{ms:.1} ms")
    } else {
        format!("{:.2} s", ms / 1e3)
    }
}

/// `4 KiB`, `512 MiB`; bytes if it is not a multiple of 1 KiB.
pub(crate) fn size(bytes: u64) -> String {
    let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
    let unit = units.into_iter().find(|(shift, _)| bytes != 0 && bytes.is_multiple_of(1 << shift));
    match unit {
        Some((shift, name)) => format!("{} {name}", bytes >> shift),
        None => format!("{bytes} bytes"),
    }
}

/// `1 row`, `2 rows`.
pub(crate) fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_units() {
        assert_eq!([1_234_567, 12_345_678, 1_234_567_890].map(time), ["1.23 ms", "12.3 ms", "1.23 s"]);
        assert_eq!([4096, 512 << 20, 36, 0].map(size), ["4 KiB", "512 MiB", "36 bytes", "0 bytes"]);
        assert_eq!([0, 1].map(|number| count(number, "row")), ["0 rows", "1 row"]);
    }
}
