//! vCPUs under KVM: threads, run loop, registers, and injection of the exceptions that report memory errors.
//!
//! - [`Exit`] is every way in which a guest exits to the VMM, as one enum that is matched exhaustively.
//! - [`VcpuPort`] is the run loop's interface to a hypervisor; [`KvmPort`] implements it for KVM, a test with a script.
//! - [`run`] is the loop: enter the guest, handle the exit, follow the [`Control`].
//! - [`VcpuEnvironment`] is what handles exits: an [`IoBus`], a [`MemoryErrorHandler`] and a [`VcpuObserver`].
//! - [`Vcpus`] runs each vCPU on a thread, with pause, resume and stop.
//! - [`host`] probes what this host's KVM supports; [`abilities`] puts it into the form that [`ras_core`] plans with.
//!
//! The initial registers of a vCPU depend on the architecture: see the modules `x86_64` and `aarch64`.

#[cfg(target_arch = "aarch64")]
pub mod aarch64;
pub mod abilities;
mod control;
mod core_registers;
mod create_vm;
mod environment;
#[cfg(any(target_arch = "aarch64", test))]
mod exception_entry;
mod exit;
mod exit_reason;
pub mod host;
mod kick;
mod kvm_port;
mod poison_access;
mod port;
mod run_loop;
#[cfg(any(target_arch = "aarch64", test))]
mod stage1;
mod thread_error;
mod threads;
#[cfg(target_arch = "x86_64")]
pub mod x86_64;

pub use control::{Control, RunState};
pub use core_registers::{Aarch64Registers, CoreRegisters, SegmentRegister, X86_64Registers};
pub use create_vm::uninterrupted;
pub use environment::{IoBus, MemoryErrorHandler, Unmapped, VcpuEnvironment, VcpuObserver};
pub use exit::Exit;
pub use exit_reason::VcpuExitReason;
pub use kick::KickFlag;
pub use kvm_port::KvmPort;
pub use poison_access::PoisonAccess;
pub use port::{Injected, Injection, RunError, VcpuPort};
pub use run_loop::run;
pub use thread_error::ThreadError;
pub use threads::{VcpuExited, Vcpus};

/// Which public types may be sent to and shared with other threads.
const _: () = {
    const fn send<T: Send>() {}
    const fn send_and_sync<T: Send + Sync>() {}
    send::<KvmPort>();
    send::<Exit<'_>>();
    send_and_sync::<Control>();
    send_and_sync::<RunState>();
    send_and_sync::<CoreRegisters>();
    send_and_sync::<VcpuEnvironment>();
    send_and_sync::<Unmapped>();
    send_and_sync::<VcpuExitReason>();
    send_and_sync::<KickFlag>();
    send_and_sync::<PoisonAccess>();
    send_and_sync::<Injected>();
    send_and_sync::<Injection>();
    send_and_sync::<RunError>();
    send_and_sync::<ThreadError>();
    send_and_sync::<VcpuExited>();
    send_and_sync::<Vcpus>();
    send_and_sync::<host::Host>();
    send_and_sync::<host::OpenError>();
};

/// The example of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
