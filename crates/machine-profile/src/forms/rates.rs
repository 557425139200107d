//! Limits of what a device does in a second.

use serde_json::{Value as Json, json};

use super::quantities::Quantity;
use super::{Form, Integer, ValueError, listed};
use crate::suggest::closest;
use crate::tree::{Entry, Table, Value};
use crate::units::{self, RATES};

/// Limits of a second: at least one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimits {
    /// Bytes.
    pub bandwidth: Option<u64>,
    /// Operations.
    pub operations: Option<u32>,
}

/// [`RateLimits`], written as a table.
pub struct Rates;

const BANDWIDTH: &str = "bandwidth";
const OPERATIONS: &str = "operations";
const KEYS: [&str; 2] = [BANDWIDTH, OPERATIONS];

impl Rates {
    fn bandwidth() -> Quantity {
        Quantity {
            noun: "bandwidth",
            units: RATES,
            min: (64 << 10, "the largest part of a request that a device transfers at once"),
            max: (1 << 40, "which no device reaches"),
            example: "100MiB/s",
        }
    }

    fn operations() -> Integer {
        Integer { min: 1, max: 100_000_000, example: 1000 }
    }

    /// Reads a key of the table. The reason of an error names it.
    fn field<T>(
        table: &Table,
        name: &str,
        expected: &str,
        read: impl FnOnce(&Value) -> Result<T, ValueError>,
    ) -> Result<Option<T>, ValueError> {
        let Some(Entry { node, .. }) = table.get(name) else { return Ok(None) };
        read(&node.value).map(Some).map_err(|error| match error {
            ValueError::WrongType => ValueError::Invalid {
                reason: format!("`{name}`: expected {expected}, got {}", node.value.kind()),
                help: format!("for example `{}`", Rates.example()),
            },
            ValueError::Invalid { reason, help } => {
                ValueError::Invalid { reason: format!("`{name}`: {reason}"), help }
            }
        })
    }
}

impl Form for Rates {
    type Value = RateLimits;

    fn read(&self, value: &Value) -> Result<RateLimits, ValueError> {
        let Value::Table(table) = value else { return Err(ValueError::WrongType) };
        if let Some(Entry { name, .. }) = table.entries.iter().find(|entry| !KEYS.contains(&&*entry.name)) {
            let help = match closest(name, KEYS) {
                Some(close) => format!("did you mean `{close}`?"),
                None => format!("the keys are {}", listed(KEYS.map(|key| format!("`{key}`")), "and")),
            };
            return ValueError::invalid(format!("unknown key `{}`", name.escape_debug()), help);
        }
        let (bandwidth, operations) = (Self::bandwidth(), Self::operations());
        let limits = RateLimits {
            bandwidth: Self::field(table, BANDWIDTH, "a string", |value| bandwidth.read(value))?,
            operations: Self::field(table, OPERATIONS, &operations.expected(), |value| {
                operations.read(value)
            })?,
        };
        if (limits.bandwidth, limits.operations) == (None, None) {
            return ValueError::invalid(
                "it limits nothing",
                format!("write at least one of {}, for example `{}`", KEYS.join(" and "), self.example()),
            );
        }
        Ok(limits)
    }

    fn expected(&self) -> String {
        "a table of limits".to_owned()
    }

    fn example(&self) -> String {
        let (bandwidth, operations) = (Self::bandwidth().example, Self::operations().example());
        format!("{{ {BANDWIDTH} = \"{bandwidth}\", {OPERATIONS} = {operations} }}")
    }

    fn limits(&self) -> Option<String> {
        let (bandwidth, operations) = (Self::bandwidth().limits(), Self::operations().expected());
        Some(format!("at least one of {BANDWIDTH} ({bandwidth}) and {OPERATIONS} ({operations})"))
    }

    fn schema(&self) -> Json {
        let mut bandwidth = Self::bandwidth().schema();
        bandwidth["description"] = json!("Bytes of requests in a second.");
        let mut operations = Self::operations().schema();
        operations["description"] = json!("Requests in a second.");
        json!({
            "type": "object",
            "properties": { BANDWIDTH: bandwidth, OPERATIONS: operations },
            "minProperties": 1,
            "additionalProperties": false,
        })
    }

    fn to_json(&self, value: &RateLimits) -> Json {
        let mut limits = json!({});
        if let Some(bandwidth) = value.bandwidth {
            limits[BANDWIDTH] = json!(units::format(bandwidth, RATES));
        }
        if let Some(operations) = value.operations {
            limits[OPERATIONS] = json!(operations);
        }
        limits
    }
}
