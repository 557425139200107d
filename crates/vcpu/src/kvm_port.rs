//! A KVM vCPU as the run loop's port.

use std::io;

use guest_memory::GuestRam;
use kvm_ioctls::{VcpuExit, VcpuFd};
use ras_core::vcpu_state::VcpuState;

#[cfg(target_arch = "aarch64")]
use crate::aarch64 as arch;
use crate::core_registers::CoreRegisters;
use crate::exit::Exit;
use crate::kick::KickFlag;
use crate::poison_access::PoisonAccess;
use crate::port::{Injected, Injection, RunError, VcpuPort};
#[cfg(target_arch = "x86_64")]
use crate::x86_64 as arch;

/// A KVM vCPU.
#[derive(Debug)]
pub struct KvmPort {
    fd: VcpuFd,
    exceptions: arch::Exceptions,
    /// The abort of the last exit, if that was KVM_EXIT_ARM_SEA.
    abort: Option<Abort>,
    /// The guest's memory: its page tables are walked for the address of an access that KVM does not report.
    ram: GuestRam,
}

/// The syndrome of a synchronous external abort.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Abort {
    /// ESR_EL2.
    pub(crate) esr: u64,
    /// Virtual address that the guest used (FAR_EL2). Valid if FnV of the syndrome is clear.
    pub(crate) gva: u64,
}

impl KvmPort {
    /// Makes a port of a vCPU whose registers are set. `ram` is the memory of its guest.
    #[must_use]
    pub fn new(fd: VcpuFd, ram: GuestRam) -> Self {
        KvmPort { fd, exceptions: arch::Exceptions::new(), abort: None, ram }
    }

    /// An exit that kvm-ioctls does not decode.
    fn other_exit(&mut self) -> Exit<'static> {
        let run = self.fd.get_kvm_run();
        match run.exit_reason {
            KVM_EXIT_ARM_SEA => {
                let ArmSea { flags, esr, gva, gpa } = arm_sea(run);
                self.abort = Some(Abort { esr, gva });
                Exit::ArmSea { esr, gva, gpa: (flags & ARM_SEA_GPA_VALID != 0).then_some(gpa) }
            }
            KVM_EXIT_ARM_NISV => Exit::UndecodedAccess { gpa: fault_gpa(run) },
            reason => Exit::Unexpected { reason },
        }
    }
}

/// Entries with `immediate_exit` after which a pending access is complete: an access of 16 bytes has at most two parts on each of two
/// pages, and this is twice as many.
const MAX_ACCESS_PARTS: usize = 8;

/// KVM_EXIT_ARM_NISV (linux/kvm.h).
const KVM_EXIT_ARM_NISV: u32 = 28;
/// KVM_EXIT_ARM_SEA (linux/kvm.h, 6.19).
const KVM_EXIT_ARM_SEA: u32 = 41;
/// KVM_EXIT_ARM_SEA_FLAG_GPA_VALID.
const ARM_SEA_GPA_VALID: u64 = 1;

/// `arm_sea` of `struct kvm_run` (linux/kvm.h, 6.19).
#[derive(Clone, Copy)]
#[repr(C)]
struct ArmSea {
    flags: u64,
    esr: u64,
    gva: u64,
    gpa: u64,
}

const _: () = assert!(size_of::<ArmSea>() <= size_of::<kvm_bindings::kvm_run__bindgen_ty_1>());

