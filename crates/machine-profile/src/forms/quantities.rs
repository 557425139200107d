//! Sizes and periods.

use std::time::Duration;

use serde_json::{Value as Json, json};

use super::{Form, ValueError, listed};
use crate::tree::Value;
use crate::units::{self, PERIODS, QuantityError, SIZES, Unit};

/// A number with a unit, between two limits. Each limit has its reason.
pub(super) struct Quantity {
    pub(super) noun: &'static str,
    pub(super) units: &'static [Unit],
    pub(super) min: (u64, &'static str),
    pub(super) max: (u64, &'static str),
    pub(super) example: &'static str,
}

impl Quantity {
    pub(super) fn read(&self, value: &Value) -> Result<u64, ValueError> {
        let text = match value {
            Value::Text(text) => text,
            Value::Integer(number) => return self.without_unit(*number),
            _ => return Err(ValueError::WrongType),
        };
        let quantity = match units::parse(text, self.units) {
            Ok(quantity) => quantity,
            Err(QuantityError::TooLarge) => u64::MAX,
            Err(QuantityError::MissingUnit(number)) => return self.without_unit(number.into()),
            Err(QuantityError::NoNumber) => {
                return ValueError::invalid(
                    "expected a whole number with a unit",
                    format!("for example `\"{}\"`", self.example),
                );
            }
            Err(QuantityError::UnknownUnit { number, unit, suggestion: Some(suggestion) }) => {
                return ValueError::invalid(
                    format!("`{unit}` is not a unit of {}", self.noun),
                    format!("write `\"{number}{suggestion}\"`"),
                );
            }
            Err(QuantityError::UnknownUnit { unit, suggestion: None, .. }) => {
                return ValueError::invalid(
                    format!("`{unit}` is not a unit of {}", self.noun),
                    format!("the units are {}", listed(self.unit_names(), "and")),
                );
            }
        };
        let shown = |quantity| units::format(quantity, self.units);
        if quantity < self.min.0 {
            let min = shown(self.min.0);
            return ValueError::invalid(
                format!("the minimum is {min}, {}", self.min.1),
                format!("write `\"{min}\"` or more"),
            );
        }
        if quantity > self.max.0 {
            let max = shown(self.max.0);
            return ValueError::invalid(
                format!("the maximum is {max}, {}", self.max.1),
                format!("write `\"{max}\"` or less"),
            );
        }
        Ok(quantity)
    }

    fn without_unit<T>(&self, number: i128) -> Result<T, ValueError> {
        let unit = self.example.trim_start_matches(|c: char| c.is_ascii_digit());
        let number = if number > 0 { format!("{number}{unit}") } else { self.example.to_owned() };
        ValueError::invalid(
            "it has no unit",
            format!("append one of {}, for example `\"{number}\"`", listed(self.unit_names(), "and")),
        )
    }

    /// The names of the units, from the smallest.
    fn unit_names(&self) -> impl Iterator<Item = String> {
        self.units.iter().rev().map(|unit| unit.name.to_owned())
    }

    pub(super) fn limits(&self) -> String {
        let [min, max] = [self.min.0, self.max.0].map(|limit| units::format(limit, self.units));
        format!("from {min} to {max}, in {}", listed(self.unit_names(), "or"))
    }

    pub(super) fn schema(&self) -> Json {
        let units: Vec<&str> = self.units.iter().map(|unit| unit.name).collect();
        json!({ "type": "string", "pattern": format!("^[0-9]+ ?({})$", units.join("|")) })
    }
}

/// A size of memory: a number and a unit, read as bytes.
pub struct Size {
    /// The minimum in bytes, and its reason.
    pub min: (u64, &'static str),
    /// The maximum in bytes, and its reason.
    pub max: (u64, &'static str),
}

impl Size {
    fn quantity(&self) -> Quantity {
        Quantity { noun: "memory", units: SIZES, min: self.min, max: self.max, example: "256MiB" }
    }
}

impl Form for Size {
    type Value = u64;

    fn read(&self, value: &Value) -> Result<u64, ValueError> {
        self.quantity().read(value)
    }

    fn expected(&self) -> String {
        "a size with a unit".to_owned()
    }

    fn example(&self) -> String {
        "\"256MiB\"".to_owned()
    }

    fn limits(&self) -> Option<String> {
        Some(self.quantity().limits())
    }

    fn schema(&self) -> Json {
        self.quantity().schema()
    }

    fn to_json(&self, value: &u64) -> Json {
        json!(units::format(*value, SIZES))
    }
}

/// A duration: a number and a unit.
pub struct Period {
    /// The minimum in milliseconds, and its reason.
    pub min: (u64, &'static str),
    /// The maximum in milliseconds, and its reason.
    pub max: (u64, &'static str),
}

impl Period {
    fn quantity(&self) -> Quantity {
        Quantity { noun: "time", units: PERIODS, min: self.min, max: self.max, example: "1s" }
    }
}

impl Form for Period {
    type Value = Duration;

    fn read(&self, value: &Value) -> Result<Duration, ValueError> {
        self.quantity().read(value).map(Duration::from_millis)
    }

    fn expected(&self) -> String {
        "a time with a unit".to_owned()
    }

    fn example(&self) -> String {
        "\"1s\"".to_owned()
    }

    fn limits(&self) -> Option<String> {
        Some(self.quantity().limits())
    }

    fn schema(&self) -> Json {
        self.quantity().schema()
    }

    fn to_json(&self, value: &Duration) -> Json {
        json!(units::format(u64::try_from(value.as_millis()).unwrap_or(u64::MAX), PERIODS))
    }
}
