//! Compares two boots of one guest: one described by ACPI, one by the architecture's other table set (devicetree or MP
//! table).
//!
//! ```text
//! Recording, Recording   input: console, event file, timings and ending of two boots
//!   -> rules             which console line means what (data: rules/*.toml)
//!   -> Comparison        sections of rows with one value list per side; plain data, serialisable as JSON
//!   -> text, html        output for a terminal or a browser
//! ```
//!
//! The crate is pure: it boots nothing and reads no files. Console text is untrusted. It is reduced to printable ASCII
//! when it is recorded ([`Console`]), its size is bounded, and HTML output escapes it.
//!
//! # Example
//! ```
//! use compare::{Comparison, Console, Ending, HostSummary, Look, MachineSummary, Only, Recording, text};
//!
//! let boot = |tables: &str, line: &str| {
//!     let mut console = Console::default();
//!     console.push(1_000_000, line.as_bytes());
//!     console.finish();
//!     Recording {
//!         tables: tables.into(),
//!         changes: Vec::new(),
//!         plan: None,
//!         console,
//!         events: String::new(),
//!         timings: String::new(),
//!         stderr: String::new(),
//!         ending: Ending::Exited { status: 0, after_ns: 2_000_000 },
//!     }
//! };
//! let recordings = [boot("acpi", "probe: firmware acpi\n"), boot("mptable", "probe: firmware mptable\n")];
//! let machine = MachineSummary { kernel: "builtin:probe".into(), vcpus: 1, ..MachineSummary::default() };
//! let comparison = Comparison::new(machine, HostSummary::default(), Vec::new(), &recordings, Only::All);
//! assert!(comparison.row("found", "described-by").is_some_and(|row| row.differs));
//! print!("{}", text(&comparison, Look { width: 80, colour: false, fold: false }));
//! ```

mod assembly;
mod comparison;
mod console;
mod escape;
mod events;
mod html;
mod pattern;
mod recording;
mod rules;
mod sections;
mod story;
mod text;
mod timeline;
mod units;
mod wrap;

pub use comparison::{Comparison, FORMAT, MachineSummary, Row, Section, Side};
pub use console::{Console, Line, printable};
pub use events::Milestone;
pub use html::html;
pub use recording::{Answer, Change, Ending, HostSummary, Lack, PlanSummary, Recording, Table};
pub use sections::Only;
pub use story::{Acknowledged, Notified, Record, Seen, Story};
pub use text::{Look, text};