impl VcpuPort for KvmPort {
    #[expect(unsafe_code, reason = "slices of the run page are made from pointers")]
    fn run(&mut self) -> Result<Exit<'_>, RunError> {
        // kvm-ioctls does not pass on all fields of an exit (the width of a port access, the suberror). They are read from `kvm_run`
        // after its borrow has ended, so the data of an access goes through a pointer meanwhile: a mutable one for reads, a shared one
        // for writes.
        enum Access {
            PortIn(u16, *mut [u8]),
            PortOut(u16, *const [u8]),
            MmioRead(u64, *mut [u8]),
            MmioWrite(u64, *const [u8]),
        }
        self.abort = None;
        let access = match self.fd.run() {
            Ok(VcpuExit::IoIn(port, data)) => Access::PortIn(port, data),
            Ok(VcpuExit::IoOut(port, data)) => Access::PortOut(port, data),
            Ok(VcpuExit::MmioRead(gpa, data)) => Access::MmioRead(gpa, data),
            Ok(VcpuExit::MmioWrite(gpa, data)) => Access::MmioWrite(gpa, data),
            Ok(VcpuExit::InternalError) => {
                let suberror = suberror(self.fd.get_kvm_run());
                return Ok(Exit::InternalError { suberror, at: arch::instruction_gpa(&self.fd) });
            }
            Ok(VcpuExit::Shutdown) => return Ok(Exit::Shutdown),
            Ok(VcpuExit::SystemEvent(kind, _)) => return Ok(Exit::SystemEvent { kind }),
            Ok(VcpuExit::FailEntry(reason, _)) => return Ok(Exit::EntryFailed { reason }),
            Ok(VcpuExit::Intr) => return Ok(Exit::Interrupted),
            // KVM completes the access at the next entry: it raises #GP if there is an error.
            #[cfg(target_arch = "x86_64")]
            Ok(VcpuExit::X86Wrmsr(write)) => {
                *write.error = (!arch::machine_check::ignores_write(write.index, write.data)).into();
                return Ok(Exit::Interrupted);
            }
            #[cfg(target_arch = "x86_64")]
            Ok(VcpuExit::X86Rdmsr(read)) => {
                *read.error = 1;
                return Ok(Exit::Interrupted);
            }
            Ok(VcpuExit::MemoryFault { flags, gpa, size }) => {
                let errno = io::Error::last_os_error().raw_os_error().unwrap_or(libc::EFAULT);
                return Ok(Exit::MemoryFault { gpa, size, flags, errno });
            }
            Ok(_) => return Ok(self.other_exit()),
            // EINTR: a signal. EAGAIN: an application processor that was just started, or is not started yet.
            Err(error) if matches!(error.errno(), libc::EINTR | libc::EAGAIN) => {
                return Ok(Exit::Interrupted);
            }
            Err(error) => return Err(RunError::of("KVM_RUN")(error)),
        };
        // SAFETY, of all four: the pointer is of a slice that kvm-ioctls has just made of this vCPU's mapping, which exists as long as
        // the vCPU. Port data is outside `kvm_run` itself, which is all that `port_width` borrows in between; MMIO data is used
        // without a borrow in between. The result borrows the vCPU mutably, so nothing else accesses the mapping meanwhile.
        Ok(match access {
            Access::PortIn(port, data) => {
                let width = port_width(self.fd.get_kvm_run()).into();
                // SAFETY: see above.
                Exit::PortIn { port, width, data: unsafe { exclusive_bytes(&mut self.fd, data) } }
            }
            Access::PortOut(port, data) => {
                let width = port_width(self.fd.get_kvm_run()).into();
                // SAFETY: see above.
                Exit::PortOut { port, width, data: unsafe { shared_bytes(&mut self.fd, data) } }
            }
            Access::MmioRead(gpa, data) => {
                // SAFETY: see above.
                Exit::MmioRead { gpa, data: unsafe { exclusive_bytes(&mut self.fd, data) } }
            }
            Access::MmioWrite(gpa, data) => {
                // SAFETY: see above.
                Exit::MmioWrite { gpa, data: unsafe { shared_bytes(&mut self.fd, data) } }
            }
        })
    }

    fn inject(&mut self, injection: Injection) -> Result<Injected, RunError> {
        self.exceptions.inject(&self.fd, injection)
    }

    fn state(&mut self, access: Option<&PoisonAccess>) -> Option<VcpuState> {
        self.exceptions.state(&self.fd, self.abort, &self.ram, access)
    }

    fn abandon_access(&mut self) -> Result<(), RunError> {
        // KVM completes the access at the next entry. With `immediate_exit` that entry does nothing else, and afterwards the registers
        // from before are restored. On x86_64 a store has already advanced the PC at its exit: it is dropped, not executed again.
        let registers = arch::Registers::of(&self.fd)?;
        self.fd.set_kvm_immediate_exit(1);
        for _ in 0..MAX_ACCESS_PARTS {
            match self.fd.run() {
                Ok(VcpuExit::Intr) => break,
                Err(error) if error.errno() == libc::EINTR => break,
                // The next part of the same access.
                Ok(_) => {}
                Err(error) => return Err(RunError::of("KVM_RUN")(error)),
            }
        }
        self.fd.set_kvm_immediate_exit(0);
        registers.restore(&self.fd)
    }

    /// The guest's clocks have gone on. On x86_64, a guest that has a kvm-clock finds a flag in it (PVCLOCK_GUEST_STOPPED), and its
    /// watchdogs start anew. KVM on arm64 has nothing like it.
    #[cfg(target_arch = "x86_64")]
    fn continue_after_pause(&mut self) {
        match self.fd.kvmclock_ctrl() {
            Ok(()) => {}
            // The guest has not set up a kvm-clock.
            Err(error) if error.errno() == libc::EINVAL => {}
            Err(error) => {
                tracing::warn!(%error, "KVM_KVMCLOCK_CTRL failed: the guest may report a soft lockup")
            }
        }
    }

    fn clear_kick(&mut self) {
        self.fd.set_kvm_immediate_exit(0);
    }

    fn kick_flag(&mut self) -> io::Result<Option<KickFlag>> {
        KickFlag::immediate_exit(&self.fd).map(Some)
    }

    fn core_registers(&mut self) -> Result<Option<CoreRegisters>, RunError> {
        arch::core_registers(&self.fd).map(Some)
    }

    #[cfg(target_arch = "x86_64")]
    fn registers(&mut self) -> String {
        match (self.fd.get_regs(), self.fd.get_sregs()) {
            (Ok(regs), Ok(sregs)) => format!(
                "rip={:#x} rsp={:#x} rflags={:#x} rax={:#x} cs={:#x} cr0={:#x} cr2={:#x} cr3={:#x} cr4={:#x} efer={:#x}",
                regs.rip,
                regs.rsp,
                regs.rflags,
                regs.rax,
                sregs.cs.selector,
                sregs.cr0,
                sregs.cr2,
                sregs.cr3,
                sregs.cr4,
                sregs.efer
            ),
            (Err(error), _) | (_, Err(error)) => format!("KVM_GET_REGS or KVM_GET_SREGS: {error}"),
        }
    }

    #[cfg(target_arch = "aarch64")]
    fn registers(&mut self) -> String {
        use crate::aarch64::registers::{PC, PSTATE, X0, get};
        let mut line = String::new();
        for (name, id) in [("pc", PC), ("pstate", PSTATE), ("x0", X0)] {
            match get(&self.fd, id) {
                Ok(value) => line.push_str(&format!("{name}={value:#x} ")),
                Err(error) => line.push_str(&format!("{name}: {error} ")),
            }
        }
        line.trim_end().to_owned()
    }
}

