//! What a virtual machine monitor does when memory of its guest breaks. No KVM, no I/O: the host, the guest's tables and the guest's
//! memory come in as values, and what is to be done comes out as values.
//!
//! For authors of virtual machine monitors. A guest that is told the truth about broken memory loses a process; one that is not loses the
//! machine. What the truth looks like depends on the tables that the guest booted with, on the architecture and on the host, and it must
//! be decided at one place, before anything boots.
//!
//! # The way
//!
//! ```text
//!  Request ────────┐  what the user asked for
//!  HostAbilities ──┤  what KVM and the host's kernel can do
//!  TablesView ─────┤  what the guest's tables really hold        ErrorSource ─► RecordArea ─► HEST
//!                  ▼                                                              │ a Claim for each block
//!                plan() ─► Plan ─► Responder ◄────────────────────────────────────┘
//!                                   │   ▲
//!  MemoryError ──► report() ───────►│   │ acknowledge register, state of the vCPU (ResponderContext)
//!  time ─────────► tick() ─────────►│   │
//!                                   ▼   │
//!                  ledger ◄── reporter ─┴─► Action, Action, ... ─► the VMM: memory, interrupts, vCPUs
//!                                ghes · machine_check · external_abort · stop · ignore
//! ```
//!
//! 1. **Asked.** A [`request::Request`] is what a user wants for each kind of error; [`abilities::HostAbilities`] is what this host, or
//!    one that is not here, can do.
//! 2. **Laid out.** [`plan::sources_wanted`] names the error sources, [`RecordArea::lay_out`] gives each its address cell, acknowledge
//!    register and status block, and [`GenericErrorSourceV2`] is the entry of HEST that leads there.
//! 3. **Planned.** [`plan::plan`] takes what was built, not what was meant to be: it never promises a record that no table leads to. Each
//!    [`plan::Answer`] says what was asked, what is possible, what was chosen and why; the rows are the [decision table](plan::decision).
//! 4. **Answered.** A [`responder::Responder`] takes each [`MemoryError`] and gives [`actions::Action`]s, in order: memory to write, an
//!    exception for a vCPU, an interrupt, a vCPU to hold, or a stop with an account. Those who know how are the [`reporters`].
//! 5. **Acknowledged.** A status block is written again only after the guest has read it ([`handover`]); what comes in between waits, and
//!    a guest that never reads is not waited for. [`responder::Responder::tick`] looks, at `deadline_ns` at the latest.
//! 6. **Remembered.** The [`ledger`] has every poisoned page: who consumed it, what the guest was told, whether it acknowledged, what may be
//!    repaired ([`ledger::Ledger::repairable_after`]), what a guest that starts anew must not use ([`ledger::Ledger::lost`]).
//!
//! # From the plan to the guest's log
//!
//! ```
//! use core::num::NonZeroU32;
//! use ras_core::abilities::{Fact, HostAbilities, MemoryFailure};
//! use ras_core::acceptance::linux_accepts;
//! use ras_core::plan::{TablesView, plan, sources_wanted};
//! use ras_core::request::{Arch, Asynchronous, OnMissingSupport, Repair, Request, Synchronous, TableSet};
//! use ras_core::{Description, Kind, MemoryBlocks, MemoryReport, RecordArea, Response, Span, StatusBlock};
//!
//! let request = Request {
//!     arch: Arch::Aarch64,
//!     tables: TableSet::Acpi,
//!     synchronous: Synchronous::Auto,
//!     asynchronous: Asynchronous::Auto,
//!     poll_interval_ms: NonZeroU32::new(1_000).unwrap(),
//!     on_missing_support: OnMissingSupport::Refuse,
//!     repair: Repair::WhenAcknowledged,
//! };
//! let mut host = HostAbilities::unknown(Arch::Aarch64);
//! host.memory_failure = MemoryFailure { handled: Fact::Yes, recovery: Fact::Yes, early_kill: Fact::No };
//!
//! // The table builder lays the sources out and hands the area back.
//! let sources: Vec<_> = sources_wanted(&request, &host, None).collect();
//! let area = RecordArea::lay_out(0x4010_0000, 1 << 20, &sources)?;
//! let tables = TablesView { set: TableSet::Acpi, record_area: Some(&area), error_device: true };
//! let plan = plan(&request, &host, &tables)?;
//! for answer in [&plan.consumed, &plan.detected] {
//!     println!("{}: {}, because {}", answer.class.title(), answer.chosen, answer.because);
//! }
//! assert_eq!(plan.consumed.chosen, Response::Sea);
//!
//! // The record of a poisoned page, as the guest will find it.
//! let slot = area.slot(plan.consumed.source.unwrap()).unwrap();
//! let mut block = [0; 4096];
//! let record = MemoryReport::uncorrected(Kind::ActionRequired, 1_545_416_260, 1);
//! MemoryBlocks::new(Span::around(0x5234_5678, 12), record).write_next(&mut block)?;
//! print!("{}", Description::of_block(&StatusBlock::read(&block)?));
//! println!("Linux {}", linux_accepts(&block, slot.block_len, slot.source.notification)?);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! `cargo run -p ras-core --example plan` goes on from there with plans for other guests and the actions for one error; `--example record`
//! shows a wider record in full; `--example two_vcpus` shows two vCPUs on one bad page, from the first touch to the repair.
//!
//! # What your VMM must do
//!
//! - Carry actions out in the order in which they come, and enter no vCPU that reported an error before its report has returned.
//! - Hold a vCPU from [`actions::Action::Hold`] to an exception for it or [`actions::Action::Release`]. The record of a held vCPU is
//!   written, then its exception is given: nothing lets it run in between.
//! - Read the clock first, then the acknowledge registers, then call: what was read before a record was written is not its
//!   acknowledgement.
//! - Call one at a time: a [`responder::Responder`] is `Send`, and behind a lock for several vCPU threads.
//! - Keep the record area out of the guest's free memory, and never move it: Linux maps some of it once.
//!
//! # What to take alone
//!
//! | wanted | take | heap |
//! |---|---|---|
//! | a record, written | [`MemoryBlocks`] for memory, [`BlockWriter`] with sections of [`cper`] for others | none is used; a test counts |
//! | a record, read | [`StatusBlock`], [`Decoded`] for blocks and whole CPER records | none; [`Description`], the words for people, allocates |
//! | whether Linux takes it | [`acceptance`] | yes |
//! | entries of HEST and where they lead | [`RecordArea`], [`GenericErrorSourceV2`], [`Notification`] | the list of sources |
//! | the decision | [`mod@plan`] with [`abilities`] and [`request`] | yes, before the boot |
//! | who may write a block when | [`handover`] | none |
//! | everything | [`responder`] | at the start; none while errors are answered, until the ledger grows past 1024 entries |
//!
//! All of it is `no_std`. The crate as a whole links `alloc`, so that a program without an allocator cannot depend on it, even for the
//! encoder that uses none.
//!
//! # Features
//!
//! All are on by default. Answers whose reporter is left out are refused by [`responder::Responder::new`], not replaced.
//!
//! | feature | what it adds |
//! |---|---|
//! | `ghes` | the reporter that writes records; takes `external-abort` with it, its fallback |
//! | `machine-check` | x86 machine checks |
//! | `external-abort` | synchronous external aborts and SErrors of arm64 |
//! | `serde` | plan, host abilities and ledger can be written and read |
//!
//! # Cost
//!
//! `cargo bench -p ras-core` prints times of this machine. Their relation is steadier: with the encoding of a record about one page as 1,
//! a plan costs about 12, a look-up among 100,000 poisoned pages about 6 (most of it memory that is not in the cache), and an answer from the
//! report to the last action about 12 with a record and an abort, about 5 with a machine check.
//!
//! # Sources
//!
//! Sections are those of ACPI 6.5 and UEFI 2.10. What Linux does is that of 6.1 to 7.x, and said where it matters.
#![no_std]

