//! Exceptions that the VMM makes a vCPU take, and how it stood at the access that they are about.

use guest_memory::GuestRam;
use kvm_bindings::kvm_vcpu_events;
use kvm_ioctls::VcpuFd;
use ras_core::actions::FaultAddress;
use ras_core::vcpu_state::{Access, Consumption, ExceptionLevel, VcpuState};
use vmm_sys_util::errno::Error;

use super::registers::{
    ELR_EL1, ESR_EL1, FAR_EL1, PC, PSTATE, SCTLR_EL1, SPSR_EL1, TCR_EL1, TTBR0_EL1, TTBR1_EL1, VBAR_EL1, X0,
    get, set,
};
use crate::exception_entry::{Entered, Taken};
use crate::kvm_port::Abort;
use crate::port::{Injected, Injection};
use crate::run_loop::PoisonAccess;
use crate::stage1::Translation;

/// Makes a vCPU take exceptions, and says how it stands.
#[derive(Debug)]
pub(crate) struct Exceptions(());

impl Exceptions {
    pub(crate) const fn new() -> Self {
        Exceptions(())
    }

    /// Makes a vCPU take an exception when it is entered next.
    pub(crate) fn inject(&mut self, fd: &VcpuFd, injection: Injection) -> Result<Injected, Error> {
        // Nothing of what KVM says is pending is said back to it: it shows a syndrome where it was given none.
        let mut events = kvm_vcpu_events::default();
        match injection {
            Injection::Abort { esr, far: far @ (FaultAddress::At(_) | FaultAddress::NotValid) } => {
                take_abort(fd, esr, far)?;
                return Ok(Injected::Done);
            }
            // KVM's own injection shows the address of the vCPU's last abort.
            Injection::Abort { far: FaultAddress::OfLastAbort, .. } => events.exception.ext_dabt_pending = 1,
            Injection::Serror { syndrome } => {
                events.exception.serror_pending = 1;
                if let Some(syndrome) = syndrome {
                    events.exception.serror_has_esr = 1;
                    events.exception.serror_esr = syndrome.into();
                }
            }
            Injection::Nmi | Injection::MachineCheck(_) | Injection::SharedMachineCheck(_) => {
                return Err(Error::new(libc::ENOTSUP));
            }
        }
        fd.set_vcpu_events(&events)?;
        Ok(Injected::Done)
    }

    /// How a vCPU stands. What it did and at which address is known where the hardware's own abort came through. Else it has
    /// fetched its instruction where that lies in what was `lost`; and any other access is taken for a read, which is what
    /// a guest can do least wrong about.
    pub(crate) fn state(
        &mut self,
        fd: &VcpuFd,
        abort: Option<Abort>,
        ram: &GuestRam,
        lost: Option<&PoisonAccess>,
    ) -> Option<VcpuState> {
        let mode = get(fd, PSTATE).ok()? & MODE;
        let level = match mode {
            mode if mode & AARCH32 != 0 || mode == EL0T => ExceptionLevel::El0,
            _ => ExceptionLevel::El1,
        };
        let (access, far) = match abort {
            Some(Abort { esr, gva }) => {
                let access = match (esr >> 26 & 0x3f, esr & WNR != 0) {
                    (INSTRUCTION_ABORT, _) => Access::Fetch,
                    (_, true) => Access::Write,
                    (_, false) => Access::Read,
                };
                (access, (esr & FNV == 0).then_some(gva))
            }
            None => match lost.and_then(|lost| fetched_from(fd, mode, ram, lost)) {
                Some(address) => (Access::Fetch, Some(address)),
                None => (Access::Read, None),
            },
        };
        Some(VcpuState::Aarch64(Consumption { level, access, far }))
    }
}

/// The virtual address of the instruction that the vCPU stands at, where it lies in what was lost.
fn fetched_from(fd: &VcpuFd, mode: u64, ram: &GuestRam, lost: &PoisonAccess) -> Option<u64> {
    let lost = lost.span(ram)?;
    let translation = Translation {
        system_control: get(fd, SCTLR_EL1).ok()?,
        control: get(fd, TCR_EL1).ok()?,
        lower: get(fd, TTBR0_EL1).ok()?,
        upper: get(fd, TTBR1_EL1).ok()?,
    };
    let pc = get(fd, PC).ok()?;
    // A 32-bit program's instruction may have its second half on the next page.
    let second_half = (mode & AARCH32 != 0).then(|| pc.wrapping_add(2) & u64::from(u32::MAX));
    [Some(pc), second_half].into_iter().flatten().find(|address| {
        let gpa = translation.gpa(*address, |gpa| ram.load_u64(gpa).ok());
        gpa.is_some_and(|gpa| lost.contains(gpa))
    })
}

/// PSTATE.M (Arm ARM DDI 0487, C5.2.19).
const MODE: u64 = 0x1f;
/// PSTATE.M\[4\]: a 32-bit program.
const AARCH32: u64 = 0x10;
/// PSTATE.M: EL0.
const EL0T: u64 = 0;
/// ESR_ELx.EC: instruction abort from a lower level.
const INSTRUCTION_ABORT: u64 = 0x20;
/// ESR_ELx.ISS of an abort: the fault address is not valid.
const FNV: u64 = 1 << 10;
/// ESR_ELx.ISS of a data abort: a write.
const WNR: u64 = 1 << 6;

/// What the processor does when it takes a synchronous abort to EL1, done to its registers.
fn take_abort(fd: &VcpuFd, esr: u32, far: FaultAddress) -> Result<(), Error> {
    let taken = Taken {
        pc: get(fd, PC)?,
        pstate: get(fd, PSTATE)?,
        vector_base: get(fd, VBAR_EL1)?,
        system_control: get(fd, SCTLR_EL1)?,
    };
    let Entered { pc, pstate } = taken.to_el1();
    set(fd, ELR_EL1, taken.pc)?;
    set(fd, SPSR_EL1, taken.pstate)?;
    set(fd, ESR_EL1, esr.into())?;
    if let FaultAddress::At(address) = far {
        set(fd, FAR_EL1, address)?;
    }
    set(fd, PSTATE, pstate)?;
    set(fd, PC, pc)
}

/// GPA of the instruction that a vCPU stands at: KVM does not translate here.
pub(crate) fn instruction_gpa(_: &VcpuFd) -> Option<u64> {
    None
}

/// X0 to X30.
const GENERAL: usize = 31;

/// The registers that completing an access to memory changes.
pub(crate) struct Registers {
    general: [u64; GENERAL],
    pc: u64,
}

impl Registers {
    pub(crate) fn of(fd: &VcpuFd) -> Result<Self, Error> {
        let mut general = [0; GENERAL];
        for (value, index) in general.iter_mut().zip(0..) {
            *value = get(fd, X0 + 2 * index)?;
        }
        Ok(Registers { general, pc: get(fd, PC)? })
    }

    pub(crate) fn put_back(&self, fd: &VcpuFd) -> Result<(), Error> {
        for (value, index) in self.general.iter().zip(0..) {
            set(fd, X0 + 2 * index, *value)?;
        }
        set(fd, PC, self.pc)
    }
}
