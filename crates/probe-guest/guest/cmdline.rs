//! The command line: requests to the guest.

/// How the guest ends after its report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Power-off, as the tables describe it.
    PowerOff,
    /// `probe.exit=reset`: reset, as the tables describe it.
    Reset,
    /// `probe.exit=triple-fault`.
    #[cfg(target_arch = "x86_64")]
    TripleFault,
    /// `probe.exit=i8042`: the keyboard controller's reset line.
    #[cfg(target_arch = "x86_64")]
    KeyboardController,
    /// `probe.exit=hang`: halts with interrupts off.
    Hang,
    /// `probe.exit=loop`: loops without end.
    Loop,
    /// `probe.exit=power-button`: power-off when the power button is pressed.
    PowerButton,
}

/// How a word of memory is accessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// `probe.touch`.
    Load,
    /// `probe.store`.
    Store,
    /// `probe.fetch`: executes a return instruction that is written there first.
    Fetch,
}

/// A word of memory to be touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Touch {
    pub(crate) access: Access,
    pub(crate) gpa: u64,
}

/// An error to inject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Injection {
    pub(crate) gpa: u64,
    /// `probe.inject-type`: a bit of EINJ.
    pub(crate) error_type: u32,
    /// `probe.inject`: it is triggered; `probe.inject-only`: it waits until the page is accessed.
    pub(crate) is_triggered: bool,
}

/// Memory Uncorrectable non-fatal.
const MEMORY_UNCORRECTABLE: u32 = 1 << 4;

/// Maximum number of words that are touched.
pub(crate) const MAX_TOUCHES: usize = 8;

/// The requests on a command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Requests {
    pub(crate) exit: Exit,
    /// `probe.echo`: repeat lines from the console until one says `quit`.
    pub(crate) echo: bool,
    /// Of the page at `gpa`, if one is requested.
    injection: Injection,
    touches: [Option<Touch>; MAX_TOUCHES],
    /// `probe.touch-on`: index of the processor that touches them, in table order.
    pub(crate) touch_on: u32,
    /// `probe.await-errors`: number of page reports to wait for.
    pub(crate) await_errors: u32,
    /// `probe.timeout`: milliseconds after which a wait for an error ends.
    pub(crate) timeout_ms: u32,
}

impl Requests {
    /// The requests of an empty command line.
    pub(crate) const NONE: Self = Requests {
        exit: Exit::PowerOff,
        echo: false,
        injection: Injection { gpa: 0, error_type: MEMORY_UNCORRECTABLE, is_triggered: true },
        touches: [None; MAX_TOUCHES],
        touch_on: 0,
        await_errors: 0,
        timeout_ms: 3000,
    };

    /// Parses a command line. Of several requests of one kind the last one counts, except for words to touch. Unknown words are
    /// ignored.
    pub(crate) fn parse(cmdline: &[u8]) -> Self {
        let mut requests = Self::NONE;
        for word in cmdline.split(u8::is_ascii_whitespace) {
            match word {
                b"probe.exit=reset" => requests.exit = Exit::Reset,
                #[cfg(target_arch = "x86_64")]
                b"probe.exit=triple-fault" => requests.exit = Exit::TripleFault,
                #[cfg(target_arch = "x86_64")]
                b"probe.exit=i8042" => requests.exit = Exit::KeyboardController,
                b"probe.exit=hang" => requests.exit = Exit::Hang,
                b"probe.exit=loop" => requests.exit = Exit::Loop,
                b"probe.exit=power-button" => requests.exit = Exit::PowerButton,
                b"probe.echo" => requests.echo = true,
                _ => requests.parse_number(word),
            }
        }
        requests
    }

    /// The error to inject. `None` if there is none.
    pub(crate) fn injection(&self) -> Option<&Injection> {
        (self.injection.gpa != 0).then_some(&self.injection)
    }

    /// The words of memory to be touched, in the order of the command line.
    pub(crate) fn touches(&self) -> impl Iterator<Item = &Touch> {
        self.touches.iter().flatten()
    }

    /// Parses a request of the form `key=number`.
    fn parse_number(&mut self, word: &[u8]) {
        let Some(equals) = word.iter().position(|byte| *byte == b'=') else { return };
        let (key, value) = word.split_at(equals);
        let Some(value) = value.get(1..).and_then(number) else { return };
        match (key, u32::try_from(value)) {
            (b"probe.touch", _) => self.add(Access::Load, value),
            (b"probe.store", _) => self.add(Access::Store, value),
            (b"probe.fetch", _) => self.add(Access::Fetch, value),
            (b"probe.inject" | b"probe.inject-only", _) => {
                self.injection.gpa = value;
                self.injection.is_triggered = key == b"probe.inject";
            }
            (b"probe.inject-type", Ok(value)) => self.injection.error_type = value,
            (b"probe.touch-on", Ok(value)) => self.touch_on = value,
            (b"probe.await-errors", Ok(value)) => self.await_errors = value,
            (b"probe.timeout", Ok(value)) => self.timeout_ms = value,
            _ => {}
        }
    }

    fn add(&mut self, access: Access, gpa: u64) {
        if let Some(slot) = self.touches.iter_mut().find(|slot| slot.is_none()) {
            *slot = Some(Touch { access, gpa });
        }
    }
}

/// Decimal, or hexadecimal after `0x`.
fn number(text: &[u8]) -> Option<u64> {
    let (digits, base) = match text {
        [b'0', b'x', digits @ ..] => (digits, 16),
        digits => (digits, 10),
    };
    let value = |digit: u8| match digit {
        b'0'..=b'9' => Some(u64::from(digit - b'0')),
        b'a'..=b'f' if base == 16 => Some(u64::from(digit - b'a') + 10),
        b'A'..=b'F' if base == 16 => Some(u64::from(digit - b'A') + 10),
        _ => None,
    };
    let add = |sum: u64, digit: &u8| sum.checked_mul(base)?.checked_add(value(*digit)?);
    (!digits.is_empty()).then(|| digits.iter().try_fold(0, add))?
}
