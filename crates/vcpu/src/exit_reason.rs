//! Why a vCPU left its run loop.

use std::fmt;
use std::io;

/// Why a vCPU left its run loop.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum VcpuExitReason {
    /// [`RunState::Stop`](crate::RunState::Stop) was requested.
    Stopped,
    /// x86: a triple fault.
    TripleFault,
    /// KVM_EXIT_MEMORY_FAULT: KVM could not resolve a fault on guest memory.
    MemoryFault {
        /// First GPA.
        gpa: u64,
        /// Bytes.
        size: u64,
        /// EFAULT or EHWPOISON.
        errno: i32,
    },
    /// KVM_EXIT_FAIL_ENTRY: the processor refused to enter the guest, with the hardware's reason.
    EntryFailed(u64),
    /// KVM_EXIT_INTERNAL_ERROR, with KVM's suberror.
    InternalError(u32),
    /// KVM_EXIT_ARM_NISV: an instruction that the hardware does not decode accessed this GPA, where there is no memory.
    UndecodedAccess(u64),
    /// An exit that the run loop does not handle, with KVM's number (KVM_EXIT_*).
    UnhandledExit(u32),
    /// The vCPU cannot be run, with the failed call and its error.
    RunFailed(String),
    /// An exception could not be injected, with the failed call and its error.
    InjectionFailed(String),
}

impl fmt::Display for VcpuExitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            VcpuExitReason::Stopped => write!(f, "stopped"),
            VcpuExitReason::TripleFault => write!(f, "triple fault"),
            VcpuExitReason::MemoryFault { gpa, size, errno } => {
                let error = io::Error::from_raw_os_error(*errno);
                write!(f, "KVM_EXIT_MEMORY_FAULT: {size} bytes of guest memory at {gpa:#x}: {error}")
            }
            VcpuExitReason::EntryFailed(reason) => {
                write!(
                    f,
                    "KVM_EXIT_FAIL_ENTRY: the processor refused to enter the guest (reason {reason:#x})"
                )
            }
            VcpuExitReason::InternalError(suberror) => {
                // KVM_INTERNAL_ERROR_* (linux/kvm.h).
                let what = match suberror {
                    1 => "KVM cannot emulate an instruction",
                    2 => "simultaneous exceptions",
                    3 => "an event cannot be delivered",
                    4 => "unexpected hardware exit",
                    _ => "unknown",
                };
                write!(f, "KVM_EXIT_INTERNAL_ERROR: {what} (suberror {suberror})")
            }
            VcpuExitReason::UndecodedAccess(gpa) => write!(
                f,
                "KVM_EXIT_ARM_NISV: an instruction that the hardware does not decode accessed {gpa:#x}, where there is no memory"
            ),
            VcpuExitReason::UnhandledExit(reason) => write!(f, "unhandled KVM exit (reason {reason})"),
            VcpuExitReason::RunFailed(error) => f.write_str(error),
            VcpuExitReason::InjectionFailed(error) => write!(f, "injection of an exception: {error}"),
        }
    }
}
