//! KVM's emulated machine check (Documentation/virt/kvm/api.rst, 4.104 to 4.106), whose ioctls kvm-ioctls does not wrap.

use kvm_bindings::{KVMIO, kvm_enable_cap, kvm_x86_mce};
use kvm_ioctls::{Cap, Kvm, MsrExitReason, VcpuFd, VmFd};
use vmm_sys_util::errno::{Error, errno_result};
use vmm_sys_util::ioctl::{ioctl_with_mut_ref, ioctl_with_ref};
use vmm_sys_util::{ioctl_ior_nr, ioctl_iow_nr};

use ras_core::reporters::machine_check::guest_mcg_cap;

use numbers::{KVM_X86_GET_MCE_CAP_SUPPORTED, KVM_X86_SET_MCE, KVM_X86_SETUP_MCE};

/// The numbers of the ioctls (linux/kvm.h).
mod numbers {
    use super::{KVMIO, ioctl_ior_nr, ioctl_iow_nr, kvm_x86_mce};

    ioctl_iow_nr!(KVM_X86_SETUP_MCE, KVMIO, 0x9c, u64);
    ioctl_ior_nr!(KVM_X86_GET_MCE_CAP_SUPPORTED, KVMIO, 0x9d, u64);
    ioctl_iow_nr!(KVM_X86_SET_MCE, KVMIO, 0x9e, kvm_x86_mce);
}

/// The bits of IA32_MCG_CAP that KVM supports for a guest (KVM_X86_GET_MCE_CAP_SUPPORTED).
///
/// # Errors
/// Returns the error of the ioctl.
#[expect(unsafe_code, reason = "an ioctl is called that kvm-ioctls does not wrap")]
pub fn supported(kvm: &Kvm) -> Result<u64, Error> {
    let mut bits = 0_u64;
    // SAFETY: the descriptor is /dev/kvm, and KVM writes one u64, as the ioctl is declared.
    match unsafe { ioctl_with_mut_ref(kvm, KVM_X86_GET_MCE_CAP_SUPPORTED(), &mut bits) } {
        0 => Ok(bits),
        _ => errno_result(),
    }
}

/// Sets IA32_MCG_CAP of a vCPU, with software error recovery if KVM supports it (KVM_X86_SETUP_MCE). Called before its first entry.
///
/// # Errors
/// Returns the error of the ioctl.
#[expect(unsafe_code, reason = "an ioctl is called that kvm-ioctls does not wrap")]
pub(super) fn set_up(fd: &VcpuFd, supported: u64) -> Result<(), Error> {
    let mcg_cap = guest_mcg_cap(supported);
    // SAFETY: the descriptor is a vCPU, and KVM reads one u64, as the ioctl is declared.
    match unsafe { ioctl_with_ref(fd, KVM_X86_SETUP_MCE(), &mcg_cap) } {
        0 => Ok(()),
        _ => errno_result(),
    }
}

/// Makes accesses to MSRs that KVM does not have exit (KVM_CAP_X86_USER_SPACE_MSR, Linux 5.10), so that [`KvmPort`](crate::KvmPort) can
/// answer those that a handler of machine checks makes. Before Linux 5.10 they raise #GP as they would without this.
///
/// # Errors
/// Returns the error of KVM_ENABLE_CAP.
pub fn answer_unknown_msrs(vm: &VmFd) -> Result<(), Error> {
    if !vm.check_extension(Cap::X86UserSpaceMsr) {
        return Ok(());
    }
    let reasons = MsrExitReason::Unknown.bits().into();
    let cap = Cap::X86UserSpaceMsr as u32;
    vm.enable_cap(&kvm_enable_cap { cap, args: [reasons, 0, 0, 0], ..Default::default() })
}

/// MCA_DESTAT of bank 0 (AMD APM volume 2, 9.3.3.4). Those of the other banks follow at intervals of 16.
const MCA_DESTAT: u32 = 0xc000_2008;
/// Banks of a processor with ScalableMca at most: c000_2000 to c000_23ff.
const SCALABLE_BANKS: u32 = 64;

/// Whether a write to an MSR that KVM does not have is ignored. Others raise #GP.
///
/// Linux, from commit 7cb735d7c0cb (x86/mce: Unify AMD DFR handler with MCA Polling) until 201bc182ad63 (x86/mce/amd: Check SMCA feature bit
/// before accessing SMCA MSRs), clears MCA_DESTAT of the bank of each deferred error, whether or not CPUID says that the processor has
/// it. A #GP there is a panic.
pub(crate) fn ignores_write(msr: u32, value: u64) -> bool {
    let registers = MCA_DESTAT..MCA_DESTAT + 16 * SCALABLE_BANKS;
    registers.contains(&msr) && (msr - MCA_DESTAT).is_multiple_of(16) && value == 0
}

/// Injects a machine check (KVM_X86_SET_MCE). Called by the vCPU's thread, outside the guest.
///
/// # Errors
/// EINVAL if the vCPU does not have the bank, or the status is not valid.
#[expect(unsafe_code, reason = "an ioctl is called that kvm-ioctls does not wrap")]
pub(super) fn raise(fd: &VcpuFd, check: &ras_core::actions::MachineCheck) -> Result<(), Error> {
    let mce = kvm_x86_mce {
        status: check.status,
        addr: check.addr,
        misc: check.misc,
        mcg_status: check.mcg_status,
        bank: check.bank,
        ..Default::default()
    };
    // SAFETY: the descriptor is a vCPU, and KVM reads one `kvm_x86_mce`, as the ioctl is declared.
    match unsafe { ioctl_with_ref(fd, KVM_X86_SET_MCE(), &mce) } {
        0 => Ok(()),
        _ => errno_result(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_of_deferred_errors_can_be_cleared_and_nothing_else_written() {
        assert!([0xc000_2008, 0xc000_2098, 0xc000_23f8].into_iter().all(|msr| ignores_write(msr, 0)));
        assert!(!ignores_write(0xc000_2098, 1), "there is no such register to set");
        // MCA_CTL, MCA_DEADDR, bank 64, and MCi_STATUS, which KVM has.
        for msr in [0xc000_2000, 0xc000_2099, 0xc000_2408, 0x401] {
            assert!(!ignores_write(msr, 0), "{msr:#x}");
        }
    }
}
