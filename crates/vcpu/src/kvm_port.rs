//! KVM's vCPU as the run loop's port.

use std::io;

use guest_memory::GuestRam;
use kvm_ioctls::{VcpuExit, VcpuFd};
use ras_core::vcpu_state::VcpuState;

#[cfg(target_arch = "aarch64")]
use crate::aarch64 as arch;
use crate::exit::Exit;
use crate::port::{Injected, Injection, RunError, VcpuPort};
use crate::run_loop::PoisonAccess;
#[cfg(target_arch = "x86_64")]
use crate::x86_64 as arch;

/// A KVM vCPU.
#[derive(Debug)]
pub struct KvmPort {
    fd: VcpuFd,
    exceptions: arch::Exceptions,
    /// What the hardware said of the abort that was the last exit.
    abort: Option<Abort>,
    /// The guest's memory: its page tables say what it did where the host does not.
    ram: GuestRam,
}

/// What the hardware said of an abort.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Abort {
    /// ESR_EL2.
    pub(crate) esr: u64,
    /// Virtual address that the guest used.
    pub(crate) gva: u64,
}

impl KvmPort {
    /// Takes a vCPU whose registers are set, of a guest with that memory.
    #[must_use]
    pub fn new(fd: VcpuFd, ram: GuestRam) -> Self {
        KvmPort { fd, exceptions: arch::Exceptions::new(), abort: None, ram }
    }

    /// An exit of which kvm-ioctls only tells that there was one.
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

/// Entries with `immediate_exit` after which an access that was begun is surely complete: an access of 16 bytes may have two
/// parts on each of two pages.
const ACCESS_PARTS: usize = 8;

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

impl VcpuPort for KvmPort {
    fn run(&mut self) -> Result<Exit<'_>, RunError> {
        // What kvm-ioctls leaves out of an exit (the width of a port access, the suberror, errno) is read from the run
        // page once its own borrow of the page has ended. So the borrowed data goes through a pointer.
        enum Data {
            PortIn(u16),
            PortOut(u16),
            MmioRead(u64),
            MmioWrite(u64),
        }
        self.abort = None;
        let (kind, data, len) = match self.fd.run() {
            Ok(VcpuExit::IoIn(port, data)) => (Data::PortIn(port), data.as_mut_ptr(), data.len()),
            Ok(VcpuExit::IoOut(port, data)) => (Data::PortOut(port), data.as_ptr().cast_mut(), data.len()),
            Ok(VcpuExit::MmioRead(gpa, data)) => (Data::MmioRead(gpa), data.as_mut_ptr(), data.len()),
            Ok(VcpuExit::MmioWrite(gpa, data)) => {
                (Data::MmioWrite(gpa), data.as_ptr().cast_mut(), data.len())
            }
            Ok(VcpuExit::InternalError) => {
                let suberror = suberror(self.fd.get_kvm_run());
                return Ok(Exit::InternalError { suberror, at: arch::instruction_gpa(&self.fd) });
            }
            Ok(VcpuExit::Shutdown) => return Ok(Exit::Shutdown),
            Ok(VcpuExit::SystemEvent(kind, _)) => return Ok(Exit::SystemEvent { kind }),
            Ok(VcpuExit::FailEntry(reason, _)) => return Ok(Exit::EntryFailed { reason }),
            Ok(VcpuExit::Intr) => return Ok(Exit::Interrupted),
            Ok(VcpuExit::MemoryFault { flags, gpa, size }) => {
                let errno = io::Error::last_os_error().raw_os_error().unwrap_or(libc::EFAULT);
                return Ok(Exit::MemoryFault { gpa, size, flags, errno });
            }
            Ok(_) => return Ok(self.other_exit()),
            // EINTR: a signal. EAGAIN: an application processor that was just woken, or is not started yet.
            Err(error) if matches!(error.errno(), libc::EINTR | libc::EAGAIN) => {
                return Ok(Exit::Interrupted);
            }
            Err(error) => return Err(refused(error)),
        };
        let width = usize::from(port_width(self.fd.get_kvm_run()));
        let data = run_page_bytes(&mut self.fd, data, len);
        Ok(match kind {
            Data::PortIn(port) => Exit::PortIn { port, width, data },
            Data::PortOut(port) => Exit::PortOut { port, width, data },
            Data::MmioRead(gpa) => Exit::MmioRead { gpa, data },
            Data::MmioWrite(gpa) => Exit::MmioWrite { gpa, data },
        })
    }

