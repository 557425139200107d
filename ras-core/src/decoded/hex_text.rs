//! Bytes as hexadecimal text.

use alloc::string::String;
use alloc::vec::Vec;

/// Hexadecimal text that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct HexTextError {
    /// The line, counted from 1.
    pub line: usize,
    /// What is wrong with it.
    pub problem: HexTextProblem,
}

/// What is wrong with a line of hexadecimal text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HexTextProblem {
    /// A word that is not two hexadecimal digits for each of its bytes.
    #[error("`{0}` is not a number of bytes in hexadecimal")]
    NotBytes(String),
    /// The offset at the start of the line is not the number of bytes before it: lines are missing.
    #[error("its offset is {found:#x}, expected {expected:#x}")]
    Offset {
        /// The offset.
        found: u64,
        /// The offset that follows from the lines before.
        expected: u64,
    },
    /// Some lines start with an offset, others do not.
    #[error("lines with and without an offset at their start")]
    Mixed,
    /// More bytes than permitted, by lines that stand for repeated ones.
    #[error("more than {limit} bytes")]
    TooLong {
        /// The number of bytes that is permitted.
        limit: usize,
    },
}

/// The bytes that `text` represents, at most `limit`. `None` if it is not text, but binary.
///
/// Recognised are hexadecimal digits with white space, commas and `0x` between bytes, as of `xxd -p`; and the output of `xxd` and of
/// `hexdump -C`, with or without its column of characters, and of `od -A x -t x1z`.
///
/// # Errors
/// Returns an error if it is text, but not hexadecimal.
///
/// ```
/// use ras_core::bytes_of_hex_text;
///
/// assert_eq!(bytes_of_hex_text(b"0x43 0x50\n4552\n", 16), Ok(Some(b"CPER".to_vec())));
/// assert_eq!(bytes_of_hex_text(b"00000000: 4350 4552  CPER\n", 16), Ok(Some(b"CPER".to_vec())));
/// assert_eq!(bytes_of_hex_text(b"CPER\x00\x01\xff\xff\xff\xff", 16), Ok(None));
/// assert_eq!(bytes_of_hex_text(b"4350 4x52", 16).unwrap_err().to_string(), "line 1: `4x52` is not a number of bytes in hexadecimal");
/// ```
pub fn bytes_of_hex_text(text: &[u8], limit: usize) -> Result<Option<Vec<u8>>, HexTextError> {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let is_text = text.iter().all(|byte| matches!(byte, b'\t' | b'\n' | b'\r' | b' '..=b'~'));
    let Some(text) = core::str::from_utf8(text).ok().filter(|_| is_text) else { return Ok(None) };
    let mut dump = Dump { bytes: Vec::new(), row: 0, base: None, repeats: false, limit };
    for (line, number) in text.lines().zip(1..) {
        dump.read(line.trim()).map_err(|problem| HexTextError { line: number, problem })?;
    }
    Ok(Some(dump.bytes))
}

/// The lines that were read.
struct Dump {
    bytes: Vec<u8>,
    /// Start of the last line in `bytes`.
    row: usize,
    /// Offset of the first line, if lines have offsets.
    base: Option<u64>,
    /// Whether the next offset follows lines that are the same as the last: `*`.
    repeats: bool,
    limit: usize,
}

impl Dump {
    fn read(&mut self, line: &str) -> Result<(), HexTextProblem> {
        if line.is_empty() {
            return Ok(());
        }
        if line == "*" && self.base.is_some() {
            self.repeats = true;
            return Ok(());
        }
        let (offset, words) = split(line, self.base.is_some());
        match (offset, self.base) {
            (Some(offset), Some(base)) => self.advance(base, offset)?,
            (Some(offset), None) if self.bytes.is_empty() => self.base = Some(offset),
            (None, None) => {}
            (Some(_), None) | (None, Some(_)) => return Err(HexTextProblem::Mixed),
        }
        self.row = self.bytes.len();
        let separators = |character: char| character.is_ascii_whitespace() || character == ',';
        for word in words.split(separators).filter(|word| !word.is_empty()) {
            self.append(word)?;
        }
        Ok(())
    }

