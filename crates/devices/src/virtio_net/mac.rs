//! MAC addresses.

use std::fmt;

use machine_profile::device_kind::{Form, Value, ValueError};
use serde_json::{Value as Json, json};

/// The MAC address of one network interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MacAddress(pub [u8; 6]);

impl MacAddress {
    /// The address of a device whose section has none: the same for each start of a machine of that name, and locally
    /// administered. Two machines of one name have the same addresses.
    #[must_use]
    pub fn derived(machine: &str, index: usize) -> Self {
        // FNV-1a: the standard library's hash functions may change. A name has no slash.
        let text = format!("{machine}/{index}");
        let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let [a, b, c, d, e, f, ..] = (hash ^ hash >> 48).to_le_bytes();
        MacAddress([a & !GROUP | LOCAL, b, c, d, e, f])
    }
}

/// Bits of the first byte: a group address, and an address that no vendor has assigned (IEEE 802, 8.2).
const GROUP: u8 = 1;
const LOCAL: u8 = 2;

/// `52:54:00:12:34:56`.
impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// A MAC address in a profile.
pub(super) struct MacForm;

impl MacForm {
    const EXAMPLE: &str = "\"52:54:00:12:34:56\"";
}

impl Form for MacForm {
    type Value = MacAddress;

    fn read(&self, value: &Value) -> Result<MacAddress, ValueError> {
        let Value::Text(text) = value else { return Err(ValueError::WrongType) };
        let invalid =
            |reason: &str, help: String| Err(ValueError::Invalid { reason: reason.to_owned(), help });
        let Some(bytes) = parse(text) else {
            return invalid(
                "expected six bytes in hexadecimal, separated by colons",
                format!("for example `{}`", Self::EXAMPLE),
            );
        };
        if bytes[0] & GROUP != 0 {
            let help = format!("write an even first byte: `{:02x}`", bytes[0] & !GROUP);
            return invalid("it is a multicast address", help);
        }
        if bytes == [0; 6] {
            return invalid("no interface has it", format!("for example `{}`", Self::EXAMPLE));
        }
        Ok(MacAddress(bytes))
    }

    fn expected(&self) -> String {
        "a MAC address".to_owned()
    }

    fn example(&self) -> String {
        Self::EXAMPLE.to_owned()
    }

    fn schema(&self) -> Json {
        json!({ "type": "string", "pattern": "^[0-9A-Fa-f][02468ACEace](:[0-9A-Fa-f]{2}){5}$" })
    }

    fn to_json(&self, mac: &MacAddress) -> Json {
        json!(mac.to_string())
    }
}

fn parse(text: &str) -> Option<[u8; 6]> {
    let byte = |part: &str| {
        let is_byte = part.len() == 2 && part.bytes().all(|digit| digit.is_ascii_hexdigit());
        is_byte.then(|| u8::from_str_radix(part, 16).ok()).flatten()
    };
    text.split(':').map(byte).collect::<Option<Vec<u8>>>()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derived_addresses_are_stable_local_and_different() {
        // These values are a promise: a guest's configuration may name its address.
        assert_eq!(MacAddress::derived("web-1", 0).to_string(), "42:05:72:76:64:2e");
        assert_eq!(MacAddress::derived("web-1", 1).to_string(), "32:07:72:76:64:2f");
        let addresses: std::collections::BTreeSet<_> = (0..100)
            .flat_map(|machine| {
                (0..32).map(move |index| MacAddress::derived(&format!("web-{machine}"), index).0)
            })
            .collect();
        assert_eq!(addresses.len(), 3200);
        assert!(addresses.iter().all(|mac| mac[0] & 3 == 2));
    }

    #[test]
    fn addresses_are_read_in_one_form() {
        let read = |text: &str| MacForm.read(&Value::Text(text.to_owned()));
        assert_eq!(read("52:54:00:12:34:Fe"), Ok(MacAddress([0x52, 0x54, 0, 0x12, 0x34, 0xfe])));
        for wrong in [
            "",
            "52",
            "52:54:00:12:34",
            "52:54:00:12:34:56:78",
            "52:54:00:12:34:5",
            "52-54-00-12-34-56",
            "+2:54:00:12:34:56",
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        assert!(read("01:00:5e:00:00:01").is_err() && read("00:00:00:00:00:00").is_err());
    }
}
