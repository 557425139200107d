//! `ghest ctl`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use ras_core::Kind;
use vmm::control::{Request, call};
use vmm::ras::inject::{InjectionRequest, Via, address, log2_span};
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
    /// Lose memory of its guest.
    Inject {
        /// A guest physical address in what is lost: decimal, or hexadecimal after 0x.
        #[arg(long, value_parser = gpa)]
        gpa: u64,
        /// What kind of error.
        #[arg(long, value_enum)]
        kind: InjectedKind,
        /// How it is lost.
        #[arg(long, value_enum, default_value = "simulate")]
        via: InjectedVia,
        /// Bytes that are lost: a power of two from 4KiB to 1GiB.
        #[arg(long, value_parser = span, default_value = "4KiB")]
        span: u8,
    },
    /// Print what was lost so far.
    Ledger,
    /// Print how often each event happened, and how much is lost.
    Metrics,
    /// Print where guest memory is in its process.
    MemoryMap,
    /// Start it again from its profile.
    Reset,
    /// Stop it.
    Stop,
}

/// A kind of error.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum InjectedKind {
    /// Action required: the next vCPU that touches it consumes it.
    Ar,
    /// Action optional: found, and not consumed by anyone yet.
    Ao,
}

/// How memory is lost.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum InjectedVia {
    /// It is taken from the guest, and signals are raised as the host would raise them; works on any host.
    Simulate,
    /// The host's kernel is told that it is broken; needs its memory failure handling, and CAP_SYS_ADMIN.
    Madvise,
    /// Nothing is lost: the guest is told so (with `--kind ao`).
    Notice,
}

impl From<InjectedKind> for Kind {
    fn from(kind: InjectedKind) -> Self {
        match kind {
            InjectedKind::Ar => Kind::ActionRequired,
            InjectedKind::Ao => Kind::ActionOptional,
        }
    }
}

impl From<InjectedVia> for Via {
    fn from(via: InjectedVia) -> Self {
        match via {
            InjectedVia::Simulate => Via::Simulate,
            InjectedVia::Madvise => Via::Madvise,
            InjectedVia::Notice => Via::Notice,
        }
    }
}

fn gpa(text: &str) -> Result<u64, String> {
    address(text).ok_or_else(|| "an address is decimal, or hexadecimal after 0x".into())
}

/// The base-two logarithm of a span.
fn span(text: &str) -> Result<u8, String> {
    log2_span(text).ok_or_else(|| "a span is a power of two from 4KiB to 1GiB".into())
}

pub(super) fn run(options: &Options) -> Status {
    let request = match options.request {
        Word::Status => Request::Status,
        Word::Pause => Request::Pause,
        Word::Resume => Request::Resume,
        Word::PowerButton => Request::PowerButton,
        Word::Inject { gpa, kind, via, span } => {
            Request::Inject(InjectionRequest { gpa, log2_len: span, kind: kind.into(), via: via.into() })
        }
        Word::Ledger => Request::Ledger,
        Word::Metrics => Request::Metrics,
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
