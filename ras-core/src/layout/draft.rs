//! Bytes that are being written.

use alloc::vec::Vec;

use super::Bits;

/// Bytes, and which of their bits have been written: a bit may be written twice, with the same value.
#[derive(Debug, Default)]
pub(crate) struct Draft {
    bytes: Vec<u8>,
    written: Vec<u8>,
}

/// A bit has another value already.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Conflict;

impl Draft {
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Adds that number of zeros.
    pub(crate) fn grow(&mut self, len: usize) {
        self.bytes.resize(self.bytes.len() + len, 0);
        self.written.resize(self.bytes.len(), 0);
    }

    /// Adds bytes.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.written.resize(self.bytes.len(), u8::MAX);
    }

    /// The bytes of the structure at `base`.
    pub(crate) fn behind(&self, base: usize) -> &[u8] {
        self.bytes.get(base..).unwrap_or_default()
    }

    /// Sets bits of the structure at `base`.
    pub(crate) fn set(&mut self, base: usize, bits: Bits, value: u64) -> Result<(), Conflict> {
        (0..bits.count.min(64))
            .try_for_each(|bit| self.set_bit(base, bits.first + bit, value >> bit & 1 != 0))
    }

    /// Sets bytes of the structure at `base`, from the first of those bits on.
    pub(crate) fn set_bytes(&mut self, base: usize, bits: Bits, bytes: &[u8]) -> Result<(), Conflict> {
        bytes.iter().enumerate().try_for_each(|(index, byte)| {
            self.set(base, Bits { first: bits.first + 8 * index, count: 8 }, (*byte).into())
        })
    }

    /// Sets the bits of a structure at `base` that have been written in `other`.
    pub(crate) fn merge(&mut self, base: usize, other: &Draft) -> Result<(), Conflict> {
        let bytes = other.bytes.iter().zip(&other.written).enumerate();
        bytes.into_iter().try_for_each(|(index, (byte, written))| {
            let bits = (0..8).filter(|bit| written >> bit & 1 != 0);
            bits.into_iter().try_for_each(|bit| self.set_bit(base, 8 * index + bit, byte >> bit & 1 != 0))
        })
    }

    fn set_bit(&mut self, base: usize, bit: usize, is_set: bool) -> Result<(), Conflict> {
        let (index, mask) = (base + bit / 8, 1 << (bit % 8));
        let (Some(byte), Some(written)) = (self.bytes.get_mut(index), self.written.get_mut(index)) else {
            return Err(Conflict);
        };
        if *written & mask != 0 && (*byte & mask != 0) != is_set {
            return Err(Conflict);
        }
        *byte = if is_set { *byte | mask } else { *byte & !mask };
        *written |= mask;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_written_once() {
        let mut draft = Draft::default();
        draft.push(&[0xff]);
        draft.grow(2);
        assert!(draft.set(1, Bits { first: 4, count: 8 }, 0xa5).is_ok());
        assert_eq!(draft.behind(0), [0xff, 0x50, 0x0a]);
        assert!(draft.set(1, Bits { first: 0, count: 16 }, 0xfa5f).is_ok(), "the bits between are the same");
        assert!(draft.set(1, Bits { first: 11, count: 1 }, 0).is_err());
        assert!(draft.set(0, Bits { first: 0, count: 1 }, 0).is_err());
        assert!(draft.set(2, Bits { first: 8, count: 1 }, 0).is_err(), "behind the end");
        assert_eq!(draft.into_bytes(), [0xff, 0x5f, 0xfa]);
    }
}
