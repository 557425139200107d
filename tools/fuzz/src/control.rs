//! The parser of requests at the control socket.

use serde_json::json;
use vmm::control::Request;

/// Parses the line of a request. One that is accepted is the same request when it is written and read again.
pub(crate) fn run(line: &[u8]) {
    match Request::parse(line) {
        Ok(request) => {
            let written = json!(request).to_string();
            assert_eq!(Request::parse(written.as_bytes()), Ok(request), "{written}");
        }
        Err(reason) => assert!(reason.starts_with("invalid request: "), "{reason}"),
    }
}
