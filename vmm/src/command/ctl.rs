//! `ghest ctl`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use vmm::control::{Request, call};
use vmm::status::Status;

use super::output;

#[derive(Args, Debug)]
pub(super) struct Options {
    /// The machine's control socket.
    #[arg(value_name = "SOCKET")]
    socket: PathBuf,
    #[command(subcommand)]
    request: Word,
}

/// A request, as words.
#[derive(Clone, Copy, Debug, Subcommand)]
enum Word {
    /// Print its name and state.
    Status,
    /// Take its vCPUs out of the guest.
    Pause,
    /// Let them go on.
    Resume,
    /// Press its power button.
    PowerButton,
    /// Tell its guest of a memory error, without one: the page stays as it is.
    Inject {
        /// A guest physical address in what was lost: decimal, or hexadecimal after 0x.
        #[arg(long, value_parser = address)]
        gpa: u64,
        /// What kind of error.
        #[arg(long, value_enum)]
        kind: InjectedKind,
        /// Bytes that were lost, as a power of two from 4096 to 1 GiB.
        #[arg(long, value_parser = span, default_value = "4096")]
        span: u8,
    },
    /// Print what was lost so far.
    Ledger,
    /// Print where guest memory is in its process.
    MemoryMap,
    /// Start it again from its profile.
    Reset,
    /// Stop it.
    Stop,
}

/// A kind of error that can be told without one.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum InjectedKind {
    /// Action optional: found, and not consumed by anyone.
    Ao,
}

fn address(text: &str) -> Result<u64, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.map_err(|error| error.to_string())
}

/// The base-two logarithm of a span.
fn span(text: &str) -> Result<u8, String> {
    let bytes = address(text)?;
    let log2_len = bytes.trailing_zeros() as u8;
    if bytes.is_power_of_two() && (12..=30).contains(&log2_len) {
        Ok(log2_len)
    } else {
        Err("a span is a power of two from 4096 to 1073741824".into())
    }
}

pub(super) fn run(options: &Options) -> Status {
    let request = match options.request {
        Word::Status => Request::Status,
        Word::Pause => Request::Pause,
        Word::Resume => Request::Resume,
        Word::PowerButton => Request::PowerButton,
        Word::Inject { gpa, kind: InjectedKind::Ao, span } => Request::Inject { gpa, log2_len: span },
        Word::Ledger => Request::Ledger,
        Word::MemoryMap => Request::MemoryMap,
        Word::Reset => Request::Reset,
        Word::Stop => Request::Stop,
    };
    match call(&options.socket, request) {
        Ok(answer) => {
            let printed = output::print(&format!("{answer}\n"));
            if answer["ok"] == true { printed } else { Status::Failure }
        }
        Err(error) => output::say(&format!("{}: {error}", options.socket.display()), Status::Failure),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_spans_are_read() {
        assert_eq!(
            (address("0x4000_0000").is_err(), address("0x40000000"), address("4096")),
            (true, Ok(1 << 30), Ok(4096))
        );
        assert_eq!((span("4096"), span("0x200000")), (Ok(12), Ok(21)));
        assert!(span("0").is_err() && span("2048").is_err() && span("4097").is_err());
    }
}
