//! The log on standard error.

use std::io::{self, IsTerminal};

use clap::ValueEnum;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, fmt, registry};
use vmm::log_limit::LogLimit;
use vmm::stderr::{Format, LogWriter};

/// The format of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// Plain text.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

impl From<LogFormat> for Format {
    fn from(format: LogFormat) -> Self {
        match format {
            LogFormat::Text => Format::Text,
            LogFormat::Json => Format::Json,
        }
    }
}

/// Whether standard error shows colours: if it is a terminal and `NO_COLOR` is not set.
pub(super) fn has_colours() -> bool {
    io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Starts logging: warnings, with `-v` also info, with `-vv` also debug, with `-vvv` also trace. The environment variable
/// `RUST_LOG` overrides the level and can set it per module.
pub(super) fn start(verbose: u8, format: LogFormat) {
    let level = match verbose {
        0 => "warn",
        1 => "info",
        2 => "debug",
        _ => "trace",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    // tracing_subscriber would report its own errors with eprintln!, which panics if standard error fails.
    let lines = fmt::layer().with_writer(LogWriter).with_ansi(has_colours()).log_internal_errors(false);
    let lines = match format {
        LogFormat::Text => lines.without_time().boxed(),
        LogFormat::Json => lines.json().boxed(),
    };
    registry().with(lines).with(LogLimit).with(filter).init();
}
