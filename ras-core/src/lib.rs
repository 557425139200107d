//! What a virtual machine monitor (VMM) does when memory of its guest is poisoned. No KVM, no I/O: the abilities of the host, the guest's
//! tables and registers come in as values, and actions come out.
//!
//! A guest that is notified of an uncorrected memory error loses one process; a guest that is not loses everything. How it can be notified
//! depends on its architecture, on the tables that it booted with, and on the host. This crate decides that in one place, before the guest
//! boots, and carries it out when an error occurs.
//!
//! # Overview
//!
//! ```text
//!  Request ────────┐  what the user requests
//!  HostAbilities ──┤  what KVM and the host's kernel support
//!  TablesView ─────┤  what the guest's tables describe           ErrorSource ─► RecordArea ─► HEST
//!                  ▼                                                              │ a Claim for each block
//!                plan() ─► Plan ─► Responder ◄────────────────────────────────────┘
//!                                   │   ▲
//!  MemoryError ──► report() ───────►│   │ acknowledge register, vCPU state (ResponderContext)
//!  time ─────────► tick() ─────────►│   │
//!                                   ▼   │
//!                  ledger ◄── reporter ─┴─► Action, Action, ... ─► the VMM: memory, interrupts, vCPUs
//!                                ghes · machine_check · external_abort · stop · ignore
//! ```
//!
//! 1. **Request.** A [`request::Request`] is the response that a user wants for each class of error; [`abilities::HostAbilities`] is what
//!    a host supports, this one or another.
//! 2. **Layout.** [`plan::sources_wanted`] lists the error sources, [`RecordArea::lay_out`] gives each its address cell, acknowledge
//!    register and status block, and [`GenericErrorSourceV2`] is its entry of HEST.
//! 3. **Plan.** [`plan::plan`] takes the tables that were built, not those that were intended: it never promises a record that no table
//!    describes. Each [`plan::ResponsePlan`] has the requested response, the candidates, the chosen one and the reason; the rows are the
//!    [decision table](plan::decision).
//! 4. **Response.** A [`responder::Responder`] turns each [`MemoryError`] into [`actions::Action`]s, in order: memory to write, an
//!    exception to inject, an interrupt to raise, a vCPU to hold, or a stop with its reason. They are made by the [`reporters`].
//! 5. **Acknowledgement.** A status block is written again only after the guest has read it ([`handshake`]). Errors in between are queued,
//!    with a timeout. [`responder::Responder::tick`] checks for it, at `deadline_ns` at the latest.
//! 6. **Ledger.** The [`ledger`] has every poisoned page: what consumed it, how the guest was notified, whether it acknowledged, what may
//!    be repaired ([`ledger::Ledger::repairable_after`]), and what the guest must not use after a reset
//!    ([`ledger::Ledger::poisoned_ranges`]).
//!
//! # Example
//!
//! ```
//! use core::num::NonZeroU32;
//! use ras_core::abilities::{Fact, HostAbilities, MemoryFailure};
//! use ras_core::acceptance::linux_accepts;
//! use ras_core::plan::{TablesView, plan, sources_wanted};
//! use ras_core::request::{OnMissingSupport, Repair, Request};
//! use ras_core::{Arch, Description, Kind, MemoryBlocks, MemoryReport, RecordArea, Response, Span, StatusBlock, TableSet};
//!
//! let request = Request {
//!     arch: Arch::Aarch64,
//!     tables: TableSet::Acpi,
//!     synchronous: None, // auto
//!     asynchronous: None,
//!     corrected: None,
//!     corrected_threshold: None,
//!     poll_interval_ms: NonZeroU32::new(1_000).unwrap(),
//!     on_missing_support: OnMissingSupport::Refuse,
//!     repair: Repair::WhenAcknowledged,
//! };
//! let mut host = HostAbilities::unknown(Arch::Aarch64);
//! host.memory_failure = MemoryFailure { handled: Fact::Yes, recovery: Fact::Yes, early_kill: Fact::No };
//!
//! // The table builder lays out the sources and returns the area.
//! let sources: Vec<_> = sources_wanted(&request, &host, None).collect();
//! let area = RecordArea::lay_out(0x4010_0000, 1 << 20, &sources)?;
//! let tables = TablesView { set: TableSet::Acpi, record_area: Some(&area), error_device: true };
//! let plan = plan(&request, &host, &tables)?;
//! for response in [&plan.consumed, &plan.detected] {
//!     println!("error {}: {}, {}", response.class.description(), response.chosen, response.reason);
//! }
//! assert_eq!(plan.consumed.chosen, Response::Sea);
//!
//! // The record of a poisoned page, as the guest reads it.
//! let slot = area.slot(plan.consumed.source.unwrap()).unwrap();
//! let mut block = [0; 4096];
//! let record = MemoryReport::uncorrected(Kind::ActionRequired, 1_545_416_260, 1);
//! MemoryBlocks::new(Span::around(0x5234_5678, 12), record).write_next(&mut block)?;
//! print!("{}", Description::of_block(&StatusBlock::read(&block)?));
//! println!("Linux {}", linux_accepts(&block, slot.block_len, slot.source.notification)?);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! `cargo run -p ghest-ras-core --example plan` continues with plans for other guests and the actions for one error; `--example record` prints a
//! larger record; `--example two_vcpus` shows two vCPUs that access one poisoned page, from the first access to the repair.
//!
//! # What the VMM must do
//!
//! - Carry out actions in order, and do not enter a vCPU that reported an error before its report has returned.
//! - Hold a vCPU from [`actions::Action::Hold`] until an exception for it or [`actions::Action::Release`]. The record of a held vCPU is
//!   written, then its exception is injected: it must not run in between.
//! - Read the clock first, then the acknowledge registers, then call: a register that was read before a record was written is not taken as
//!   its acknowledgement.
//! - Serialise the calls: a [`responder::Responder`] is `Send`; put it behind a lock for several vCPU threads.
//! - Keep the record area out of the guest's usable memory, and never move it: Linux maps parts of it once.
//!
//! # Parts that can be used alone
//!
//! | to | use | heap |
//! |---|---|---|
//! | write a record | [`MemoryBlocks`] for memory, [`BlockWriter`] with sections of [`cper`] for others | none; a test counts |
//! | read a record | [`StatusBlock`], [`Record`](cper::record::Record) | none; [`Description`], the text form, allocates |
//! | read a file of records | [`Decoded`], of bytes or of [hexadecimal text](bytes_of_hex_text) | yes |
//! | make one of a description | [`Description::encode`] | yes |
//! | check whether Linux accepts it | [`acceptance`] | yes |
//! | build HEST and its record area | [`RecordArea`], [`GenericErrorSourceV2`], [`Notification`] | the list of sources |
//! | decide | [`mod@plan`] with [`abilities`] and [`request`] | yes, before the boot |
//! | serialise writes to a status block | [`handshake`] | none |
//! | do everything | [`responder`] | at the start, and in [`Responder::reserve`](responder::Responder::reserve); none per error |
//!
//! The crate is `no_std` and requires `alloc`.
//!
//! # Features
//!
//! All are enabled by default. [`responder::Responder::new`] returns an error for a plan whose reporter is not built.
//!
//! | feature | adds |
//! |---|---|
//! | `ghes` | the reporter that writes records; enables `external-abort`, its fallback |
//! | `machine-check` | x86 machine checks |
//! | `external-abort` | synchronous external aborts and SErrors of arm64 |
//! | `serde` | serialisation of plan, host abilities and ledger |
//!
//! # Cost
//!
//! `cargo bench -p ghest-ras-core` prints times of this machine. With the encoding of a record of one page as 1, a plan costs about 12, a look-up
//! among 100,000 poisoned pages about 6 (most of it cache misses), and a response from the report to the last action about 12 with a record
//! and an abort, about 5 with a machine check.
//!
//! # Sources
//!
//! Sections are those of ACPI 6.5 and UEFI 2.10. The behaviour of Linux is that of 6.1 to 7.x, and is mentioned where it matters.
#![no_std]

