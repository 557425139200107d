//! FRU text: the name of the part in an error record.

use core::fmt::{self, Write};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Text of a field replaceable unit: 20 bytes, padded with zeros (ACPI 6.5, 18.3.2.7.1; UEFI 2.10, N.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(transparent)]
pub struct FruText([u8; 20]);

const _: () = assert!(size_of::<FruText>() == 20);

impl FruText {
    /// No text.
    pub const EMPTY: FruText = FruText([0; 20]);

    /// The text, cut after the last character that fits into 20 bytes.
    ///
    /// ```
    /// # use ras_core::FruText;
    /// assert_eq!(FruText::new(format_args!("memory #{}", 17)).as_str(), Some("memory #17"));
    /// ```
    #[must_use]
    pub fn new(text: fmt::Arguments<'_>) -> Self {
        let mut bounded = Bounded { bytes: [0; 20], len: 0 };
        // It fails if the text is cut: what fits has been kept.
        let _cut = bounded.write_fmt(text);
        FruText(bounded.bytes)
    }

    /// The text before the first zero. `None` if it is not UTF-8.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        let text = self.0.split(|byte| *byte == 0).next()?;
        core::str::from_utf8(text).ok()
    }
}

/// Bytes that are not UTF-8 are printed as replacement characters.
impl fmt::Display for FruText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.split(|byte| *byte == 0).next().unwrap_or_default();
        f.write_str(&alloc::string::String::from_utf8_lossy(text))
    }
}

/// Accepts whole characters until one does not fit.
struct Bounded {
    bytes: [u8; 20],
    len: usize,
}

impl fmt::Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            let end = self.len + character.len_utf8();
            let free = self.bytes.get_mut(self.len..end).ok_or(fmt::Error)?;
            character.encode_utf8(free);
            self.len = end;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_between_characters() {
        assert_eq!(FruText::new(format_args!("")), FruText::EMPTY);
        let twenty = "01234567890123456789";
        assert_eq!(FruText::new(format_args!("{twenty}")).as_str(), Some(twenty));
        assert_eq!(FruText::new(format_args!("{twenty}0")).as_str(), Some(twenty));
        assert_eq!(FruText::new(format_args!("0123456789012345678é")).as_str(), Some("0123456789012345678"));
        assert_eq!(FruText([0xff; 20]).as_str(), None);
    }
}