    fn inject(&mut self, injection: Injection) -> Result<Injected, RunError> {
        self.exceptions.inject(&self.fd, injection).map_err(refused)
    }

    fn state(&mut self, lost: Option<&PoisonAccess>) -> Option<VcpuState> {
        self.exceptions.state(&self.fd, self.abort, &self.ram, lost)
    }

    fn abandon_access(&mut self) -> Result<(), RunError> {
        // KVM completes the instruction at the next entry, which is made for nothing else, and then the registers are put back
        // that were there before. On x86_64 a store has changed them already: it is dropped, and the vCPU stands behind it.
        let registers = arch::Registers::of(&self.fd).map_err(refused)?;
        self.fd.set_kvm_immediate_exit(1);
        for _ in 0..ACCESS_PARTS {
            match self.fd.run() {
                Ok(VcpuExit::Intr) => break,
                Err(error) if error.errno() == libc::EINTR => break,
                // One more part of the same access.
                Ok(_) => {}
                Err(error) => return Err(refused(error)),
            }
        }
        self.fd.set_kvm_immediate_exit(0);
        registers.put_back(&self.fd).map_err(refused)
    }

    fn clear_kick(&mut self) {
        self.fd.set_kvm_immediate_exit(0);
    }

    fn kick_flag(&mut self) -> *mut u8 {
        &raw mut self.fd.get_kvm_run().immediate_exit
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
            (Err(error), _) | (_, Err(error)) => format!("registers cannot be read: {error}"),
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

/// The data of an exit, which KVM keeps in the pages that it shares with the VMM.
#[expect(unsafe_code, reason = "the run page's data is reached through a pointer")]
fn run_page_bytes(_owner: &mut VcpuFd, data: *mut u8, len: usize) -> &mut [u8] {
    // SAFETY: both come from a slice that kvm-ioctls made of this vCPU's run page, which is mapped for as long as the
    // vCPU lives; the result borrows the vCPU mutably, so nothing else refers to the page meanwhile.
    unsafe { std::slice::from_raw_parts_mut(data, len) }
}

#[expect(unsafe_code, reason = "a union that C describes")]
fn port_width(run: &kvm_bindings::kvm_run) -> u8 {
    // SAFETY: plain integers, so any bits are valid; they mean something after KVM_EXIT_IO only.
    unsafe { run.__bindgen_anon_1.io.size }
}

#[expect(unsafe_code, reason = "a union that C describes")]
fn arm_sea(run: &kvm_bindings::kvm_run) -> ArmSea {
    // SAFETY: the union is larger than this, and plain integers may have any bits; they mean something after
    // KVM_EXIT_ARM_SEA only.
    unsafe { (&raw const run.__bindgen_anon_1).cast::<ArmSea>().read() }
}

/// `fault_ipa` of `struct kvm_run`'s `arm_nisv`.
#[expect(unsafe_code, reason = "a union that C describes")]
fn fault_gpa(run: &kvm_bindings::kvm_run) -> u64 {
    // SAFETY: plain integers, so any bits are valid; they mean something after KVM_EXIT_ARM_NISV only.
    unsafe { run.__bindgen_anon_1.arm_nisv.fault_ipa }
}

fn refused(error: kvm_ioctls::Error) -> RunError {
    RunError(io::Error::from_raw_os_error(error.errno()))
}

#[expect(unsafe_code, reason = "a union that C describes")]
fn suberror(run: &kvm_bindings::kvm_run) -> u32 {
    // SAFETY: plain integers, so any bits are valid; they mean something after KVM_EXIT_INTERNAL_ERROR only.
    unsafe { run.__bindgen_anon_1.internal.suberror }
}
