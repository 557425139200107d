//! Machine profiles: TOML text to a validated [`Machine`], or to everything that is wrong with it.
//!
//! A profile is what a person writes to describe a virtual machine. This crate turns it into a [`Machine`] in which no
//! default is left open and no combination is impossible, so that nothing behind it has to ask again. Where it cannot,
//! it gives a [`Diagnostic`] for *every* problem: the text to underline, its line and column, the key, what is wrong,
//! and the way out.
//!
//! ```
//! use std::path::Path;
//!
//! use machine_profile::device_kind::DeviceKinds;
//! use machine_profile::{Override, Source, parse};
//! use platform::Arch;
//!
//! // This program has no kinds of `[[device]]`.
//! let kinds = DeviceKinds::default();
//! let text = "[machine]\nvpcus = 2\nmemory = \"512MB\"\n";
//! let source = Source { name: "web.toml".to_owned(), text: text.to_owned() };
//! let problems = parse(source, &[], Arch::X86_64, Path::new(""), &kinds).unwrap_err();
//!
//! assert_eq!(
//!     problems[0].to_string(),
//!     "web.toml:2:1: there is no key `machine.vpcus`\n  help: did you mean `vcpus`?",
//! );
//! assert_eq!(
//!     problems[1].to_string(),
//!     "web.toml:3:10: `machine.memory` cannot be `\"512MB\"`: `MB` is no unit of memory\n  \
//!      help: write `\"512MiB\"`",
//! );
//! assert_eq!(problems[1].value(), "\"512MB\"");
//!
//! // `--set` goes through the same door, and what it replaces is no longer wrong.
//! let text = "[machine]\nmemory = \"512MB\"\n";
//! let source = Source { name: "web.toml".to_owned(), text: text.to_owned() };
//! let memory = Override::parse("machine.memory=1GiB")?;
//! let profile = parse(source, &[memory], Arch::X86_64, Path::new(""), &kinds).unwrap();
//! assert_eq!(profile.machine.memory.size, 1 << 30);
//! assert_eq!(profile.machine.name, "web");
//! # Ok::<(), machine_profile::Diagnostic>(())
//! ```
//!
//! # The way through it
//!
//! ```text
//! text, --set --> tree ----> answers ------> combinations ---> Machine
//!                 every       every key by    what keys say     every
//!                 value with  itself, read    together, and     default
//!                 its place   by `keys`       to the arch       filled in
//!                   |            |               |
//!                   +------------+---------------+-----------> all Diagnostics
//! ```
//!
//! `keys` is the one description of what a profile may say: name, form, words, range, default and one line about each
//! key. The reader reads by it, and [`schema`] is made of it. A new key is one entry there, one field in [`Machine`] and
//! one line that joins the two; a rule about several keys is one function in `combinations`.
//!
//! # What it does not do
//!
//! It opens no file but the profile, and asks nothing of the host: a kernel that is not there, or a pool of huge pages
//! that is too small, shows later. [`Profile::problem`] makes a diagnostic of such a finding that points at the key that
//! asked for it.
//!
//! # Cost
//!
//! A profile is read in one pass over its text and a few over its tree. Nothing is kept but the places of its values.

mod answers;
mod combinations;
mod description;
pub mod device_kind;
mod diagnostic;
mod forms;
mod keys;
mod machine;
mod overrides;
mod profile;
mod reader;
mod schema;
mod source;
mod suggest;
mod tree;
mod units;

pub use diagnostic::{Diagnostic, Label};
pub use machine::*;
pub use overrides::Override;
pub use profile::{Profile, clashes, load, parse};
pub use schema::schema;
pub use source::{Place, Source};
