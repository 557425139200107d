//! Numbers and text for the report.
//!
//! `core::fmt` cannot be used: the precompiled `core` uses SSE registers, which are not enabled.

/// A destination for characters.
pub(crate) trait Sink {
    fn put(&mut self, byte: u8);
}

/// A part of a line of the report.
pub(crate) trait Show {
    fn show(&self, out: &mut dyn Sink);
}

impl<T: Show + ?Sized> Show for &T {
    fn show(&self, out: &mut dyn Sink) {
        T::show(self, out);
    }
}

impl Show for str {
    fn show(&self, out: &mut dyn Sink) {
        for byte in self.bytes() {
            out.put(byte);
        }
    }
}

/// Decimal.
impl Show for u64 {
    fn show(&self, out: &mut dyn Sink) {
        Padded { value: *self, width: 1 }.show(out);
    }
}

impl Show for u32 {
    fn show(&self, out: &mut dyn Sink) {
        u64::from(*self).show(out);
    }
}

impl Show for usize {
    fn show(&self, out: &mut dyn Sink) {
        (*self as u64).show(out);
    }
}

/// Decimal with leading zeros up to `width` digits.
pub(crate) struct Padded {
    pub(crate) value: u64,
    pub(crate) width: usize,
}

impl Show for Padded {
    fn show(&self, out: &mut dyn Sink) {
        show_digits(self.value, 10, self.width, out);
    }
}

/// `0x` and lower-case digits, no leading zeros.
pub(crate) struct Hex(pub(crate) u64);

impl Show for Hex {
    fn show(&self, out: &mut dyn Sink) {
        "0x".show(out);
        show_digits(self.0, 16, 1, out);
    }
}

/// Untrusted text: bytes that are not printable ASCII, and `"` and `\`, become `\xNN`.
pub(crate) struct Text<'a>(pub(crate) &'a [u8]);

impl Show for Text<'_> {
    fn show(&self, out: &mut dyn Sink) {
        for &byte in self.0 {
            if matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\') {
                out.put(byte);
            } else {
                "\\x".show(out);
                show_digits(u64::from(byte), 16, 2, out);
            }
        }
    }
}

fn show_digits(mut value: u64, base: u64, width: usize, out: &mut dyn Sink) {
    // 20 digits hold any u64 in decimal.
    let mut digits = [b'0'; 20];
    let mut used = 0;
    for slot in digits.iter_mut().rev() {
        if value == 0 && used >= width {
            break;
        }
        let digit = (value % base) as u8;
        *slot = if digit < 10 { b'0' + digit } else { b'a' + digit - 10 };
        value /= base;
        used += 1;
    }
    for &digit in digits.iter().skip(digits.len() - used) {
        out.put(digit);
    }
}
