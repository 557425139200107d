//! Validation of names, hardware ids and texts. The AML encoder requires valid ones.

/// Whether `name` is a NameSeg of four characters (ACPI 6.5, 20.2.2).
pub(super) fn is_name(name: &str) -> bool {
    let lead = |byte: u8| byte.is_ascii_uppercase() || byte == b'_';
    match name.as_bytes() {
        [first, rest @ ..] if rest.len() == 3 => {
            lead(*first) && rest.iter().all(|byte| lead(*byte) || byte.is_ascii_digit())
        }
        _ => false,
    }
}

/// The two forms of `_HID` (ACPI 6.5, 6.1.5).
#[derive(Debug, PartialEq, Eq)]
pub(super) enum HardwareId {
    /// Three letters and four hexadecimal digits: encoded as a compressed 32-bit EISA id.
    Eisa,
    /// Four letters or digits and four hexadecimal digits: encoded as a string.
    Acpi,
}

impl HardwareId {
    /// The form of `hid`. `None` if it is not a hardware id.
    pub(super) fn of(hid: &str) -> Option<Self> {
        let hex = |bytes: &[u8]| bytes.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'A'..=b'F'));
        let bytes = hid.as_bytes();
        match bytes.len() {
            7 if bytes[..3].iter().all(u8::is_ascii_uppercase) && hex(&bytes[3..]) => Some(HardwareId::Eisa),
            8 if bytes[..4].iter().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit())
                && hex(&bytes[4..]) =>
            {
                Some(HardwareId::Acpi)
            }
            _ => None,
        }
    }
}

/// Whether `text` is printable ASCII. A NUL would end an AML string, and other characters are not portable.
pub(super) fn is_text(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b' '..=b'~'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_four_valid_characters() {
        for valid in ["COM1", "_CCA", "A___", "PWRB"] {
            assert!(is_name(valid), "{valid}");
        }
        for invalid in ["", "COM", "COM10", "1COM", "com1", "CÖM", "CO M"] {
            assert!(!is_name(invalid), "{invalid}");
        }
    }

    #[test]
    fn a_hardware_id_has_one_of_two_forms() {
        assert_eq!(HardwareId::of("PNP0C0C"), Some(HardwareId::Eisa));
        for valid in ["ACPI0013", "LNRO0005", "80860F0A"] {
            assert_eq!(HardwareId::of(valid), Some(HardwareId::Acpi), "{valid}");
        }
        for invalid in ["", "PNP", "pnp0501", "PNP050G", "ACPI00013", "ACPI 001", "PNP0c0c", "ÄÄÄ0"] {
            assert_eq!(HardwareId::of(invalid), None, "{invalid}");
        }
    }

    #[test]
    fn a_text_is_printable_ascii() {
        assert!(is_text("") && is_text("a \"text\" of 30 % ~"));
        assert!(!is_text("line\n") && !is_text("nul\0") && !is_text("ö"));
    }
}
