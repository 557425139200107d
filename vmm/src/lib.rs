//! The VMM of Ghesthouse: wires profile, tables, memory, devices and vCPUs into a running machine.
//!
//! ```text
//! Machine -> plan     -> Blueprint: Platform, GuestTables, and how memory errors are handled    pure
//!         -> boot     -> guest memory, Entry          files
//!         -> kvm      -> KvmVm, vCPUs                 KVM
//!         -> machine  -> devices on the bus, threads  runs until the first Ending
//! ```
//!
//! The `ghest` command is a thin layer over this library.

pub mod board;
pub mod boot;
pub mod bus;
pub mod command_line;
pub mod console;
pub mod control;
pub mod describe;
pub mod dump;
mod elf;
pub mod journal;
pub mod kvm;
pub mod ledger_file;
pub mod lifecycle;
pub mod log_limit;
pub mod machine;
pub mod metrics;
pub mod notify;
pub mod plan;
pub mod progress;
pub mod ras;
mod rate;
pub mod signals;
pub mod startup;
pub mod status;
pub mod stderr;
pub mod timings;
