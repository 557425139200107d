//! Packed little-endian structures of specifications, read from untrusted bytes.

/// A fixed-size field of a structure.
pub(crate) trait Field: Sized {
    const SIZE: usize;

    /// Splits the field off the front of `rest`. `None` if `rest` is too short.
    fn split_off(rest: &mut &[u8]) -> Option<Self>;
}

impl<const N: usize> Field for [u8; N] {
    const SIZE: usize = N;

    fn split_off(rest: &mut &[u8]) -> Option<Self> {
        let (field, after) = rest.split_first_chunk::<N>()?;
        *rest = after;
        Some(*field)
    }
}

macro_rules! integer_fields {
    ($($integer:ty),*) => {
        $(impl Field for $integer {
            const SIZE: usize = size_of::<$integer>();

            fn split_off(rest: &mut &[u8]) -> Option<Self> {
                <[u8; size_of::<$integer>()]>::split_off(rest).map(<$integer>::from_le_bytes)
            }
        })*
    };
}

integer_fields!(u8, u16, u32, u64);

/// Declares a structure by its fields in order, and its size in bytes from the specification.
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

            fn split_off(rest: &mut &[u8]) -> Option<Self> {
                Some($name { $($field: <$type as $crate::wire::Field>::split_off(rest)?,)* })
            }
        }
    };
}
pub(crate) use wire;

/// The structure at `offset` of `bytes`. `None` if it exceeds them.
pub(crate) fn read_at<T: Field>(bytes: &[u8], offset: usize) -> Option<T> {
    let mut rest = bytes.get(offset..)?;
    T::split_off(&mut rest)
}

/// The sum of all bytes, which is zero for a valid firmware table.
pub(crate) fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}
