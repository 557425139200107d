//! Register ids of KVM_GET_ONE_REG and KVM_SET_ONE_REG (Documentation/virt/kvm/api.rst, 4.68;
//! arch/arm64/include/uapi/asm/kvm.h).

use kvm_ioctls::VcpuFd;

/// KVM_REG_ARM64 | KVM_REG_SIZE_U64.
const ARM64_U64: u64 = 0x6030_0000_0000_0000;
/// KVM_REG_ARM_CORE: offsets in `struct kvm_regs`, in 32-bit words.
const CORE: u64 = ARM64_U64 | 0x10 << 16;
/// KVM_REG_ARM64_SYSREG.
const SYSTEM: u64 = ARM64_U64 | 0x13 << 16;

/// X0.
pub(crate) const X0: u64 = CORE;
/// SP_EL0, after X0 to X30.
pub(crate) const SP_EL0: u64 = CORE | 2 * 31;
/// PC, after X0 to X30 and SP.
pub(crate) const PC: u64 = CORE | 2 * 32;
/// PSTATE.
pub(crate) const PSTATE: u64 = CORE | 2 * 33;
/// SP_EL1.
pub(crate) const SP_EL1: u64 = CORE | 2 * 34;
/// ELR_EL1, after SP_EL1.
pub(crate) const ELR_EL1: u64 = CORE | 2 * 35;
/// SPSR_EL1, the first of the banked SPSRs.
pub(crate) const SPSR_EL1: u64 = CORE | 2 * 36;
/// SCTLR_EL1: op0 3, op1 0, CRn 1, CRm 0, op2 0.
pub(crate) const SCTLR_EL1: u64 = SYSTEM | 3 << 14 | 1 << 7;
/// TTBR0_EL1: op0 3, op1 0, CRn 2, CRm 0, op2 0.
pub(crate) const TTBR0_EL1: u64 = SYSTEM | 3 << 14 | 2 << 7;
/// TTBR1_EL1: op0 3, op1 0, CRn 2, CRm 0, op2 1.
pub(crate) const TTBR1_EL1: u64 = TTBR0_EL1 | 1;
/// TCR_EL1: op0 3, op1 0, CRn 2, CRm 0, op2 2.
pub(crate) const TCR_EL1: u64 = TTBR0_EL1 | 2;
/// ESR_EL1: op0 3, op1 0, CRn 5, CRm 2, op2 0.
pub(crate) const ESR_EL1: u64 = SYSTEM | 3 << 14 | 5 << 7 | 2 << 3;
/// FAR_EL1: op0 3, op1 0, CRn 6, CRm 0, op2 0.
pub(crate) const FAR_EL1: u64 = SYSTEM | 3 << 14 | 6 << 7;
/// VBAR_EL1: op0 3, op1 0, CRn 12, CRm 0, op2 0.
pub(crate) const VBAR_EL1: u64 = SYSTEM | 3 << 14 | 12 << 7;
/// MPIDR_EL1: op0 3, op1 0, CRn 0, CRm 0, op2 5.
pub(crate) const MPIDR_EL1: u64 = SYSTEM | 3 << 14 | 5;

/// ID_AA64PFR0_EL1: op0 3, op1 0, CRn 0, CRm 4, op2 0.
pub(crate) const ID_AA64PFR0_EL1: u64 = SYSTEM | 3 << 14 | 4 << 3;

pub(crate) fn get(fd: &VcpuFd, id: u64) -> Result<u64, kvm_ioctls::Error> {
    let mut value = [0; 8];
    fd.get_one_reg(id, &mut value)?;
    Ok(u64::from_le_bytes(value))
}

pub(crate) fn set(fd: &VcpuFd, id: u64, value: u64) -> Result<(), kvm_ioctls::Error> {
    fd.set_one_reg(id, &value.to_le_bytes()).map(drop)
}
