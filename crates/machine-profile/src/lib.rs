//! Machine profiles: TOML text to a validated Machine, every diagnostic with its place.

mod machine;

pub use machine::*;
