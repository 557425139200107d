//! Backing memory of a guest, and the way between guest physical addresses (GPA) and host virtual addresses (HVA).
//!
//! [`GuestRam`] maps host memory for each run of GPA that a machine has RAM at. It hands out
//! - the [slots](GuestRam::slots) that a hypervisor is told of,
//! - a [`vm_memory`] view for loaders and device models,
//! - the two translations that a memory error needs: the kernel names a broken page by its HVA, the guest must be told
//!   its GPA,
//! - [accesses](GuestRam::read) that end in an error where the host has lost the page,
//! - and [fresh pages](GuestRam::renew) in the place of lost ones.
//!
//! How this process hears of poisoned pages, and lives on, is [`sigbus`].
//!
//! Memory comes from one of three [`Backing`]s. Huge pages are taken from the host's pool before the guest starts, so
//! that a pool that is too small is an error with numbers and not a SIGBUS in the middle of a boot.
//!
//! ```
//! use guest_memory::{Backing, GuestRam};
//!
//! let ram = GuestRam::allocate(&[(0, 2 << 20), (4 << 30, 2 << 20)], Backing::Anonymous)?;
//! let hva = ram.host_address((4 << 30) + 0x1234).unwrap();
//! assert_eq!(ram.guest_address(hva), Some((4 << 30) + 0x1234));
//! assert_eq!(ram.host_address(3 << 30), None);
//! # Ok::<(), guest_memory::AllocateError>(())
//! ```

mod access;
mod backing;
mod pages;
mod poison;
mod ram;
mod ranges;
mod recoverable;
mod renew;
pub mod sigbus;

pub use access::{AccessError, PoisonedPage};
pub use backing::{AllocateError, Backing};
pub use ram::{GuestRam, Slot};
