//! KVM's emulated machine check (Documentation/virt/kvm/api.rst, 4.104 to 4.106), whose ioctls kvm-ioctls does not wrap.

use kvm_bindings::{KVMIO, kvm_x86_mce};
use kvm_ioctls::{Kvm, VcpuFd};
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
