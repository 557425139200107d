//! The one checksum of all these tables: the bytes sum up to zero.

/// The byte that, put in the place of a zero in `bytes`, makes their sum zero.
pub(crate) fn balancing(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)).wrapping_neg()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn balances() {
        for bytes in [vec![], vec![0], vec![1, 2, 3], vec![255; 300]] {
            let sum = bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
            assert_eq!(sum.wrapping_add(balancing(&bytes)), 0, "{bytes:?}");
        }
    }
}
