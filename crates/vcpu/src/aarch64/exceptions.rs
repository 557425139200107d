//! Injection of exceptions into an aarch64 vCPU, and its registers at the access that they report.

use guest_memory::GuestRam;
use kvm_bindings::kvm_vcpu_events;
use kvm_ioctls::VcpuFd;
use ras_core::actions::FaultAddress;
use ras_core::vcpu_state::{Access, Consumption, ExceptionLevel, VcpuState};

use super::registers::{
    ELR_EL1, ESR_EL1, FAR_EL1, PC, PSTATE, SCTLR_EL1, SPSR_EL1, TCR_EL1, TTBR0_EL1, TTBR1_EL1, VBAR_EL1, X0,
    get, set,
};
use crate::exception_entry::{Entered, Taken};
use crate::kvm_port::Abort;
use crate::poison_access::PoisonAccess;
use crate::port::{Injected, Injection, RunError};
use crate::stage1::Translation;

/// Injects exceptions and reads the registers that decide about them.
#[derive(Debug)]
pub(crate) struct Exceptions(());

impl Exceptions {
    pub(crate) const fn new() -> Self {
        Exceptions(())
    }

    /// Injects an exception, which the vCPU takes at its next entry.
    pub(crate) fn inject(&mut self, fd: &VcpuFd, injection: Injection) -> Result<Injected, RunError> {
        // Not read back from KVM first: KVM reports a syndrome for a pending SError even if it was given none.
        let mut events = kvm_vcpu_events::default();
        match injection {
            Injection::Abort { esr, far: far @ (FaultAddress::At(_) | FaultAddress::NotValid) } => {
                take_abort(fd, esr, far)?;
                return Ok(Injected::Done);
            }
            // KVM's own injection leaves the address of the vCPU's last abort in FAR_EL1.
            Injection::Abort { far: FaultAddress::OfLastAbort, .. } => events.exception.ext_dabt_pending = 1,
            Injection::Serror { syndrome } => {
                events.exception.serror_pending = 1;
                if let Some(syndrome) = syndrome {
                    events.exception.serror_has_esr = 1;
                    events.exception.serror_esr = syndrome.into();
                }
            }
            Injection::Nmi | Injection::MachineCheck(_) | Injection::SharedMachineCheck(_) => {
                return Err(RunError::NoSuchException(injection));
            }
        }
        fd.set_vcpu_events(&events).map_err(RunError::of("KVM_SET_VCPU_EVENTS"))?;
        Ok(Injected::Done)
    }

    /// The exception level of a vCPU and the access that it made. After KVM_EXIT_ARM_SEA the syndrome has both kind and address.
    /// Otherwise the access was an instruction fetch if the PC points into the poisoned memory of `poison`, and is reported as a read if
    /// not: the kind that a guest handles most conservatively.
    pub(crate) fn state(
        &mut self,
        fd: &VcpuFd,
        abort: Option<Abort>,
        ram: &GuestRam,
        poison: Option<&PoisonAccess>,
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
            None => match poison.and_then(|poison| fetched_from(fd, mode, ram, poison)) {
                Some(address) => (Access::Fetch, Some(address)),
                None => (Access::Read, None),
            },
        };
        Some(VcpuState::Aarch64(Consumption { level, access, far }))
    }
}

/// The virtual address of the instruction at the PC. `None` if it is not in the poisoned memory.
fn fetched_from(fd: &VcpuFd, mode: u64, ram: &GuestRam, poison: &PoisonAccess) -> Option<u64> {
    let poisoned = poison.span(ram)?;
    let translation = Translation {
        system_control: get(fd, SCTLR_EL1).ok()?,
        control: get(fd, TCR_EL1).ok()?,
        lower: get(fd, TTBR0_EL1).ok()?,
        upper: get(fd, TTBR1_EL1).ok()?,
    };
    let pc = get(fd, PC).ok()?;
    // An AArch32 instruction may have its second half on the next page.
    let second_half = (mode & AARCH32 != 0).then(|| pc.wrapping_add(2) & u64::from(u32::MAX));
    [Some(pc), second_half].into_iter().flatten().find(|address| {
        let gpa = translation.gpa(*address, |gpa| ram.load_u64(gpa).ok());
        gpa.is_some_and(|gpa| poisoned.contains(gpa))
    })
}

/// PSTATE.M (Arm ARM DDI 0487, C5.2.19).
const MODE: u64 = 0x1f;
/// PSTATE.M\[4\]: AArch32.
const AARCH32: u64 = 0x10;
/// PSTATE.M: EL0.
const EL0T: u64 = 0;
/// ESR_ELx.EC: instruction abort from a lower level.
const INSTRUCTION_ABORT: u64 = 0x20;
/// ESR_ELx.ISS of an abort: the fault address is not valid.
const FNV: u64 = 1 << 10;
/// ESR_ELx.ISS of a data abort: a write.
const WNR: u64 = 1 << 6;

/// Sets the registers as the processor does when it takes a synchronous abort to EL1.
fn take_abort(fd: &VcpuFd, esr: u32, far: FaultAddress) -> Result<(), RunError> {
    let taken = Taken {
        pc: read(fd, PC)?,
        pstate: read(fd, PSTATE)?,
        vector_base: read(fd, VBAR_EL1)?,
        system_control: read(fd, SCTLR_EL1)?,
    };
    let Entered { pc, pstate } = taken.to_el1();
    write(fd, ELR_EL1, taken.pc)?;
    write(fd, SPSR_EL1, taken.pstate)?;
    write(fd, ESR_EL1, esr.into())?;
    if let FaultAddress::At(address) = far {
        write(fd, FAR_EL1, address)?;
    }
    write(fd, PSTATE, pstate)?;
    write(fd, PC, pc)
}

fn read(fd: &VcpuFd, id: u64) -> Result<u64, RunError> {
    get(fd, id).map_err(RunError::of("KVM_GET_ONE_REG"))
}

fn write(fd: &VcpuFd, id: u64, value: u64) -> Result<(), RunError> {
    set(fd, id, value).map_err(RunError::of("KVM_SET_ONE_REG"))
}

/// GPA of the instruction at the PC. Always `None`: KVM_TRANSLATE does not exist on aarch64.
pub(crate) fn instruction_gpa(_: &VcpuFd) -> Option<u64> {
    None
}

/// X0 to X30.
const GENERAL_REGISTERS: usize = 31;

/// The registers that the completion of an access may change.
pub(crate) struct Registers {
    general: [u64; GENERAL_REGISTERS],
    pc: u64,
}

impl Registers {
    pub(crate) fn of(fd: &VcpuFd) -> Result<Self, RunError> {
        let mut general = [0; GENERAL_REGISTERS];
        for (value, index) in general.iter_mut().zip(0..) {
            *value = read(fd, X0 + 2 * index)?;
        }
        Ok(Registers { general, pc: read(fd, PC)? })
    }

    pub(crate) fn restore(&self, fd: &VcpuFd) -> Result<(), RunError> {
        for (value, index) in self.general.iter().zip(0..) {
            write(fd, X0 + 2 * index, *value)?;
        }
        write(fd, PC, self.pc)
    }
}
