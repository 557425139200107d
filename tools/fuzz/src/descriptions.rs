//! The encoder of error records, as `ghest encode` uses it.

use ras_core::{Decoded, Description};

/// The longest result.
const MAX_LEN: usize = 16 << 20;

/// Encodes a description in JSON, or refuses it with the path of one of its keys.
pub(crate) fn run(json: &[u8]) {
    let Ok(description) = serde_json::from_slice::<Description>(json) else { return };
    match description.encode() {
        Ok(bytes) => {
            assert!(bytes.len() <= MAX_LEN, "{} bytes of {json:?}", bytes.len());
            // What was encoded is described, and encoded again.
            if let Ok(decoded) = Decoded::read(&bytes) {
                let _ = decoded.describe().encode();
            }
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
