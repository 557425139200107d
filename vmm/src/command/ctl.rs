//! `ghest ctl`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use machine_profile::printable::escaped_json;
use ras_core::Kind;
use vmm::control::{Request, send_request};
use vmm::ras::inject::{InjectionMethod, InjectionRequest, parse_log2_span, parse_number, parse_time};
use vmm::status::Status;

use super::output;

#[derive(Args, Debug)]
pub(super) struct Options {
    /// The machine's control socket.
    #[arg(value_name = "SOCKET")]
    socket: PathBuf,
    /// How long to wait for the machine's response: it can take the machine half a minute to pause.
    #[arg(long, value_name = "TIME", value_parser = timeout, default_value = "60s")]
    timeout: Duration,
    #[command(subcommand)]
    command: ControlCommand,
}

/// A request, on the command line.
#[derive(Clone, Copy, Debug, Subcommand)]
enum ControlCommand {
    /// Print the machine's name and state.
    Status,
    /// Pause its vCPUs.
    Pause,
    /// Resume its vCPUs.
    Resume,
    /// Press its power button.
    PowerButton,
    /// Inject a memory error.
    Inject {
        /// Any guest physical address in the span: decimal, or hexadecimal after 0x.
        #[arg(long, value_parser = gpa)]
        gpa: u64,
        /// The kind of error.
        #[arg(long, value_enum)]
        kind: KindName,
        /// How the memory is poisoned.
        #[arg(long = "via", value_name = "VIA", value_enum, default_value = "simulate")]
        method: MethodName,
        /// Size of the poisoned memory: a power of two from 4KiB to 1GiB.
        #[arg(long, value_parser = span, default_value = "4KiB")]
        span: u8,
    },
    /// Print the ledger of poisoned pages.
    Ledger,
    /// Print counters: how often each event happened, and how much memory is poisoned.
    Metrics,
    /// Print where guest memory is mapped in its process.
    MemoryMap,
    /// Reset it: it boots again from its profile.
    Reset,
    /// Stop it.
    Stop,
}

/// A kind of error.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum KindName {
    /// Action required: the next vCPU that accesses the page consumes the error.
    Ar,
    /// Action optional: the error is detected, no vCPU has consumed it.
    Ao,
}

/// How memory is poisoned.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum MethodName {
    /// Remove the pages from the guest's memslots and raise signals as the host's kernel would. Works on any host. On x86_64 a
    /// store to the pages is reported and dropped.
    Simulate,
    /// Let the host's kernel poison the pages: madvise(MADV_HWPOISON). Needs CONFIG_MEMORY_FAILURE and CAP_SYS_ADMIN.
    Madvise,
    /// Poison no page, only report the error to the guest. With `--kind ao` only.
    Notice,
}

impl From<KindName> for Kind {
    fn from(kind: KindName) -> Self {
        match kind {
            KindName::Ar => Kind::ActionRequired,
            KindName::Ao => Kind::ActionOptional,
        }
    }
}

impl From<MethodName> for InjectionMethod {
    fn from(method: MethodName) -> Self {
        match method {
            MethodName::Simulate => InjectionMethod::Simulate,
            MethodName::Madvise => InjectionMethod::Madvise,
            MethodName::Notice => InjectionMethod::Notice,
        }
    }
}

fn gpa(text: &str) -> Result<u64, String> {
    parse_number(text).ok_or_else(|| "expected an address: decimal, or hexadecimal after 0x".into())
}

/// The base-two logarithm of a span.
fn span(text: &str) -> Result<u8, String> {
    parse_log2_span(text).ok_or_else(|| "expected a power of two from 4KiB to 1GiB".into())
}

fn timeout(text: &str) -> Result<Duration, String> {
    let time = parse_time(text).filter(|time| !time.is_zero());
    time.ok_or_else(|| "expected a whole number of ms or s, for example `5s`".into())
}

pub(super) fn run(options: &Options) -> Status {
    let request = match options.command {
        ControlCommand::Status => Request::Status,
        ControlCommand::Pause => Request::Pause,
        ControlCommand::Resume => Request::Resume,
        ControlCommand::PowerButton => Request::PowerButton,
        ControlCommand::Inject { gpa, kind, method, span } => Request::Inject(InjectionRequest {
            gpa,
            log2_len: span,
            kind: kind.into(),
            method: method.into(),
        }),
        ControlCommand::Ledger => Request::Ledger,
        ControlCommand::Metrics => Request::Metrics,
        ControlCommand::MemoryMap => Request::MemoryMap,
        ControlCommand::Reset => Request::Reset,
        ControlCommand::Stop => Request::Stop,
    };
    match send_request(&options.socket, request, options.timeout) {
        Ok(response) => {
            let printed = output::print(&format!("{}\n", escaped_json(&response.to_string())));
            if response["ok"] == true { printed } else { Status::Failure }
        }
        Err(error) => output::report(&format!("{}: {error}", options.socket.display()), Status::Failure),
    }
}
