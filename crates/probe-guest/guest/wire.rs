//! Structures that others laid out: packed, little-endian, read from bytes without trust.

/// A field with a fixed place in a structure.
pub(crate) trait Field: Sized {
    const SIZE: usize;

    /// Reads the field off the front of `rest`; none where it is too short.
    fn take(rest: &mut &[u8]) -> Option<Self>;
}

impl<const N: usize> Field for [u8; N] {
    const SIZE: usize = N;

    fn take(rest: &mut &[u8]) -> Option<Self> {
        let (field, after) = rest.split_first_chunk::<N>()?;
        *rest = after;
        Some(*field)
    }
}

macro_rules! integer_fields {
    ($($integer:ty),*) => {
        $(impl Field for $integer {
            const SIZE: usize = size_of::<$integer>();

            fn take(rest: &mut &[u8]) -> Option<Self> {
                <[u8; size_of::<$integer>()]>::take(rest).map(<$integer>::from_le_bytes)
            }
        })*
    };
}

integer_fields!(u8, u16, u32, u64);

/// Declares a structure by its fields in their order, with its size in bytes as the specification gives it.
macro_rules! wire {
    ($(#[$meta:meta])* struct $name:ident: $size:literal { $($field:ident: $type:ty,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy)]
        pub(crate) struct $name {
            $(pub(crate) $field: $type,)*
        }

        const _: () = assert!($size == 0 $(+ <$type as $crate::wire::Field>::SIZE)*);

        impl $crate::wire::Field for $name {
            const SIZE: usize = $size;

            fn take(rest: &mut &[u8]) -> Option<Self> {
                Some($name { $($field: <$type as $crate::wire::Field>::take(rest)?,)* })
            }
        }
    };
}
pub(crate) use wire;

/// The structure at `offset` of `bytes`; none where it does not lie in them as a whole.
pub(crate) fn read_at<T: Field>(bytes: &[u8], offset: usize) -> Option<T> {
    let mut rest = bytes.get(offset..)?;
    T::take(&mut rest)
}

/// The sum of all bytes, which firmware tables make zero.
pub(crate) fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}
