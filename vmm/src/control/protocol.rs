//! The protocol: a greeting, requests and their responses, one JSON object a line.
//!
//! A command is one entry of `commands!`: its name, its help, its arguments and the type of its answer. What a request looks like in
//! JSON, the JSON Schema of the protocol, and `ghest ctl` with its help all follow from the entry. [`RunningMachine`] carries it out.
//!
//! [`RunningMachine`]: crate::machine

use std::num::NonZeroU16;
use std::time::Duration;

use clap::Subcommand;
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::MAX_RESPONSE_LEN;
use super::answer::{Balloon, Devices, Dumped, Following, Ledger, MemoryMap, RetiredMemory, State};
use crate::metrics;
use crate::plan::PlanReport;
use crate::ras::inject::{Injection, parse_number, parse_size, parse_time};

/// The version of the protocol. It changes if a client of the version before could misunderstand a response.
pub const VERSION: u32 = 1;

/// Declares the commands: `Request`, and the schema of each one's answer, in the same order.
macro_rules! commands {
    ($(
        $(#[$attribute:meta])*
        $command:ident $(($arguments:ty))? $({ $($fields:tt)* })? => $answer:ty
    ),+ $(,)?) => {
        /// A request to a running machine.
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, Subcommand)]
        #[serde(tag = "command", rename_all = "kebab-case", deny_unknown_fields)]
        pub enum Request {
            $($(#[$attribute])* $command $(($arguments))? $({ $($fields)* })?),+
        }

        fn answers(generator: &mut SchemaGenerator) -> Vec<Schema> {
            vec![$(generator.subschema_for::<$answer>()),+]
        }
    };
}

commands! {
    /// Print the machine's name and state.
    Status => State,
    /// Pause its vCPUs.
    Pause => State,
    /// Resume its vCPUs.
    Resume => State,
    /// Press its power button.
    PowerButton {
        /// Wait until the machine has ended, this long at most.
        // Of the client: it follows the events.
        #[serde(skip)]
        #[arg(long, value_name = "TIME", value_parser = timeout)]
        wait: Option<Duration>,
    } => State,
    /// Give it a new generation id, because its disk or its memory was set back or copied.
    NewGeneration => State,
    /// Inject a memory error, or any error record.
    Inject(Injection) => State,
    /// Print its balloon, by which the guest gives memory back: what it is to take, what it has, and the guest's statistics.
    Balloon {
        /// Change the memory that it is to take, in bytes, KiB, MiB or GiB: `512MiB`, or `0` for none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(with = "u64")]
        #[arg(value_name = "SIZE", value_parser = size)]
        size: Option<u64>,
        /// The position of the balloon among the devices of the profile, from 0: needed if it has several.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(with = "usize")]
        #[arg(long, value_name = "N")]
        device: Option<usize>,
    } => Balloon,
    /// Retire a page of the host that is suspect: the guest memory in it moves to another page, and the host does not use it again.
    Retire {
        /// The guest physical address of the memory in it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(with = "u64")]
        #[arg(value_name = "GPA", value_parser = address, required_unless_present = "host_address")]
        gpa: Option<u64>,
        /// Its physical address on the host, in place of the GPA. The machine needs CAP_SYS_ADMIN to find it.
        #[serde(default, rename = "host-address", skip_serializing_if = "Option::is_none")]
        #[schemars(with = "u64")]
        #[arg(long, value_name = "ADDRESS", value_parser = address, conflicts_with = "gpa")]
        host_address: Option<u64>,
    } => RetiredMemory,
    /// Print the ledger of poisoned pages.
    Ledger => Ledger,
    /// Print counters: how often each event happened, and how much memory is poisoned.
    Metrics {
        /// Print them in the text form of Prometheus.
        #[serde(default)]
        #[arg(long)]
        prometheus: bool,
    } => metrics::Answer,
    /// Print where guest memory is mapped in its process.
    MemoryMap => MemoryMap,
    /// Dump it for crash, drgn or gdb: an ELF file of its memory and registers, without poisoned pages. Its vCPUs are paused meanwhile.
    Dump {
        /// The file, which must not exist. The machine writes it, with its own permissions.
        #[arg(value_name = "FILE")]
        file: String,
    } => Dumped,
    /// Print its plan: its tables, and how each kind of memory error is reported, and why.
    Plan => PlanReport,
    /// Print its devices: their registers, interrupts and files.
    Devices => Devices,
    /// Print its events as they happen, one JSON object per line, until it ends.
    Events {
        /// Print those to come. Earlier ones are not kept: `ghest boot --events` writes them to a file.
        #[arg(long, required = true)]
        follow: bool,
    } => Following,
    /// Set the size of the terminal of its virtio-console.
    ConsoleSize {
        /// The width in characters.
        columns: NonZeroU16,
        /// The height in characters.
        rows: NonZeroU16,
        /// The position of the console among the devices of the profile, from 0: needed if it has several.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(with = "usize")]
        #[arg(long, value_name = "N")]
        device: Option<usize>,
    } => State,
    /// Reset it: it boots again from its profile, also if `machine.on-reboot` is `exit`.
    Reset => State,
    /// Stop it.
    Stop => State,
}

/// Parses a time that is not zero.
///
/// # Errors
/// Returns what is expected.
pub fn timeout(text: &str) -> Result<Duration, String> {
    let time = parse_time(text).filter(|time| !time.is_zero());
    time.ok_or_else(|| "expected a whole number of ms or s, for example `5s`".into())
}

fn address(text: &str) -> Result<u64, String> {
    parse_number(text).ok_or_else(|| "expected an address, for example `0x2000000`".into())
}

fn size(text: &str) -> Result<u64, String> {
    parse_size(text).ok_or_else(|| "expected a size, for example `512MiB`".into())
}

impl Request {
    /// Parses the line of a request.
    ///
    /// # Errors
    /// Returns what is wrong with it.
    pub fn parse(line: &[u8]) -> Result<Self, String> {
        let invalid = |error: serde_json::Error| format!("invalid request: {error}");
        let request: Request = serde_json::from_slice(line).map_err(invalid)?;
        // serde ignores the fields of a command that has no arguments.
        let fields: Map<String, Value> = serde_json::from_slice(line).map_err(invalid)?;
        let known = json!(request);
        match fields.keys().find(|field| known.get(field.as_str()).is_none()) {
            Some(unknown) => Err(format!("invalid request: unknown field `{unknown}`")),
            None => Ok(request),
        }
    }
}

/// The line of the response to a request: the fields of its answer beside `ok`, or the reason why it failed.
pub(super) fn response(outcome: Result<Value, String>) -> String {
    let response = match outcome {
        Ok(Value::Object(mut fields)) => {
            fields.shift_insert(0, "ok".into(), true.into());
            format!("{}\n", Value::Object(fields))
        }
        Ok(_) => format!("{}\n", json!({ "ok": true })),
        Err(error) => return refusal(&error),
    };
    match response.len() {
        0..=MAX_RESPONSE_LEN => response,
        len => {
            refusal(&format!("the response has {len} bytes, which exceeds the limit of {MAX_RESPONSE_LEN}"))
        }
    }
}

/// The line of a response to a request that is not carried out.
pub(super) fn refusal(reason: &str) -> String {
    format!("{}\n", json!({ "ok": false, "error": reason }))
}

/// The first line of each connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Greeting {
    /// The version of the protocol.
    pub version: u32,
    /// The name and the version of the program.
    pub server: String,
    /// The machine's name.
    pub machine: String,
}

