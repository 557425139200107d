//! A cursor that reads structures from bytes.

use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use crate::decode_error::{DecodeError, Expected};

/// The rest of a section's bytes, and its offset.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Remaining<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) offset: usize,
}

impl<'a> Remaining<'a> {
    /// Reads a structure.
    pub(crate) fn take<T>(&mut self, what: &'static str) -> Result<&'a T, DecodeError>
    where
        T: FromBytes + KnownLayout + Immutable + Unaligned,
    {
        let taken = self.take_bytes(size_of::<T>(), what)?;
        T::ref_from_bytes(taken).map_err(|_| self.too_short(size_of::<T>(), what))
    }

    /// Reads `count` structures.
    pub(crate) fn take_many<T>(&mut self, count: usize, what: &'static str) -> Result<&'a [T], DecodeError>
    where
        T: FromBytes + KnownLayout + Immutable + Unaligned,
    {
        let len = count.saturating_mul(size_of::<T>());
        let taken = self.take_bytes(len, what)?;
        <[T]>::ref_from_bytes_with_elems(taken, count).map_err(|_| self.too_short(len, what))
    }

    /// Reads `len` bytes.
    pub(crate) fn take_bytes(&mut self, len: usize, what: &'static str) -> Result<&'a [u8], DecodeError> {
        let (taken, behind) = self.bytes.split_at_checked(len).ok_or_else(|| self.too_short(len, what))?;
        *self = Remaining { bytes: behind, offset: self.offset + len };
        Ok(taken)
    }

    fn too_short(&self, needed: usize, what: &'static str) -> DecodeError {
        DecodeError {
            offset: self.offset,
            what,
            found: self.bytes.len() as u64,
            expected: Expected::AtLeast(needed as u64),
        }
    }
}
