//! Exceptions that the VMM makes a vCPU take, and how it stands towards them.

use guest_memory::GuestRam;
use kvm_bindings::{Msrs, kvm_msr_entry, kvm_regs};
use kvm_ioctls::VcpuFd;
use ras_core::vcpu_state::{MachineCheckState, VcpuState};
use vmm_sys_util::errno::Error;

use super::machine_check;
use crate::kvm_port::Abort;
use crate::port::Injection;
use crate::run_loop::Lost;

/// IA32_MCG_STATUS (Intel SDM volume 3, Machine-Check Architecture).
const MCG_STATUS: u32 = 0x17a;
/// Its MCIP: a machine check is in progress.
const MCIP: u64 = 1 << 2;
/// IA32_MCG_EXT_CTL.
const MCG_EXT_CTL: u32 = 0x4d0;
/// Its LMCE_EN: machine checks are local.
const LMCE_EN: u64 = 1;
/// CR4.MCE: machine checks are taken.
const CR4_MCE: u64 = 1 << 6;

/// Makes a vCPU take exceptions, and says how it stands towards them. It allocates nothing once it is made.
#[derive(Debug)]
pub(crate) struct Exceptions {
    /// [`MCG_STATUS`] and [`MCG_EXT_CTL`], in this order: KVM stops at the first that it has not.
    msrs: Option<Msrs>,
}

impl Exceptions {
    pub(crate) fn new() -> Self {
        let entry = |index| kvm_msr_entry { index, ..Default::default() };
        // Fails for more entries than KVM takes, which two are not; without them the state is not known.
        Exceptions { msrs: Msrs::from_entries(&[entry(MCG_STATUS), entry(MCG_EXT_CTL)]).ok() }
    }

    /// Makes a vCPU take an exception when it is entered next.
    pub(crate) fn inject(&mut self, fd: &VcpuFd, injection: Injection) -> Result<(), Error> {
        match injection {
            Injection::Nmi => fd.nmi(),
            Injection::MachineCheck(check) => machine_check::raise(fd, &check),
            Injection::SharedMachineCheck(check) => match self.machine_check_state(fd) {
                Some(state) if state.enabled && !state.in_progress => machine_check::raise(fd, &check),
                _ => Ok(()),
            },
            Injection::Abort { .. } | Injection::Serror { .. } => Err(Error::new(libc::ENOTSUP)),
        }
    }

    /// How a vCPU stands towards machine checks.
    pub(crate) fn state(
        &mut self,
        fd: &VcpuFd,
        _: Option<Abort>,
        _: &GuestRam,
        _: Option<&Lost>,
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
            enabled: cr4 & CR4_MCE != 0,
            // KVM only has the register where the guest was given local machine checks.
            local: msr(1) & LMCE_EN != 0,
            // Those that can not take one with this vCPU are left out.
            others_ready: true,
        })
    }
}

/// GPA of the instruction that a vCPU stands at, through its own page tables.
pub(crate) fn instruction_gpa(fd: &VcpuFd) -> Option<u64> {
    let rip = fd.get_regs().ok()?.rip;
    let translation = fd.translate_gva(rip).ok()?;
    (translation.valid != 0).then_some(translation.physical_address)
}

/// The registers that completing an access to memory changes.
pub(crate) struct Registers(kvm_regs);

impl Registers {
    pub(crate) fn of(fd: &VcpuFd) -> Result<Self, Error> {
        fd.get_regs().map(Registers)
    }

    pub(crate) fn put_back(&self, fd: &VcpuFd) -> Result<(), Error> {
        fd.set_regs(&self.0)
    }
}