impl Greeting {
    /// That of a machine.
    pub(super) fn of(machine: &str) -> Self {
        Greeting {
            version: VERSION,
            server: concat!("ghest ", env!("CARGO_PKG_VERSION")).to_owned(),
            machine: machine.to_owned(),
        }
    }

    pub(super) fn line(&self) -> String {
        format!("{}\n", json!(self))
    }
}

/// An event: a line after the response to `events`. Its further fields depend on its name.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "only its schema is used: the journal formats events")]
struct Event {
    /// Nanoseconds from the start of the process.
    t_ns: u64,
    /// Its name. `dropped` is in the place of events that the client was too slow for; its field `missing` is their number.
    event: String,
}

/// A response to a request that is not carried out.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "only its schema is used: `refusal` formats it")]
struct Refusal {
    /// False.
    #[schemars(extend("const" = false))]
    ok: bool,
    /// The reason.
    error: String,
}

/// The JSON Schema (draft 2020-12) of the protocol: of an exchange, which is an object of a `request` and its `response`. Each line of a
/// connection has a schema in `$defs`: `Greeting`, the request and the response of each command by its name, `Event`.
#[must_use]
pub fn schema() -> Value {
    let mut generator = SchemaSettings::draft2020_12().into_generator();
    let refusal = generator.subschema_for::<Refusal>();
    generator.subschema_for::<Greeting>();
    generator.subschema_for::<Event>();
    let answers = answers(&mut generator);
    let requests = Request::json_schema(&mut generator).to_value();
    let mut definitions = generator.take_definitions(true);
    let mut exchanges = Vec::new();
    let requests = requests["oneOf"].as_array().into_iter().flatten();
    for (request, answer) in requests.zip(answers) {
        let Some(name) = request["properties"]["command"]["const"].as_str() else { continue };
        let ok = json!({ "properties": { "ok": { "const": true } }, "required": ["ok"] });
        let exchange = json!({
            "description": request["description"],
            "type": "object",
            "properties": {
                "request": request,
                "response": { "anyOf": [{ "allOf": [answer, ok] }, refusal] },
            },
            "required": ["request", "response"],
        });
        definitions.insert(name.to_owned(), exchange);
        exchanges.push(json!({ "$ref": format!("#/$defs/{name}") }));
    }
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Control protocol",
        "description": "An exchange at the control socket of a machine: a request, and the response to it, each of them one line. The \
                        first line of a connection is a `Greeting`; after the response to `events` each line is an `Event`.",
        "oneOf": exchanges,
        "$defs": definitions,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn respond(line: &[u8]) -> String {
        response(Request::parse(line).and_then(|request| match request {
            Request::Status => Ok(json!({ "state": "running" })),
            Request::Ledger => Ok(json!({ "entries": "x".repeat(MAX_RESPONSE_LEN) })),
            request => Err(format!("{request:?} is \"refused\"")),
        }))
    }

    #[test]
    fn every_request_has_a_response_of_one_line() {
        assert_eq!(respond(br#"{"command":"status"}"#), "{\"ok\":true,\"state\":\"running\"}\n");
        assert_eq!(
            respond(br#"{"command":"reset"}"#),
            "{\"ok\":false,\"error\":\"Reset is \\\"refused\\\"\"}\n"
        );
        for (line, said) in [
            (&br#"{"command":"self-destruct"}"#[..], "self-destruct"),
            (b"", "invalid request"),
            (b"\xff\xfe{}", "invalid request"),
            (b"{\"command\":\"\xc3\x28\"}", "invalid unicode"),
            (br#"{"command":"inject","gpa":0,"log2-len":255,"kind":"AO","via":"notice"}"#, "12 to 30"),
            (br#"{"command":"inject","gpa":0,"log2-len":11,"kind":"AO","via":"notice"}"#, "12 to 30"),
            (br#"{"command":"inject","gpa":0,"log2-len":12,"kind":"AO","via":"notice","x":0}"#, "`x`"),
            (br#"{"command":"status","x":0}"#, "unknown field `x`"),
            (br#"["status"]"#, "invalid request"),
            (br#"{"command":"events"}"#, "`follow`"),
            (br#"{"command":"power-button","wait":"5s"}"#, "`wait`"),
            (br#"{"command":"console-size","columns":80}"#, "`rows`"),
            (br#"{"command":"console-size","columns":0,"rows":25}"#, "nonzero"),
            (br#"{"command":"console-size","columns":65536,"rows":25}"#, "65536"),
            (br#"{"command":"console-size","columns":80,"rows":25,"device":null}"#, "`device`"),
            (br#"{"command":"balloon","device":null}"#, "`device`"),
            (br#"{"command":"balloon","device":-1}"#, "-1"),
        ] {
            let response = respond(line);
            assert!(response.starts_with("{\"ok\":false,\"error\":\""), "{response}");
            assert!(response.contains(said), "{response}");
            assert_eq!(response.matches('\n').count(), 1, "{response}");
        }
    }

    #[test]
    fn a_response_that_is_too_long_is_an_error() {
        assert!(respond(br#"{"command":"ledger"}"#).contains("exceeds the limit of 16777216"));
    }

    /// Every subcommand of `ghest ctl` is in the schema, with its help, and its request is one that is parsed.
    #[test]
    fn command_line_and_schema_agree() {
        let schema = schema();
        let commands = Request::augment_subcommands(clap::Command::new("ctl"));
        let names: Vec<_> = commands.get_subcommands().map(clap::Command::get_name).collect();
        let exchanges = schema["oneOf"].as_array().expect("exchanges");
        let referred: Vec<_> = exchanges.iter().filter_map(|it| it["$ref"].as_str()).collect();
        assert_eq!(referred, names.iter().map(|name| format!("#/$defs/{name}")).collect::<Vec<_>>());
        for command in commands.get_subcommands() {
            let exchange = &schema["$defs"][command.get_name()];
            let help = command.get_about().expect("help").to_string();
            let description = exchange["description"].as_str().expect("a description");
            assert_eq!(description.trim_end_matches('.'), help.trim_end_matches('.'));
        }
    }
}
