//! Exceptions that the VMM makes a vCPU take, and how it stands towards them.

use guest_memory::GuestRam;
use kvm_bindings::{Msrs, kvm_msr_entry, kvm_regs};
use kvm_ioctls::VcpuFd;
use ras_core::reporters::machine_check::{CONSUMED_BANK, DETECTED_BANK};
use ras_core::vcpu_state::{MachineCheckState, VcpuState};
use vmm_sys_util::errno::Error;

use super::machine_check;
use crate::kvm_port::Abort;
use crate::port::{Injected, Injection};
use crate::run_loop::PoisonAccess;

/// IA32_MCG_STATUS (Intel SDM volume 3, Machine-Check Architecture).
const MCG_STATUS: u32 = 0x17a;
/// Its MCIP: a machine check is in progress.
const MCIP: u64 = 1 << 2;
/// IA32_MCG_CTL.
const MCG_CTL: u32 = 0x17b;
/// IA32_MCi_CTL of the bank for consumed errors.
const CONSUMED_CTL: u32 = 0x400 + 4 * CONSUMED_BANK as u32;
/// IA32_MCi_STATUS of the bank for found errors.
const DETECTED_STATUS: u32 = 0x401 + 4 * DETECTED_BANK as u32;
/// Its VAL: the bank holds something.
const VAL: u64 = 1 << 63;
/// IA32_MCG_EXT_CTL.
const MCG_EXT_CTL: u32 = 0x4d0;
/// Its LMCE_EN: machine checks are local.
const LMCE_EN: u64 = 1;
/// CR4.MCE: machine checks are taken.
const CR4_MCE: u64 = 1 << 6;

/// Makes a vCPU take exceptions, and says how it stands towards them. It allocates nothing once it is made.
#[derive(Debug)]
pub(crate) struct Exceptions {
    /// [`ASKED`].
    msrs: Option<Msrs>,
}

/// What is asked, in this order: KVM stops at the first that it has not, and it only has the last where the guest was given local
/// machine checks.
const ASKED: [u32; 5] = [MCG_STATUS, MCG_CTL, CONSUMED_CTL, DETECTED_STATUS, MCG_EXT_CTL];

impl Exceptions {
    pub(crate) fn new() -> Self {
        let entries = ASKED.map(|index| kvm_msr_entry { index, ..Default::default() });
        // Fails for more entries than KVM takes, which these are not; without them the state is not known.
        Exceptions { msrs: Msrs::from_entries(&entries).ok() }
    }

    /// Makes a vCPU take an exception when it is entered next, or says that it cannot take it yet.
    pub(crate) fn inject(&mut self, fd: &VcpuFd, injection: Injection) -> Result<Injected, Error> {
        match injection {
            Injection::Nmi => fd.nmi()?,
            Injection::MachineCheck(check) => machine_check::raise(fd, &check)?,
            Injection::SharedMachineCheck(check) => match self.machine_check_state(fd) {
                // It would end the guest.
                Some(MachineCheckState { in_progress: true, .. }) => return Ok(Injected::Deferred),
                // A processor that was not started, or does not take part.
                Some(MachineCheckState { enabled: false, .. }) | None => {}
                Some(_) => machine_check::raise(fd, &check)?,
            },
            Injection::Abort { .. } | Injection::Serror { .. } => return Err(Error::new(libc::ENOTSUP)),
        }
        Ok(Injected::Done)
    }

    /// How a vCPU stands towards machine checks.
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
            // Each takes part as soon as it can.
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