/// Data of a read, for the VMM to fill. It borrows the vCPU.
///
/// # Safety
/// `data` is of an exclusive slice of this vCPU's mapping, and nothing has accessed those bytes since.
#[expect(unsafe_code, reason = "a slice is made from a pointer")]
unsafe fn exclusive_bytes(_owner: &mut VcpuFd, data: *mut [u8]) -> &mut [u8] {
    // SAFETY: as the caller guarantees.
    unsafe { &mut *data }
}

/// Data of a write. It borrows the vCPU.
///
/// # Safety
/// `data` is of a shared slice of this vCPU's mapping, and nothing has written those bytes since.
#[expect(unsafe_code, reason = "a slice is made from a pointer")]
unsafe fn shared_bytes(_owner: &mut VcpuFd, data: *const [u8]) -> &[u8] {
    // SAFETY: as the caller guarantees.
    unsafe { &*data }
}

#[expect(unsafe_code, reason = "a field of a C union is read")]
fn port_width(run: &kvm_bindings::kvm_run) -> u8 {
    // SAFETY: the mapping is initialised, and any bits are a valid integer. The value has a meaning after KVM_EXIT_IO only.
    unsafe { run.__bindgen_anon_1.io.size }
}

#[expect(unsafe_code, reason = "a field of a C union is read")]
fn arm_sea(run: &kvm_bindings::kvm_run) -> ArmSea {
    // SAFETY: the union is larger than this structure and has its alignment, the mapping is initialised, and any bits are valid integers.
    // The values have a meaning after KVM_EXIT_ARM_SEA only.
    unsafe { (&raw const run.__bindgen_anon_1).cast::<ArmSea>().read() }
}

/// `fault_ipa` of `struct kvm_run`'s `arm_nisv`.
#[expect(unsafe_code, reason = "a field of a C union is read")]
fn fault_gpa(run: &kvm_bindings::kvm_run) -> u64 {
    // SAFETY: the mapping is initialised, and any bits are a valid integer. The value has a meaning after KVM_EXIT_ARM_NISV only.
    unsafe { run.__bindgen_anon_1.arm_nisv.fault_ipa }
}

#[expect(unsafe_code, reason = "a field of a C union is read")]
fn suberror(run: &kvm_bindings::kvm_run) -> u32 {
    // SAFETY: the mapping is initialised, and any bits are a valid integer. The value has a meaning after KVM_EXIT_INTERNAL_ERROR only.
    unsafe { run.__bindgen_anon_1.internal.suberror }
}
