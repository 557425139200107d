//! Injection of memory errors: which memory is poisoned, how, and when.
//!
//! - [`InjectionRequest`] is one error: its place, size, kind and method. `ghest ctl inject` sends one, or a [`RecordRequest`]: any error
//!   record, which poisons nothing. Both together are an [`Injection`].
//! - [`InjectionSpec`] is the argument of `ghest boot --inject`: a request and its trigger.
//! - [`Schedule`] keeps the specs of a boot until their time or their console output has come.
//! - [`from_guest`] is about errors that the guest itself injects.

pub mod from_guest;
mod injection;
mod record;
mod request;
mod schedule;
mod spec;

pub use injection::Injection;
pub use record::{NamedSource, RecordBytes, RecordRequest, RecordSource};
pub use request::{Contradiction, InjectionMethod, InjectionRequest};
pub use schedule::Schedule;
pub use spec::{
    ConsolePattern, InjectionSpec, InjectionSpecError, Trigger, parse_log2_span, parse_number, parse_size,
    parse_time,
};
