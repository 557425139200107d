//! An error record to inject: any status block, CPER record or section.

use std::fs::File;
use std::io::{Read, stdin};
use std::num::NonZeroU32;
use std::time::Duration;

use clap::Args;
use ras_core::bytes_of_hex_text;
use schemars::JsonSchema;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::parse_time;

/// The longest record, in bytes: several times what a status block has.
const MAX_LEN: usize = 16 << 10;

/// An error record to inject: in JSON, and as options of `ghest ctl SOCKET inject`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, Args)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct RecordRequest {
    /// The status block, CPER record or section, in hexadecimal.
    #[schemars(with = "String")]
    #[arg(
        long,
        value_name = "FILE",
        value_parser = record,
        help = "A file with the status block, CPER record or section, in binary or in hexadecimal; `-` is standard input"
    )]
    pub record: RecordBytes,
    /// The error source into whose status block it is written.
    #[arg(
        long,
        value_name = "SOURCE",
        value_parser = source,
        help = "The error source into whose status block it is written, and by which the guest is notified: its number in the plan, \
                `corrected` or `fatal`"
    )]
    pub source: RecordSource,
    /// Write it also if Linux would refuse it.
    #[serde(default)]
    #[arg(long)]
    pub force: bool,
    /// Inject it that number of times.
    // Of the client, as is the interval: it sends the request again.
    #[serde(skip)]
    #[arg(long, value_name = "N")]
    pub repeat: Option<NonZeroU32>,
    /// Wait between the times.
    #[serde(skip)]
    #[arg(long, value_name = "TIME", value_parser = interval, requires = "repeat")]
    pub interval: Option<Duration>,
}

/// The bytes of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordBytes(pub Vec<u8>);

/// An error source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "`source` is the number of an error source, `corrected` or `fatal`")]
pub enum RecordSource {
    /// The one with this number.
    Id(u16),
    /// The one for a kind of errors.
    Named(NamedSource),
}

/// An error source that is for one kind of errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum NamedSource {
    /// The source of corrected errors.
    Corrected,
    /// The source of fatal errors.
    Fatal,
}

impl Serialize for RecordBytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let digits: String = self.0.iter().map(|byte| format!("{byte:02x}")).collect();
        serializer.serialize_str(&digits)
    }
}

impl<'de> Deserialize<'de> for RecordBytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match bytes_of_hex_text(text.as_bytes(), MAX_LEN) {
            Ok(Some(bytes)) => Ok(RecordBytes(bytes)),
            Ok(None) => Err(D::Error::custom("`record` is not hexadecimal")),
            Err(error) => Err(D::Error::custom(format_args!("`record` is not hexadecimal: {error}"))),
        }
    }
}

/// Reads the file of a record.
fn record(path: &str) -> Result<RecordBytes, String> {
    // As text, each byte has two digits, and what is between them.
    const MAX_FILE_LEN: u64 = 16 * MAX_LEN as u64;
    let mut bytes = Vec::new();
    let read = match path {
        "-" => stdin().lock().take(MAX_FILE_LEN).read_to_end(&mut bytes),
        path => File::open(path)
            .map_err(|error| format!("open(2): {error}"))?
            .take(MAX_FILE_LEN)
            .read_to_end(&mut bytes),
    };
    read.map_err(|error| format!("read(2): {error}"))?;
    let text = bytes_of_hex_text(&bytes, MAX_LEN)
        .map_err(|error| format!("it is text, but not hexadecimal: {error}"))?;
    let bytes = text.unwrap_or(bytes);
    match bytes.len() {
        0 => Err("it is empty".into()),
        1..=MAX_LEN => Ok(RecordBytes(bytes)),
        _ => Err(format!("it has more than {MAX_LEN} bytes, the maximum")),
    }
}

fn source(text: &str) -> Result<RecordSource, String> {
    match text {
        "corrected" => Ok(RecordSource::Named(NamedSource::Corrected)),
        "fatal" => Ok(RecordSource::Named(NamedSource::Fatal)),
        number => number
            .parse()
            .map(RecordSource::Id)
            .map_err(|_| "expected the number of an error source, `corrected` or `fatal`".into()),
    }
}

fn interval(text: &str) -> Result<Duration, String> {
    parse_time(text).ok_or_else(|| "expected a whole number of ms or s, for example `100ms`".into())
}
