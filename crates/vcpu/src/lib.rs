//! vCPUs: their threads, their run loop, their registers.
//!
//! - [`Exit`] is every way in which a guest leaves to the VMM, as one enum that is matched to the end.
//! - [`VcpuPort`] is the little that the run loop needs of a hypervisor; [`KvmPort`] is KVM's. A test scripts its own.
//! - [`run`] is the loop: enter the guest, answer the exit on the [`Bus`], heed the [`Control`].
//! - [`Vcpus`] is a thread for each vCPU, with pause, resume and stop.
//! - [`host`] asks this host's KVM what it can do; [`abilities`] makes of it what a plan needs.
//!
//! What a vCPU's registers hold when it first enters the guest is a matter of the architecture: see `x86_64` and `aarch64`.

#[cfg(target_arch = "aarch64")]
pub mod aarch64;
pub mod abilities;
mod control;
#[cfg(any(target_arch = "aarch64", test))]
mod exception_entry;
mod exit;
pub mod host;
mod kick;
mod kvm_port;
mod port;
mod run_loop;
#[cfg(any(target_arch = "aarch64", test))]
mod stage1;
mod threads;
#[cfg(target_arch = "x86_64")]
pub mod x86_64;

pub use control::{Control, RunState};
pub use exit::Exit;
pub use kvm_port::KvmPort;
pub use port::{Injected, Injection, RunError, VcpuPort};
pub use run_loop::{Bus, End, PoisonAccess, run};
pub use threads::{Ended, ThreadError, Vcpus};
