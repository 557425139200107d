//! One memory error to inject.

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{Args, ValueEnum};
use ras_core::{Kind, Span};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};

use super::{parse_log2_span, parse_number};

/// Why a kind of error cannot be injected so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Contradiction {
    /// `notice` poisons nothing, so nothing can be consumed.
    #[error("the method `notice` poisons no memory, so no vCPU can consume it: use kind `ao`")]
    ConsumedNotice,
    /// `madvise` poisons.
    #[error(
        "the method `madvise` poisons memory, and a corrected error (`ce`) poisons none: leave the method out"
    )]
    PoisonedCorrected,
    /// A corrected error is within one page.
    #[error("a corrected error (`ce`) is within one page: leave the span out")]
    WideCorrected,
}

/// A memory error to inject: in JSON, and as options of `ghest ctl SOCKET inject`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, Args)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct InjectionRequest {
    /// Any guest physical address in the span.
    #[arg(long, value_parser = gpa, help = "Any guest physical address in the span: decimal, or hexadecimal after 0x")]
    pub gpa: u64,
    /// Base-two logarithm of the size of the poisoned memory in bytes.
    #[serde(deserialize_with = "log2_len")]
    #[schemars(range(min = 12, max = 30))]
    #[arg(
        long = "span",
        value_name = "SPAN",
        value_parser = span,
        default_value = "4KiB",
        help = "Size of the poisoned memory: a power of two from 4KiB to 1GiB"
    )]
    pub log2_len: u8,
    /// The kind of error.
    #[schemars(schema_with = "kind_schema")]
    #[arg(long, value_parser = kinds())]
    pub kind: Kind,
    /// How the memory is poisoned.
    #[serde(rename = "via")]
    #[arg(long = "via", value_name = "VIA", value_enum, default_value = "simulate")]
    pub method: InjectionMethod,
}

impl InjectionRequest {
    /// The pages to poison.
    #[must_use]
    pub const fn span(&self) -> Span {
        Span::around(self.gpa, self.log2_len)
    }

    /// Why no such error can be injected into any machine. `None` if it can.
    #[must_use]
    pub fn contradiction(&self) -> Option<Contradiction> {
        match (self.kind, self.method) {
            (Kind::ActionRequired, InjectionMethod::Notice) => Some(Contradiction::ConsumedNotice),
            (Kind::Corrected, InjectionMethod::Madvise) => Some(Contradiction::PoisonedCorrected),
            (Kind::Corrected, _) if self.log2_len != *LOG2_LENS.start() => Some(Contradiction::WideCorrected),
            _ => None,
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

/// The kinds of errors, with their names on the command line, in JSON and in the documentation.
const KINDS: [(Kind, &str, &str, &str); 3] = [
    (
        Kind::ActionRequired,
        "ar",
        "AR",
        "Action required: the next vCPU that accesses the page consumes the error",
    ),
    (Kind::ActionOptional, "ao", "AO", "Action optional: the error is detected, no vCPU has consumed it"),
    (
        Kind::Corrected,
        "ce",
        "CE",
        "Corrected: no memory is poisoned, and the error is reported by the source of corrected errors",
    ),
];

fn kinds() -> impl TypedValueParser<Value = Kind> {
    let values = KINDS.map(|(_, word, _, help)| PossibleValue::new(word).help(help));
    PossibleValuesParser::new(values).map(|word| {
        let named = KINDS.into_iter().find(|(_, known, ..)| *known == word);
        named.map_or(Kind::ActionRequired, |(kind, ..)| kind)
    })
}

fn kind_schema(_: &mut SchemaGenerator) -> Schema {
    let kinds = KINDS.map(|(_, _, name, help)| serde_json::json!({ "const": name, "description": help }));
    json_schema!({ "type": "string", "oneOf": kinds })
}

fn log2_len<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u8, D::Error> {
    let log2_len = u64::deserialize(deserializer)?;
    u8::try_from(log2_len)
        .ok()
        .filter(|log2_len| LOG2_LENS.contains(log2_len))
        .ok_or_else(|| D::Error::custom(format_args!("`log2-len` is {log2_len}: expected 12 to 30")))
}

/// Base-two logarithms of the spans that can be poisoned.
pub(super) const LOG2_LENS: std::ops::RangeInclusive<u8> = 12..=30;

/// How memory is poisoned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum InjectionMethod {
    /// Remove the pages from the guest's memslots and raise signals as the host's kernel would. Works on any host. On x86_64 a
    /// store to the pages is reported and dropped. A corrected error removes nothing, and is reported.
    #[default]
    Simulate,
    /// Let the host's kernel poison the pages: madvise(MADV_HWPOISON). Needs CONFIG_MEMORY_FAILURE and CAP_SYS_ADMIN.
    Madvise,
    /// Poison no page, only report the error to the guest. With kind AO only.
    Notice,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_json_of_a_request_is_that_of_the_control_socket() {
        let request = InjectionRequest {
            gpa: 0x1000,
            log2_len: 12,
            kind: Kind::ActionOptional,
            method: InjectionMethod::Madvise,
        };
        let json = r#"{"gpa":4096,"log2-len":12,"kind":"AO","via":"madvise"}"#;
        assert_eq!(serde_json::to_string(&request).expect("JSON"), json);
        assert_eq!(serde_json::from_str::<InjectionRequest>(json).expect("a request"), request);
    }
}
