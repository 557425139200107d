//! One memory error to inject.

use ras_core::{Kind, Span};
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};

/// A memory error to inject.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct InjectionRequest {
    /// Any GPA in the span.
    pub gpa: u64,
    /// Base-two logarithm of the span's bytes: 12 to 30.
    #[serde(deserialize_with = "log2_len")]
    pub log2_len: u8,
    /// Action required (consumed by the vCPU that accesses it next) or action optional (detected immediately).
    pub kind: Kind,
    /// How the memory is poisoned.
    #[serde(rename = "via")]
    pub method: InjectionMethod,
}

impl InjectionRequest {
    /// The pages to poison.
    #[must_use]
    pub const fn span(&self) -> Span {
        Span::around(self.gpa, self.log2_len)
    }
}

fn log2_len<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u8, D::Error> {
    let log2_len = u64::deserialize(deserializer)?;
    u8::try_from(log2_len)
        .ok()
        .filter(|log2_len| LOG2_LENS.contains(log2_len))
        .ok_or_else(|| D::Error::custom(format_args!("`log2-len` is {log2_len}: expected 12 to 30")))
}

/// Base-two logarithms of the spans that can be poisoned.
pub(super) const LOG2_LENS: std::ops::RangeInclusive<u8> = 12..=30;

/// How memory is poisoned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InjectionMethod {
    /// A memslot hole, and SIGBUS raised by the VMM as the host's kernel would raise it. Works on any host.
    #[default]
    Simulate,
    /// `madvise(MADV_HWPOISON)`: the host's kernel poisons the pages. Needs CONFIG_MEMORY_FAILURE and CAP_SYS_ADMIN.
    Madvise,
    /// No page is poisoned. The error is only reported to the guest, as a detected one.
    Notice,
}

impl InjectionMethod {
    /// All methods with their names, for the command line.
    pub const ALL: [(&'static str, InjectionMethod); 3] = [
        ("simulate", InjectionMethod::Simulate),
        ("madvise", InjectionMethod::Madvise),
        ("notice", InjectionMethod::Notice),
    ];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_json_of_a_request_is_that_of_the_control_socket() {
        let request = InjectionRequest {
            gpa: 0x1000,
            log2_len: 12,
            kind: Kind::ActionOptional,
            method: InjectionMethod::Madvise,
        };
        let json = r#"{"gpa":4096,"log2-len":12,"kind":"AO","via":"madvise"}"#;
        assert_eq!(serde_json::to_string(&request).expect("JSON"), json);
        assert_eq!(serde_json::from_str::<InjectionRequest>(json).expect("a request"), request);
    }
}