extern crate alloc;

pub mod acceptance;
pub mod cper;
mod decode_error;
mod decoded;
mod description;
mod error_source;
mod fru_text;
mod generic_address;
mod guid;
mod memory_blocks;
mod memory_error;
mod notification;
mod record_area;
mod severity;
pub mod status_block;
mod timestamp;

pub use decode_error::{DecodeError, Wanted};
pub use decoded::Decoded;
pub use description::{Description, Value};
pub use error_source::{ErrorSource, GenericErrorSourceV2};
pub use fru_text::FruText;
pub use generic_address::GenericAddress;
pub use guid::Guid;
pub use memory_blocks::{MAX_MEMORY_ENTRIES, MemoryBlocks, MemoryReport, blocks_needed};
pub use memory_error::{Kind, MemoryError, Origin, Span};
pub use notification::{Notification, NotificationStructure};
pub use record_area::{LayoutError, RecordArea, Slot};
pub use severity::Severity;
pub use status_block::{BlockWriter, Heading, NoRoom, StatusBlock};
pub use timestamp::Timestamp;

pub mod abilities;
pub mod actions;
pub mod handover;
pub mod ledger;
pub mod plan;
mod progress;
mod queue;
pub mod reporters;
pub mod request;
pub mod responder;
mod response;
pub mod vcpu_state;

pub use response::Response;
