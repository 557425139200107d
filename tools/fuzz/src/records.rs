//! The decoder of error records, as `ghest decode` uses it.

use ras_core::acceptance::linux_accepts;
use ras_core::{Decoded, Notification, bytes_of_hex_text};

/// The most bytes that the text of a file becomes.
const MAX_LEN: usize = 1 << 16;

/// Decodes a file. It is described in proportion to its length, or refused at one of its bytes.
pub(crate) fn run(file: &[u8]) {
    let text = bytes_of_hex_text(file, MAX_LEN);
    if let Ok(Some(bytes)) = &text {
        assert!(bytes.len() <= MAX_LEN && bytes.len() <= file.len());
        decode(bytes);
    }
    decode(file);
}

fn decode(bytes: &[u8]) {
    // The model of Linux's driver reads any bytes, too.
    let _ = linux_accepts(bytes, MAX_LEN as u32, Notification::Gsiv);
    match Decoded::read(bytes) {
        Ok(decoded) => {
            let description = decoded.describe();
            let (text, json) = (description.to_string(), serde_json::json!(description).to_string());
            assert!(text.len() <= 0x800 + 0x100 * bytes.len(), "{} bytes of text: {text}", text.len());
            // The description of any file is encoded, or refused.
            let _ = description.encode();
            assert!(json.len() <= 0x800 + 0x100 * bytes.len(), "{} bytes of JSON: {json}", json.len());
        }
        Err(error) => assert!(error.offset <= bytes.len(), "{error}"),
    }
}
