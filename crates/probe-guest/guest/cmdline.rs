//! What the command line asks of the guest.

/// How the guest ends once its report is out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Through the tables' way of switching off.
    PowerOff,
    /// `probe.exit=reset`: through the tables' way of resetting.
    Reset,
    /// `probe.exit=triple-fault`.
    #[cfg(target_arch = "x86_64")]
    TripleFault,
    /// `probe.exit=i8042`: the keyboard controller's reset line.
    #[cfg(target_arch = "x86_64")]
    KeyboardController,
    /// `probe.exit=hang`: halts with interrupts off.
    Hang,
    /// `probe.exit=loop`: stays busy for ever.
    Loop,
}

/// The words that were understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wishes {
    pub(crate) exit: Exit,
    /// `probe.echo`: repeat lines from the console until one says `quit`.
    pub(crate) echo: bool,
}

impl Wishes {
    /// Of several wishes for the same thing the last counts; other words are for others.
    pub(crate) fn parse(cmdline: &[u8]) -> Self {
        let mut wishes = Wishes { exit: Exit::PowerOff, echo: false };
        for word in cmdline.split(u8::is_ascii_whitespace) {
            match word {
                b"probe.exit=reset" => wishes.exit = Exit::Reset,
                #[cfg(target_arch = "x86_64")]
                b"probe.exit=triple-fault" => wishes.exit = Exit::TripleFault,
                #[cfg(target_arch = "x86_64")]
                b"probe.exit=i8042" => wishes.exit = Exit::KeyboardController,
                b"probe.exit=hang" => wishes.exit = Exit::Hang,
                b"probe.exit=loop" => wishes.exit = Exit::Loop,
                b"probe.echo" => wishes.echo = true,
                _ => {}
            }
        }
        wishes
    }
}
