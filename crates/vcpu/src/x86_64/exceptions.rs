//! Injection of exceptions into an x86_64 vCPU, and the registers that decide about them.

use guest_memory::GuestRam;
use kvm_bindings::{Msrs, kvm_msr_entry, kvm_regs};
use kvm_ioctls::VcpuFd;
use ras_core::reporters::machine_check::{CONSUMED_BANK, DETECTED_BANK};
use ras_core::vcpu_state::{MachineCheckState, VcpuState};

use super::machine_check;
use crate::kvm_port::Abort;
use crate::poison_access::PoisonAccess;
use crate::port::{Injected, Injection, RunError};

/// IA32_MCG_STATUS (Intel SDM volume 3, Machine-Check Architecture).
const MCG_STATUS: u32 = 0x17a;
/// IA32_MCG_STATUS.MCIP: a machine check is in progress.
const MCIP: u64 = 1 << 2;
/// IA32_MCG_CTL.
const MCG_CTL: u32 = 0x17b;
/// IA32_MCi_CTL of the bank for consumed errors.
const CONSUMED_CTL: u32 = 0x400 + 4 * CONSUMED_BANK as u32;
/// IA32_MCi_STATUS of the bank for detected errors.
const DETECTED_STATUS: u32 = 0x401 + 4 * DETECTED_BANK as u32;
/// IA32_MCi_STATUS.VAL: the bank contains an error.
const VAL: u64 = 1 << 63;
/// IA32_MCG_EXT_CTL.
const MCG_EXT_CTL: u32 = 0x4d0;
/// IA32_MCG_EXT_CTL.LMCE_EN: local machine checks are enabled.
const LMCE_EN: u64 = 1;
/// CR4.MCE: machine-check exceptions are enabled.
const CR4_MCE: u64 = 1 << 6;

/// Injects exceptions and reads the registers that decide about them. It allocates only when it is made.
#[derive(Debug)]
pub(crate) struct Exceptions {
    /// [`STATE_MSRS`]. `None` if the list cannot be made.
    msrs: Option<Msrs>,
}

/// The MSRs of a vCPU's machine-check state. KVM_GET_MSRS stops at the first that the vCPU does not have, and it has the last only with
/// local machine checks (MCG_LMCE_P).
const STATE_MSRS: [u32; 5] = [MCG_STATUS, MCG_CTL, CONSUMED_CTL, DETECTED_STATUS, MCG_EXT_CTL];

impl Exceptions {
    pub(crate) fn new() -> Self {
        let entries = STATE_MSRS.map(|index| kvm_msr_entry { index, ..Default::default() });
        // Fails only beyond KVM_MAX_MSR_ENTRIES.
        Exceptions { msrs: Msrs::from_entries(&entries).ok() }
    }

    /// Injects an exception, which the vCPU takes at its next entry, or defers it.
    pub(crate) fn inject(&mut self, fd: &VcpuFd, injection: Injection) -> Result<Injected, RunError> {
        match injection {
            Injection::Nmi => fd.nmi().map_err(RunError::of("KVM_NMI"))?,
            Injection::MachineCheck(check) => {
                machine_check::raise(fd, &check).map_err(RunError::of("KVM_X86_SET_MCE"))?
            }
            Injection::SharedMachineCheck(check) => match self.machine_check_state(fd) {
                // A machine check while MCIP is set is a shutdown.
                Some(MachineCheckState { in_progress: true, .. }) => return Ok(Injected::Deferred),
                // A processor that was not started, or that has not enabled machine checks.
                Some(MachineCheckState { enabled: false, .. }) | None => {}
                Some(_) => machine_check::raise(fd, &check).map_err(RunError::of("KVM_X86_SET_MCE"))?,
            },
            Injection::Abort { .. } | Injection::Serror { .. } => {
                return Err(RunError::NoSuchException(injection));
            }
        }
        Ok(Injected::Done)
    }

    /// The machine-check state of a vCPU.
    pub(crate) fn state(
        &mut self,
        fd: &VcpuFd,
        _: Option<Abort>,
        _: &GuestRam,
        _: Option<&PoisonAccess>,
    ) -> Option<VcpuState> {
        self.machine_check_state(fd).map(VcpuState::X86_64)
    }

    fn machine_check_state(&mut self, fd: &VcpuFd) -> Option<MachineCheckState> {
        let cr4 = fd.get_sregs().ok()?.cr4;
        let msrs = self.msrs.as_mut()?;
        let read = fd.get_msrs(msrs).ok()?;
        let msr =
            |index: usize| msrs.as_slice().get(index).filter(|_| index < read).map_or(0, |entry| entry.data);
        Some(MachineCheckState {
            in_progress: msr(0) & MCIP != 0,
            enabled: cr4 & CR4_MCE != 0 && (msr(1), msr(2)) == (u64::MAX, u64::MAX),
            detected_unread: msr(3) & VAL != 0,
            local: msr(4) & LMCE_EN != 0,
        })
    }
}

/// GPA of the instruction at the PC, through the vCPU's page tables. `None` if it is not mapped.
pub(crate) fn instruction_gpa(fd: &VcpuFd) -> Option<u64> {
    let rip = fd.get_regs().ok()?.rip;
    let translation = fd.translate_gva(rip).ok()?;
    (translation.valid != 0).then_some(translation.physical_address)
}

/// The registers that the completion of an access may change.
pub(crate) struct Registers(kvm_regs);

impl Registers {
    pub(crate) fn of(fd: &VcpuFd) -> Result<Self, RunError> {
        fd.get_regs().map(Registers).map_err(RunError::of("KVM_GET_REGS"))
    }

    pub(crate) fn restore(&self, fd: &VcpuFd) -> Result<(), RunError> {
        fd.set_regs(&self.0).map_err(RunError::of("KVM_SET_REGS"))
    }
}
