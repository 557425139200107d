//! Requests and responses.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::MAX_RESPONSE_LEN;
use crate::ras::inject::InjectionRequest;

/// A request to a running machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case")]
pub enum Request {
    /// Report name and state.
    Status,
    /// Pause all vCPUs.
    Pause,
    /// Resume all vCPUs.
    Resume,
    /// Press the power button.
    PowerButton,
    /// Inject a memory error.
    Inject(InjectionRequest),
    /// Report the ledger of poisoned pages.
    Ledger,
    /// Report counters.
    Metrics,
    /// Report where guest memory is mapped in this process.
    MemoryMap,
    /// Reset the machine: it boots again, also if `machine.on-reboot` is `exit`.
    Reset,
    /// Stop the machine.
    Stop,
}

/// Carries out the request in a line, and returns the line of its response: the fields that `handle` returns beside `ok`, or the reason
/// why the request failed.
pub(super) fn respond(line: &[u8], handle: &mut dyn FnMut(Request) -> Result<Value, String>) -> Vec<u8> {
    let outcome = match serde_json::from_slice(line) {
        Ok(request) => handle(request),
        Err(error) => Err(format!("invalid request: {error}")),
    };
    let response = match outcome {
        Ok(Value::Object(mut fields)) => {
            fields.shift_insert(0, "ok".into(), true.into());
            format!("{}\n", Value::Object(fields))
        }
        Ok(_) => format!("{}\n", json!({ "ok": true })),
        Err(error) => return refusal(&error),
    };
    match response.len() {
        0..=MAX_RESPONSE_LEN => response.into_bytes(),
        len => {
            refusal(&format!("the response has {len} bytes, which exceeds the limit of {MAX_RESPONSE_LEN}"))
        }
    }
}

/// The line of a response to a request that is not carried out.
pub(super) fn refusal(reason: &str) -> Vec<u8> {
    format!("{}\n", json!({ "ok": false, "error": reason })).into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(line: &[u8]) -> String {
        let line = respond(line, &mut |request| match request {
            Request::Status => Ok(json!({ "state": "running" })),
            Request::Ledger => Ok(json!({ "entries": "x".repeat(MAX_RESPONSE_LEN) })),
            request => Err(format!("{request:?} is \"refused\"")),
        });
        String::from_utf8(line).expect("JSON is UTF-8")
    }

    #[test]
    fn every_request_has_a_response_of_one_line() {
        assert_eq!(response(br#"{"command":"status"}"#), "{\"ok\":true,\"state\":\"running\"}\n");
        assert_eq!(
            response(br#"{"command":"reset"}"#),
            "{\"ok\":false,\"error\":\"Reset is \\\"refused\\\"\"}\n"
        );
        for (line, said) in [
            (&br#"{"command":"self-destruct"}"#[..], "self-destruct"),
            (b"", "invalid request"),
            (b"\xff\xfe{}", "invalid request"),
            (b"{\"command\":\"\xc3\x28\"}", "invalid unicode"),
            (br#"{"command":"inject","gpa":0,"log2-len":255,"kind":"AO","via":"notice"}"#, "12 to 30"),
            (br#"{"command":"inject","gpa":0,"log2-len":11,"kind":"AO","via":"notice"}"#, "12 to 30"),
        ] {
            let response = response(line);
            assert!(response.starts_with("{\"ok\":false,\"error\":\""), "{response}");
            assert!(response.contains(said), "{response}");
            assert_eq!(response.matches('\n').count(), 1, "{response}");
        }
    }

    #[test]
    fn a_response_that_is_too_long_is_an_error() {
        assert!(response(br#"{"command":"ledger"}"#).contains("exceeds the limit of 16777216"));
    }
}
