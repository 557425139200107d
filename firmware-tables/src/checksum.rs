//! The checksum of ACPI and MP tables: all bytes sum to zero modulo 256.

/// The value that, in place of a zero byte in `bytes`, makes the sum zero.
pub(crate) fn balancing(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)).wrapping_neg()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_is_zero() {
        for bytes in [vec![], vec![0], vec![1, 2, 3], vec![255; 300]] {
            let sum = bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
            assert_eq!(sum.wrapping_add(balancing(&bytes)), 0, "{bytes:?}");
        }
    }
}
