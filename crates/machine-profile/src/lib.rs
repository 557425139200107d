//! Machine profiles: from TOML text to a validated [`Machine`], or to a list of all problems.
//!
//! A profile is the description of a virtual machine that a user writes. [`parse`] turns it into a [`Machine`] in which every
//! default is filled in and every constraint is checked, so that later code need not check again. Otherwise it returns a
//! [`Diagnostic`] for *every* problem: the text to underline, its line and column, the key, what is wrong, and how to correct
//! it.
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
//!     "web.toml:2:1: unknown key `machine.vpcus`\n  help: did you mean `vcpus`?",
//! );
//! assert_eq!(
//!     problems[1].to_string(),
//!     "web.toml:3:10: `machine.memory` cannot be `\"512MB\"`: `MB` is not a unit of memory\n  \
//!      help: write `\"512MiB\"`",
//! );
//! assert_eq!(problems[1].value(), "\"512MB\"");
//!
//! // An override (`--set`) has the same checks, and the value that it replaces is not checked any more.
//! let text = "[machine]\nmemory = \"512MB\"\n";
//! let source = Source { name: "web.toml".to_owned(), text: text.to_owned() };
//! let memory = Override::parse("machine.memory=1GiB")?;
//! let profile = parse(source, &[memory], Arch::X86_64, Path::new(""), &kinds).unwrap();
//! assert_eq!(profile.machine.memory.size, 1 << 30);
//! assert_eq!(profile.machine.name, "web");
//! # Ok::<(), machine_profile::Diagnostic>(())
//! ```
//!
//! # Stages
//!
//! ```text
//! text, --set --> tree ----> settings ----> constraints ----> Machine
//!                 every      every key      between keys,     with every
//!                 value with by itself      and with the      default
//!                 its place  (keys)         architecture      filled in
//!                   |            |               |
//!                   +------------+---------------+----------> all Diagnostics
//! ```
//!
//! `keys` declares the sections and keys: name, form, words, range, default, and one line of documentation. The reader, the
//! JSON Schema ([`schema`](fn@schema)) and the page for users ([`reference`](fn@reference)) follow from these declarations. To
//! add a key, add a declaration in `keys`, a field in [`Machine`], and the line in `settings` that reads it. To add a rule about
//! several keys, add a function in `constraints`. The kinds of `[[device]]` are not part of this crate: the caller provides
//! them ([`device_kind`]).
//!
//! # Non-goals
//!
//! The crate opens no file but the profile, and does not query the host. A kernel that does not exist, or a pool of huge
//! pages that is too small, is detected later; [`Profile::problem`] makes a diagnostic of it that points at the key.
//!
//! # Cost
//!
//! Parsing takes one pass over the text and a few over its tree: the time grows with the length of the text, whatever it holds
//! and however many problems it has. [`load`] reads at most [`MAX_LEN`] bytes. A [`Profile`] keeps the text and the places of
//! its values.

mod constraints;
mod description;
mod device_config;
pub mod device_kind;
mod diagnostic;
mod forms;
mod keys;
mod machine;
mod overrides;
pub mod printable;
mod profile;
mod reader;
mod reference;
mod schema;
mod settings;
mod socket_path;
mod source;
mod suggest;
mod tree;
mod units;

pub use diagnostic::{Diagnostic, Label};
pub use machine::*;
pub use overrides::Override;
pub use profile::{MAX_LEN, Profile, conflicts, load, parse};
pub use reference::reference;
pub use schema::schema;
pub use source::{Place, Source};

/// A VMM parses on one thread, and its devices and vCPUs use the machine on others.
const _: () = {
    const fn is_send_and_sync<T: Send + Sync>() {}
    is_send_and_sync::<Profile>();
    is_send_and_sync::<Machine>();
    is_send_and_sync::<Override>();
    is_send_and_sync::<Diagnostic>();
    is_send_and_sync::<device_kind::DeviceKinds>();
    is_send_and_sync::<device_kind::DeviceConfig>();
};

/// The examples of the README are tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
