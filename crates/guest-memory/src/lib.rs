//! Backing memory of a guest: allocation, translation between guest physical addresses (GPA) and host virtual addresses (HVA), and
//! survival of memory errors.
//!
//! [`GuestRam`] maps host memory for each region of guest memory. It provides
//! - the [slots](GuestRam::slots) to register with a hypervisor,
//! - a [`vm_memory`] view for loaders and device models,
//! - both translations that a memory error needs: the kernel names a poisoned page by its HVA, the guest needs its GPA,
//! - [accesses](GuestRam::read) that return an error if a page is poisoned,
//! - [replacement](GuestRam::replace_pages) of poisoned pages by zeroed ones,
//! - and [retirement](GuestRam::retire) of pages of the host that are suspect.
//!
//! [`sigbus`] is how this process is notified of poisoned pages and survives an access to one.
//!
//! Memory comes from one of three [`Backing`]s. Huge pages are allocated before the guest starts, so that a pool that is too small
//! is an error with numbers and not a SIGBUS in the middle of a boot.
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
mod file;
pub mod own;
mod pages;
mod poison;
mod population;
mod ram;
mod ranges;
mod recoverable;
mod replace;
mod retire;
pub mod sigbus;

pub use access::{AccessError, PoisonedPage};
pub use backing::{AllocateError, Backing};
pub use file::{MemoryFile, MemoryFileError, MemoryFileId};
pub use population::Population;
pub use ram::{GuestRam, Memslot, SharedRegion};
pub use retire::{RetireError, RetiredPage};

/// Every public type may be sent to and shared with other threads.
const _: () = {
    const fn send_and_sync<T: Send + Sync>() {}
    send_and_sync::<GuestRam>();
    send_and_sync::<Memslot>();
    send_and_sync::<Backing>();
    send_and_sync::<AllocateError>();
    send_and_sync::<MemoryFile>();
    send_and_sync::<MemoryFileError>();
    send_and_sync::<MemoryFileId>();
    send_and_sync::<AccessError>();
    send_and_sync::<PoisonedPage>();
    send_and_sync::<Population<'_>>();
    send_and_sync::<RetireError>();
    send_and_sync::<RetiredPage>();
    send_and_sync::<sigbus::AoListener>();
    send_and_sync::<sigbus::Fault>();
    send_and_sync::<sigbus::Action>();
    send_and_sync::<sigbus::FatalSignal>();
};

/// The example of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
