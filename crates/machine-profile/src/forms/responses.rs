//! Responses to memory errors, by name.

use std::iter::once;

use ras_core::Response;
use ras_core::plan::decision::{ErrorClass, availability, responses};
use serde_json::{Value as Json, json};

use super::{Form, ValueError, listed, unknown_word};
use crate::tree::Value;

/// `auto`, or the name of a response that the decision table has for that class of error, on any guest.
pub(crate) struct ResponseName(pub(crate) ErrorClass);

const AUTO: &str = "auto";

impl ResponseName {
    fn names(&self) -> impl Iterator<Item = &'static str> {
        once(AUTO).chain(responses(self.0).map(Response::name))
    }
}

impl Form for ResponseName {
    type Value = Option<Response>;

    fn read(&self, value: &Value) -> Result<Option<Response>, ValueError> {
        let Value::Text(text) = value else { return Err(ValueError::WrongType) };
        if text == AUTO {
            return Ok(None);
        }
        let response = Response::from_name(text).filter(|named| responses(self.0).any(|it| it == *named));
        response.map(Some).ok_or_else(|| unknown_word(text, self.names(), &self.expected()))
    }

    fn expected(&self) -> String {
        listed(self.names().map(|name| format!("\"{name}\"")), "or")
    }

    fn example(&self) -> String {
        format!("\"{AUTO}\"")
    }

    fn schema(&self) -> Json {
        let auto = json!({ "const": AUTO, "description": "the best that guest, tables and host support" });
        let named = responses(self.0).map(|response| {
            let description = format!("{} ({})", response.summary(), availability(self.0, response));
            json!({ "const": response.name(), "description": description })
        });
        json!({ "type": "string", "oneOf": once(auto).chain(named).collect::<Vec<_>>() })
    }

    fn to_json(&self, value: &Option<Response>) -> Json {
        json!(value.map_or(AUTO, Response::name))
    }
}
