//! The kernel's command line: what a machine adds to that of its profile, and how long it may be.

use std::fmt;

/// The kernel's command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandLine {
    /// All of it.
    pub text: String,
    /// Number of devices that it describes, because the machine's tables cannot.
    pub devices: usize,
    /// Bytes that describe them.
    pub added: usize,
}

impl CommandLine {
    /// The command line of a profile, and parameters that describe devices.
    ///
    /// Linux hands what follows the word `--` to init, so the parameters are inserted before it.
    #[must_use]
    pub fn new(profile: &str, devices: &[String]) -> Self {
        if devices.is_empty() {
            return CommandLine { text: profile.to_owned(), devices: 0, added: 0 };
        }
        let (before, after) = profile.split_at(end_of_parameters(profile));
        let words = [before.trim_end_matches(' ')]
            .into_iter()
            .chain(devices.iter().map(String::as_str))
            .chain([after]);
        let text = words.filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
        let added = text.len().saturating_sub(profile.len());
        CommandLine { text, devices: devices.len(), added }
    }

    /// Compares the length with what a kernel takes.
    ///
    /// # Errors
    /// Returns an error if it is too long.
    pub(crate) fn check(&self, max: CommandLineMax) -> Result<(), CommandLineError> {
        let len = self.text.len();
        let CommandLine { devices, added, .. } = *self;
        if len > max.bytes() { Err(CommandLineError { len, devices, added, max }) } else { Ok(()) }
    }
}

/// Where further parameters for the kernel can be inserted: before the first word that Linux takes for `--`, or at the end.
/// Inside a quotation that is never closed there are no words: that is, before it.
///
/// As Linux, lib/cmdline.c, `next_arg`: blanks separate words except between double quotes, and quotes around a word are
/// removed.
fn end_of_parameters(line: &str) -> usize {
    // The kernel's isspace() includes a0, which is a part of characters in UTF-8.
    let is_blank = |byte: u8| matches!(byte, b' ' | 9..=13 | 0xa0);
    let bytes = line.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        if is_blank(bytes[at]) {
            at += 1;
            continue;
        }
        let mut quoted = false;
        let ends_word = |&byte: &u8| {
            quoted ^= byte == b'"';
            is_blank(byte) && !quoted
        };
        let len = bytes[at..].iter().position(ends_word).unwrap_or(bytes.len() - at);
        if quoted || matches!(&bytes[at..at + len], b"--" | b"\"--\"") {
            // The kernel may see a blank inside a character.
            return (0..=at).rev().find(|at| line.is_char_boundary(*at)).unwrap_or_default();
        }
        at += len;
    }
    bytes.len()
}

/// The longest command line that a kernel takes, in bytes, without the terminating NUL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandLineMax {
    /// What its file says: `cmdline_size` in the setup header of a bzImage.
    Header(usize),
    /// What Linux takes, of a file that does not say it.
    Linux,
}

impl CommandLineMax {
    /// The maximum.
    #[must_use]
    pub const fn bytes(self) -> usize {
        match self {
            CommandLineMax::Header(bytes) => bytes,
            // COMMAND_LINE_SIZE in arch/x86/include/asm/setup.h and arch/arm64/include/uapi/asm/setup.h, with the NUL.
            CommandLineMax::Linux => 2048 - 1,
        }
    }
}

/// The command line is longer than what the kernel takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommandLineError {
    len: usize,
    devices: usize,
    added: usize,
    max: CommandLineMax,
}

impl CommandLineError {
    /// What the user can do about it.
    pub(crate) const fn remedy(&self) -> &'static str {
        if self.added > 0 {
            "shorten it, remove devices, or use `firmware = \"acpi\"`, whose tables describe the devices"
        } else {
            "shorten it"
        }
    }
}

impl std::error::Error for CommandLineError {}

impl fmt::Display for CommandLineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let CommandLineError { len, devices, added, max } = *self;
        write!(f, "the command line has {len} bytes, ")?;
        if added > 0 {
            let plural = if devices == 1 { "" } else { "s" };
            write!(f, "of which {added} describe {devices} device{plural}, ")?;
        }
        let bytes = max.bytes();
        match max {
            CommandLineMax::Header(_) => {
                write!(f, "and the kernel takes {bytes} (cmdline_size in its setup header)")
            }
            CommandLineMax::Linux => write!(f, "and Linux takes {bytes}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(profile: &str) -> String {
        CommandLine::new(profile, &["a=1".to_owned(), "a=2".to_owned()]).text
    }

    #[test]
    fn parameters_are_before_the_arguments_of_init() {
        for (profile, whole) in [
            ("", "a=1 a=2"),
            ("quiet", "quiet a=1 a=2"),
            ("quiet -- single", "quiet a=1 a=2 -- single"),
            ("-- single", "a=1 a=2 -- single"),
            ("quiet --", "quiet a=1 a=2 --"),
            ("quiet\t--\tsingle", "quiet\t a=1 a=2 --\tsingle"),
            ("quiet \"--\" single", "quiet a=1 a=2 \"--\" single"),
            ("a -- b -- c", "a a=1 a=2 -- b -- c"),
            // None of these is the word `--`.
            ("x=\"1 -- 2\" y", "x=\"1 -- 2\" y a=1 a=2"),
            ("--x -- y", "--x a=1 a=2 -- y"),
            ("--=1 x--", "--=1 x-- a=1 a=2"),
            // A quotation that is never closed.
            ("quiet x=\"1 2", "quiet a=1 a=2 x=\"1 2"),
            ("x\u{a0}-- y", "x\u{a0} a=1 a=2 -- y"),
            ("x\u{1800}\"1 2", "x a=1 a=2 \u{1800}\"1 2"),
        ] {
            assert_eq!(line(profile), whole, "{profile}");
        }
    }

    #[test]
    fn without_devices_the_line_is_that_of_the_profile() {
        for profile in ["", " quiet  -- single ", "x"] {
            let line = CommandLine::new(profile, &[]);
            assert_eq!((line.text.as_str(), line.added), (profile, 0));
        }
    }

    #[test]
    fn a_line_that_is_too_long_is_an_error_with_numbers() {
        let line = CommandLine::new(&"x".repeat(2040), &["a=1".to_owned(), "a=2".to_owned()]);
        assert_eq!((line.text.len(), line.added), (2048, 8));
        let error = line.check(CommandLineMax::Linux).expect_err("too long").to_string();
        assert_eq!(
            error,
            "the command line has 2048 bytes, of which 8 describe 2 devices, and Linux takes 2047"
        );
        assert_eq!(line.check(CommandLineMax::Header(2048)), Ok(()));
        let error = CommandLine::new("quiet", &[]).check(CommandLineMax::Header(4)).expect_err("too long");
        assert_eq!(
            error.to_string(),
            "the command line has 5 bytes, and the kernel takes 4 (cmdline_size in its setup header)"
        );
    }
}
