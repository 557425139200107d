//! The harness of the tests.

pub(crate) mod ghest;
pub(crate) mod kernels;
pub(crate) mod machine_checks;
pub(crate) mod needs;
pub(crate) mod pty;
pub(crate) mod scratch;
pub(crate) mod stream;
pub(crate) mod terminal;
pub(crate) mod trials;

pub(crate) use ghest::Ghest;
pub(crate) use needs::Checked;
pub(crate) use scratch::{Profile, Scratch};
pub(crate) use trials::{trial, trials};
