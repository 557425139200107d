//! The log on standard error.

use std::io::{self, IsTerminal};

use clap::ValueEnum;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt, registry};
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

/// Overrides the level, and can set it per module: `ghest=info,devices=trace`.
const VARIABLE: &str = "RUST_LOG";

/// Starts logging: warnings, with `-v` also info, with `-vv` also debug, with `-vvv` also trace, or what [`VARIABLE`] says.
pub(super) fn start(verbose: u8, format: LogFormat) {
    let level = match verbose {
        0 => LevelFilter::WARN,
        1 => LevelFilter::INFO,
        2 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    let directives = std::env::var(VARIABLE).ok().filter(|text| !text.is_empty());
    let parsed = directives.as_deref().map(str::parse::<Targets>).transpose();
    let invalid = parsed.as_ref().err().map(ToString::to_string);
    let filter = parsed.ok().flatten().unwrap_or_else(|| Targets::new().with_default(level));
    // tracing_subscriber would report its own errors with eprintln!, which panics if standard error fails.
    let lines = fmt::layer().with_writer(LogWriter).with_ansi(has_colours()).log_internal_errors(false);
    let lines = match format {
        LogFormat::Text => lines.without_time().boxed(),
        LogFormat::Json => lines.json().boxed(),
    };
    registry().with(lines).with(LogLimit).with(filter).init();
    if let Some(error) = invalid {
        tracing::warn!(%error, "{VARIABLE} is ignored: expected are levels, or MODULE=LEVEL, with commas between them");
    }
}
