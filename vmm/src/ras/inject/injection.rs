//! What a request to inject asks for: an error of memory, or a record of any error.

use clap::{ArgMatches, Args, Command, FromArgMatches};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value, json};

use super::{InjectionRequest, RecordRequest};

/// What is injected. A record has the field `record`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Injection {
    /// A memory error: the page is poisoned, and reported as the plan says.
    Error(InjectionRequest),
    /// A record: nothing is poisoned.
    Record(RecordRequest),
}

/// The field that only records have.
const RECORD: &str = "record";

/// Not that of an untagged enum, whose errors say nothing of the field.
impl<'de> Deserialize<'de> for Injection {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let fields = Map::deserialize(deserializer)?;
        let is_record = fields.contains_key(RECORD);
        let fields = Value::Object(fields);
        let injection = match is_record {
            true => serde_json::from_value(fields).map(Injection::Record),
            false => serde_json::from_value(fields).map(Injection::Error),
        };
        injection.map_err(D::Error::custom)
    }
}

impl JsonSchema for Injection {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Injection".into()
    }

    /// One object, because fields of others are not allowed beside those of a schema.
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let schemas = [InjectionRequest::json_schema(generator), RecordRequest::json_schema(generator)]
            .map(Schema::to_value);
        let mut properties = Map::new();
        for schema in &schemas {
            properties.extend(schema["properties"].as_object().cloned().unwrap_or_default());
        }
        let required: Vec<_> =
            schemas.iter().map(|schema| json!({ "required": schema["required"] })).collect();
        json_schema!({ "type": "object", "properties": properties, "oneOf": required })
    }
}

impl Args for Injection {
    fn augment_args(command: Command) -> Command {
        let command = RecordRequest::augment_args(InjectionRequest::augment_args(command));
        let for_errors = ["gpa", "kind"].into_iter().fold(command, |command, name| {
            command.mut_arg(name, |argument| argument.required(false).required_unless_present(RECORD))
        });
        let for_errors =
            ["gpa", "kind", "log2_len", "method"].into_iter().fold(for_errors, |command, name| {
                command
                    .mut_arg(name, |argument| argument.conflicts_with(RECORD).help_heading("A memory error"))
            });
        let for_both = for_errors.mut_arg(RECORD, |argument| {
            argument.required(false).requires("source").help_heading("An error record")
        });
        ["source", "force", "repeat", "interval"].into_iter().fold(for_both, |command, name| {
            command.mut_arg(name, |argument| {
                argument.required(false).requires(RECORD).help_heading("An error record")
            })
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Injection {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Self::from_arg_matches_mut(&mut matches.clone())
    }

    fn from_arg_matches_mut(matches: &mut ArgMatches) -> Result<Self, clap::Error> {
        if matches.contains_id(RECORD) {
            RecordRequest::from_arg_matches_mut(matches).map(Injection::Record)
        } else {
            InjectionRequest::from_arg_matches_mut(matches).map(Injection::Error)
        }
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::{NamedSource, RecordSource};
    use super::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        injection: Injection,
    }

    fn parse(words: &[&str]) -> Result<Injection, String> {
        let words = ["inject"].iter().chain(words);
        Cli::try_parse_from(words).map(|cli| cli.injection).map_err(|error| error.to_string())
    }

    #[test]
    fn an_error_or_a_record() {
        assert!(matches!(parse(&["--gpa", "0x1000", "--kind", "ar"]), Ok(Injection::Error(_))));
        for (words, said) in [
            (&[][..], "--gpa"),
            (&["--gpa", "1"], "--kind"),
            (&["--record", "/dev/null", "--source", "1"], "it is empty"),
            (&["--record", "/nowhere", "--source", "1"], "open(2): No such file"),
            (&["--source", "1"], "--record"),
            (&["--gpa", "1", "--kind", "ar", "--force"], "--record"),
            (&["--record", "Cargo.toml", "--source", "1"], "it is text, but not hexadecimal"),
        ] {
            let error = parse(words).expect_err("refused");
            assert!(error.contains(said), "{words:?}: {error}");
        }
        let path = std::env::temp_dir().join(format!("ghest-record-{}", std::process::id()));
        std::fs::write(&path, "00 01 02").expect("a file");
        let path = path.to_str().expect("text");
        let words = ["--record", path, "--source", "corrected", "--repeat", "3", "--interval", "10ms"];
        let Ok(Injection::Record(request)) = parse(&words) else { panic!("a record") };
        assert_eq!(
            (&request.record.0[..], request.source),
            (&[0, 1, 2][..], RecordSource::Named(NamedSource::Corrected))
        );
        assert!(parse(&["--record", path]).expect_err("no source").contains("--source"));
        assert!(
            parse(&["--record", path, "--source", "x"])
                .expect_err("no number")
                .contains("expected the number")
        );
        let both = ["--record", path, "--source", "1", "--gpa", "1"];
        assert!(parse(&both).expect_err("both").contains("cannot be used with"));
        std::fs::remove_file(path).expect("a file");
        // The client repeats it, not the machine.
        let json = json!(Injection::Record(request));
        assert_eq!(json, json!({ "record": "000102", "source": "corrected", "force": false }));
    }

    #[test]
    fn requests_in_json() {
        let parse =
            |json: Value| serde_json::from_value::<Injection>(json).map_err(|error| error.to_string());
        assert!(parse(json!({ "record": "00", "source": 3 })).is_ok());
        for (json, said) in [
            (json!({ "record": "0", "source": 3 }), "`record` is not hexadecimal"),
            (json!({ "record": "00", "source": "other" }), "`source` is the number of an error source"),
            (json!({ "record": "00", "source": 65536 }), "`source` is the number"),
            (json!({ "record": "00" }), "missing field `source`"),
            (json!({ "record": "00", "source": 1, "gpa": 1 }), "unknown field `gpa`"),
            (json!({ "gpa": 1 }), "missing field `log2-len`"),
        ] {
            let error = parse(json.clone()).expect_err("refused");
            assert!(error.contains(said), "{json}: {error}");
        }
    }
}
