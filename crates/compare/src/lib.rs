//! Two boots of one guest, side by side: once described by ACPI, once by what its architecture had before ACPI.
//!
//! ```text
//! Recording, Recording   what two boots left: console, event file, timings, how each ended
//!   -> rules             which of the console's lines tell what (data: rules/*.toml)
//!   -> Comparison        sections of rows, a value for each side; plain data, and JSON as it is
//!   -> text, html        for a terminal, for a browser
//! ```
//!
//! All of it is pure: whoever boots the guests is not here. What a guest wrote is hostile input; it becomes printable
//! ASCII when it is recorded ([`Console`]), and can make nothing here panic, grow without bounds, or leave its cell.

mod comparison;
mod console;
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

pub use comparison::{Comparison, FORMAT, Machine, Row, Section, Side};
pub use console::{Console, Line, printable};
pub use events::Milestone;
pub use html::html;
pub use recording::{Answer, Change, Ending, Host, Lack, Plan, Recording, Table};
pub use sections::Only;
pub use story::{Acknowledged, Notified, Record, Seen, Story};
pub use text::{Look, text};