    /// Repeats the last line up to `offset`, if it is to be repeated.
    fn advance(&mut self, base: u64, offset: u64) -> Result<(), HexTextProblem> {
        let expected = base.saturating_add(self.bytes.len() as u64);
        let repeats = core::mem::take(&mut self.repeats);
        if offset == expected {
            return Ok(());
        }
        let row = self.bytes.get(self.row..).unwrap_or_default().to_vec();
        let missing = offset.checked_sub(expected).filter(|missing| {
            let rows = missing.checked_rem(row.len() as u64);
            repeats && rows == Some(0)
        });
        let missing = missing.ok_or(HexTextProblem::Offset { found: offset, expected })?;
        if missing > (self.limit - self.bytes.len()) as u64 {
            return Err(HexTextProblem::TooLong { limit: self.limit });
        }
        self.bytes.extend(row.iter().cycle().take(missing as usize));
        Ok(())
    }

    fn append(&mut self, word: &str) -> Result<(), HexTextProblem> {
        let digits = word.strip_prefix("0x").or_else(|| word.strip_prefix("0X")).unwrap_or(word);
        let (pairs, odd) = digits.as_bytes().as_chunks::<2>();
        let is_bytes = !pairs.is_empty() && odd.is_empty() && is_hex(digits);
        if !is_bytes {
            return Err(HexTextProblem::NotBytes(word.chars().take(40).collect()));
        }
        if pairs.len() > self.limit - self.bytes.len() {
            return Err(HexTextProblem::TooLong { limit: self.limit });
        }
        self.bytes.extend(pairs.iter().map(|[high, low]| digit(*high) << 4 | digit(*low)));
        Ok(())
    }
}

/// The offset at the start of a line, if it has one, and its bytes, without their column of characters.
fn split(line: &str, others_have_offset: bool) -> (Option<u64>, &str) {
    let offset = |word: &str| u64::from_str_radix(word, 16).ok().filter(|_| is_hex(word));
    // xxd: an offset with a colon, and two spaces before the characters.
    if let Some((word, behind)) = line.split_once(':')
        && let Some(offset) = offset(word)
    {
        let behind = behind.trim_start();
        return (Some(offset), behind.split_once("  ").map_or(behind, |(bytes, _)| bytes));
    }
    // hexdump -C: two spaces, bytes of two digits, and the characters between bars; `od -A x -t x1z`: between angle brackets. The last
    // line of both is an offset alone.
    let (word, behind) = line.split_once(' ').unwrap_or((line, ""));
    let (bytes, has_characters) =
        behind.split_once(['|', '>']).map_or((behind, false), |(bytes, _)| (bytes, true));
    let is_dump = others_have_offset
        || has_characters
        || (word.len() >= 6
            && bytes.starts_with(' ')
            && bytes.split_whitespace().all(|byte| byte.len() == 2));
    match offset(word) {
        Some(offset) if is_dump => (Some(offset), bytes),
        _ => (None, line),
    }
}