extern crate alloc;

pub mod acceptance;
pub mod cper;
mod decode_error;
mod decoded;
mod description;
mod encode_error;
mod encoded;
mod error_source;
mod fru_text;
mod generic_address;
mod guid;
mod layout;
mod memory_blocks;
mod memory_error;
mod notification;
mod record_area;
mod severity;
pub mod status_block;
mod timestamp;

pub use decode_error::{DecodeError, Expected};
pub use decoded::{Decoded, HexTextError, HexTextProblem, NotOneBlock, bytes_of_hex_text};
pub use description::{Description, Value};
pub use encode_error::{EncodeError, EncodeProblem};
pub use error_source::{ErrorSource, GenericErrorSourceV2};
pub use fru_text::FruText;
pub use generic_address::GenericAddress;
pub use guid::Guid;
pub use memory_blocks::{MAX_MEMORY_ENTRIES, MemoryBlocks, MemoryReport, PartName, blocks_needed};
pub use memory_error::{Kind, MemoryError, Origin, Span};
pub use notification::{Notification, NotificationStructure};
pub use record_area::{LayoutError, RecordArea, RecordSlot};
pub use severity::Severity;
pub use status_block::{BlockWriter, BufferTooSmall, Heading, StatusBlock};
pub use timestamp::{TimeEncoding, Timestamp};

pub mod abilities;
pub mod actions;
mod corrected;
pub mod handshake;
pub mod ledger;
pub mod plan;
mod progress;
mod queue;
pub mod reporters;
pub mod request;
pub mod responder;
mod response;
pub mod vcpu_state;

pub use corrected::{CorrectedErrors, Threshold};
pub use request::{Arch, TableSet};
pub use response::Response;

/// The example of the README, run as a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
