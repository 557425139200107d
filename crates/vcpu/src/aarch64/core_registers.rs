//! The registers of an aarch64 vCPU for a dump.

use kvm_ioctls::VcpuFd;

use super::registers::{PC, PSTATE, SP_EL0, SP_EL1, X0, get};
use crate::core_registers::{Aarch64Registers, CoreRegisters};
use crate::port::RunError;

/// PSTATE.M\[0\]: the stack pointer is that of the exception level, and not SP_EL0.
const OWN_STACK_POINTER: u64 = 1;
/// PSTATE.M\[4\]: AArch32, where SP_EL0 holds R13 of user mode.
const AARCH32: u64 = 0x10;

pub(crate) fn core_registers(fd: &VcpuFd) -> Result<CoreRegisters, RunError> {
    let read = |id| get(fd, id).map_err(RunError::of("KVM_GET_ONE_REG"));
    let pstate = read(PSTATE)?;
    let mut x = [0; 31];
    for (value, index) in x.iter_mut().zip(0..) {
        *value = read(X0 + 2 * index)?;
    }
    let sp = match pstate & (AARCH32 | OWN_STACK_POINTER) {
        OWN_STACK_POINTER => SP_EL1,
        _ => SP_EL0,
    };
    Ok(CoreRegisters::Aarch64(Aarch64Registers { x, sp: read(sp)?, pc: read(PC)?, pstate }))
}