fn is_hex(digits: &str) -> bool {
    digits.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The value of a hexadecimal digit.
fn digit(character: u8) -> u8 {
    char::from(character).to_digit(16).unwrap_or_default() as u8
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;
    use alloc::{format, vec};

    use super::*;

    fn read(text: &str) -> Result<Vec<u8>, String> {
        match bytes_of_hex_text(text.as_bytes(), 1 << 20) {
            Ok(bytes) => bytes.ok_or_else(|| "binary".to_string()),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn words_of_any_number_of_bytes() {
        for text in
            ["00 01 fe ff", "0001feff", "0x00, 0x01, 0xFE, 0xFF", "00\r\n\r\n01FE\tff\n", "0x0001 0xfeff"]
        {
            assert_eq!(read(text), Ok(vec![0, 1, 0xfe, 0xff]), "{text:?}");
        }
        assert_eq!(read("\n \n"), Ok(vec![]));
        assert_eq!(read("\u{feff}00"), Ok(vec![0]));
        for (text, word) in [("00 1", "1"), ("00 0x", "0x"), ("zz", "zz"), ("0x123", "0x123"), ("*", "*")] {
            assert_eq!(read(text), Err(format!("line 1: `{word}` is not a number of bytes in hexadecimal")));
        }
    }

    const XXD: &str = "\
        00000000: 4350 4552 2020 7c7c 3a3a 2a2a 0001 02ff  CPER  ||::**....\n\
        00000010: 2a                                       *\n";
    const HEXDUMP: &str = "\
        00000000  43 50 45 52 20 20 7c 7c  3a 3a 2a 2a 00 01 02 ff  |CPER  ||::**....|\n\
        00000010  2a                                                |*|\n\
        00000011\n";

    #[test]
    fn dumps_of_xxd_and_hexdump() {
        let expected = Ok(b"CPER  ||::**\x00\x01\x02\xff*".to_vec());
        assert_eq!(read(XXD), expected);
        assert_eq!(read(HEXDUMP), expected);
        let without_characters: String =
            HEXDUMP.lines().map(|line| format!("{}\n", line.split('|').next().unwrap_or_default())).collect();
        assert_eq!(read(&without_characters), expected);
    }

    #[test]
    fn a_dump_of_od() {
        let dump = "000000 43 50 45 52 3e 7c  >CPER>|<\n000006\n";
        assert_eq!(read(dump), Ok(b"CPER>|".to_vec()));
    }

    #[test]
    fn a_star_repeats_the_line_before_it() {
        let row = |byte: &str| format!("{} ", byte).repeat(16);
        let dump = format!("00000000  {}|x|\n*\n00000030  {}|y|\n*\n00000060\n", row("00"), row("11"));
        let expected = [[0; 0x30], [0x11; 0x30]].concat();
        assert_eq!(read(&dump), Ok(expected));
        let beyond = format!("00000000  {}|x|\n*\nfffffffffffffff0\n", row("00"));
        assert_eq!(read(&beyond), Err("line 3: more than 1048576 bytes".to_string()));
        let odd = format!("00000000  {}|x|\n*\n00000031\n", row("00"));
        assert_eq!(read(&odd), Err("line 3: its offset is 0x31, expected 0x10".to_string()));
    }

    #[test]
    fn missing_lines_are_an_error() {
        let gap = "00000010: 4350\n00000020: 4552\n";
        assert_eq!(read(gap), Err("line 2: its offset is 0x20, expected 0x12".to_string()));
        // The dump of a part of a file.
        assert_eq!(read("00000010: 4350\n00000012: 4552\n"), Ok(b"CPER".to_vec()));
        assert_eq!(
            read("00000010: 4350\n4552\n"),
            Err("line 2: its offset is 0x4552, expected 0x12".to_string())
        );
        let mixed = "lines with and without an offset at their start";
        assert_eq!(read("4350\n00000002: 4552\n"), Err(format!("line 2: {mixed}")));
        assert_eq!(read("00000010: 4350\nzz\n"), Err(format!("line 2: {mixed}")));
    }

    #[test]
    fn the_number_of_bytes_is_bounded() {
        assert_eq!(bytes_of_hex_text(b"00 01 02", 3), Ok(Some(vec![0, 1, 2])));
        let error = HexTextError { line: 2, problem: HexTextProblem::TooLong { limit: 3 } };
        assert_eq!(bytes_of_hex_text(b"00 01 02\n0304", 3), Err(error));
    }

    #[test]
    fn other_bytes_are_binary() {
        for binary in [&b"CPER\x00"[..], b"\xff\xff", b"\x1b[0m", "é".as_bytes()] {
            assert_eq!(bytes_of_hex_text(binary, 16), Ok(None));
        }
    }
}
