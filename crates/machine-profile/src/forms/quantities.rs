//! Sizes and periods.

use std::time::Duration;

use serde_json::{Value as Json, json};

use super::{Flaw, Form, listed};
use crate::tree::Value;
use crate::units::{self, NoQuantity, PERIODS, SIZES, Unit};

/// A quantity with its ends, and why they are there.
struct Quantity {
    noun: &'static str,
    units: &'static [Unit],
    min: (u64, &'static str),
    max: (u64, &'static str),
    example: &'static str,
}

impl Quantity {
    fn read(&self, value: &Value) -> Result<u64, Flaw> {
        let text = match value {
            Value::Text(text) => text,
            Value::Integer(number) => return self.without_unit(*number),
            _ => return Err(Flaw::Type),
        };
        let quantity = match units::parse(text, self.units) {
            Ok(quantity) => quantity,
            Err(NoQuantity::TooBig) => u64::MAX,
            Err(NoQuantity::NoUnit(number)) => return self.without_unit(number.into()),
            Err(NoQuantity::NoNumber) => {
                return Flaw::content(
                    "a whole number with its unit is wanted",
                    format!("for example `\"{}\"`", self.example),
                );
            }
            Err(NoQuantity::UnknownUnit { number, unit, meant: Some(meant) }) => {
                return Flaw::content(
                    format!("`{unit}` is no unit of {}", self.noun),
                    format!("write `\"{number}{meant}\"`"),
                );
            }
            Err(NoQuantity::UnknownUnit { unit, meant: None, .. }) => {
                return Flaw::content(
                    format!("`{unit}` is no unit of {}", self.noun),
                    format!("the units are {}", listed(self.unit_names(), "and")),
                );
            }
        };
        let shown = |quantity| units::format(quantity, self.units);
        if quantity < self.min.0 {
            let least = shown(self.min.0);
            return Flaw::content(
                format!("the least is {least}, {}", self.min.1),
                format!("write `\"{least}\"` or more"),
            );
        }
        if quantity > self.max.0 {
            let most = shown(self.max.0);
            return Flaw::content(
                format!("the most is {most}, {}", self.max.1),
                format!("write `\"{most}\"` or less"),
            );
        }
        Ok(quantity)
    }

    fn without_unit<T>(&self, number: i128) -> Result<T, Flaw> {
        let unit = self.example.trim_start_matches(|c: char| c.is_ascii_digit());
        let number = if number > 0 { format!("{number}{unit}") } else { self.example.to_owned() };
        Flaw::content("it has no unit", format!("give it one of {}, for example `\"{number}\"`", self.list()))
    }

    /// From the smallest.
    fn unit_names(&self) -> impl Iterator<Item = String> {
        self.units.iter().rev().map(|unit| unit.name.to_owned())
    }

    fn list(&self) -> String {
        listed(self.unit_names(), "and")
    }

    fn schema(&self) -> Json {
        let units: Vec<&str> = self.units.iter().map(|unit| unit.name).collect();
        json!({ "type": "string", "pattern": format!("^[0-9]+ ?({})$", units.join("|")) })
    }
}

/// A number of bytes, with a unit.
pub struct Size {
    /// The least in bytes, and why.
    pub min: (u64, &'static str),
    /// The greatest in bytes, and why.
    pub max: (u64, &'static str),
}

impl Size {
    fn quantity(&self) -> Quantity {
        Quantity { noun: "memory", units: SIZES, min: self.min, max: self.max, example: "256MiB" }
    }
}

impl Form for Size {
    type Value = u64;

    fn read(&self, value: &Value) -> Result<u64, Flaw> {
        self.quantity().read(value)
    }

    fn wanted(&self) -> String {
        "a size with its unit".to_owned()
    }

    fn example(&self) -> String {
        "\"256MiB\"".to_owned()
    }

    fn schema(&self) -> Json {
        self.quantity().schema()
    }

    fn write(&self, value: &u64) -> Json {
        json!(units::format(*value, SIZES))
    }
}

/// A duration, with a unit.
pub struct Period {
    /// The least in milliseconds, and why.
    pub min: (u64, &'static str),
    /// The greatest in milliseconds, and why.
    pub max: (u64, &'static str),
}

impl Period {
    fn quantity(&self) -> Quantity {
        Quantity { noun: "time", units: PERIODS, min: self.min, max: self.max, example: "1s" }
    }
}

impl Form for Period {
    type Value = Duration;

    fn read(&self, value: &Value) -> Result<Duration, Flaw> {
        self.quantity().read(value).map(Duration::from_millis)
    }

    fn wanted(&self) -> String {
        "a time with its unit".to_owned()
    }

    fn example(&self) -> String {
        "\"1s\"".to_owned()
    }

    fn schema(&self) -> Json {
        self.quantity().schema()
    }

    fn write(&self, value: &Duration) -> Json {
        json!(units::format(u64::try_from(value.as_millis()).unwrap_or(u64::MAX), PERIODS))
    }
}
