//! GUIDs in their memory layout.

use core::fmt;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// A GUID in its 16-byte layout (UEFI 2.10, appendix A): the first three fields are little endian, the last eight bytes are in the order
/// in which they are printed.
///
/// ```
/// use ras_core::Guid;
///
/// let memory_error = Guid::new(0xa5bc1114, 0x6f64, 0x4ede, [0xb8, 0x63, 0x3e, 0x83, 0xed, 0x7c, 0x83, 0xb1]);
/// assert_eq!(memory_error.bytes()[..8], [0x14, 0x11, 0xbc, 0xa5, 0x64, 0x6f, 0xde, 0x4e]);
/// assert_eq!(memory_error.to_string(), "a5bc1114-6f64-4ede-b863-3e83ed7c83b1");
/// ```
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(transparent)]
pub struct Guid([u8; 16]);

const _: () = assert!(size_of::<Guid>() == 16);

impl Guid {
    /// The zero GUID, which identifies nothing.
    pub const ZERO: Guid = Guid([0; 16]);

    /// The GUID with these fields, in printing order.
    #[must_use]
    pub const fn new(first: u32, second: u16, third: u16, rest: [u8; 8]) -> Self {
        let [a, b, c, d] = first.to_le_bytes();
        let [e, f] = second.to_le_bytes();
        let [g, h] = third.to_le_bytes();
        let [i, j, k, l, m, n, o, p] = rest;
        Guid([a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p])
    }

    /// The GUID with these bytes in memory.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Guid(bytes)
    }

    /// The GUID of its text, in which its groups are separated by `-`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut groups = text.split('-');
        let mut group = |digits: usize| {
            let group = groups.next().filter(|group| group.len() == digits)?;
            let is_hex = group.bytes().all(|digit| digit.is_ascii_hexdigit());
            u64::from_str_radix(group, 16).ok().filter(|_| is_hex)
        };
        let (first, second, third) = (group(8)?, group(4)?, group(4)?);
        let rest = group(4)? << 48 | group(12)?;
        let guid = Guid::new(first as u32, second as u16, third as u16, rest.to_be_bytes());
        groups.next().is_none().then_some(guid)
    }

    /// Its bytes in memory.
    #[must_use]
    pub const fn bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, f_, g, h, i, j, rest @ ..] = self.0;
        let first = u32::from_le_bytes([a, b, c, d]);
        let second = u16::from_le_bytes([e, f_]);
        let third = u16::from_le_bytes([g, h]);
        write!(f, "{first:08x}-{second:04x}-{third:04x}-{i:02x}{j:02x}-")?;
        rest.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;

    #[test]
    fn only_the_first_three_fields_are_little_endian() {
        let guid = Guid::new(0x0011_2233, 0x4455, 0x6677, [0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff]);
        assert_eq!(guid.bytes(), b"\x33\x22\x11\x00\x55\x44\x77\x66\x88\x99\xaa\xbb\xcc\xdd\xee\xff");
        assert_eq!(guid.to_string(), "00112233-4455-6677-8899-aabbccddeeff");
        assert_eq!(Guid::from_bytes(*guid.bytes()), guid);
        assert_eq!(Guid::parse("00112233-4455-6677-8899-AABBccddeeff"), Some(guid));
    }

    #[test]
    fn other_texts_are_no_guids() {
        for text in [
            "",
            "00112233-4455-6677-8899-aabbccddeef",
            "00112233-4455-6677-8899-aabbccddeeff-",
            "00112233-4455-6677-8899-aabbccddeefg",
            "+0112233-4455-6677-8899-aabbccddeeff",
            "001122334-455-6677-8899-aabbccddeeff",
            "00112233-4455-6677-8899-aabbccddéeff",
        ] {
            assert_eq!(Guid::parse(text), None, "{text}");
        }
    }
}
