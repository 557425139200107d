//! Why a check failed.

use crate::format::{Hex, Show, Sink};

/// The reason in the line `probe: failed WHY`: a text and optionally the wrong value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) what: &'static str,
    pub(crate) value: Option<u64>,
}

impl Failure {
    pub(crate) const fn new(what: &'static str) -> Self {
        Failure { what, value: None }
    }

    pub(crate) const fn with(what: &'static str, value: u64) -> Self {
        Failure { what, value: Some(value) }
    }
}

impl Show for Failure {
    fn show(&self, out: &mut dyn Sink) {
        self.what.show(out);
        if let Some(value) = self.value {
            " ".show(out);
            Hex(value).show(out);
        }
    }
}
