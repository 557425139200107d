//! KVM's emulated machine check (Documentation/virt/kvm/api.rst, 4.104 to 4.106), which kvm-ioctls has no calls for.

use kvm_bindings::{KVMIO, kvm_x86_mce};
use kvm_ioctls::{Kvm, VcpuFd};
use vmm_sys_util::errno::{Error, errno_result};
use vmm_sys_util::ioctl::{ioctl_with_mut_ref, ioctl_with_ref};
use vmm_sys_util::{ioctl_ior_nr, ioctl_iow_nr};

use ras_core::reporters::machine_check::guest_mcg_cap;

use numbers::{KVM_X86_GET_MCE_CAP_SUPPORTED, KVM_X86_SET_MCE, KVM_X86_SETUP_MCE};

/// The calls' numbers (linux/kvm.h).
mod numbers {
    use super::{KVMIO, ioctl_ior_nr, ioctl_iow_nr, kvm_x86_mce};

    ioctl_iow_nr!(KVM_X86_SETUP_MCE, KVMIO, 0x9c, u64);
    ioctl_ior_nr!(KVM_X86_GET_MCE_CAP_SUPPORTED, KVMIO, 0x9d, u64);
    ioctl_iow_nr!(KVM_X86_SET_MCE, KVMIO, 0x9e, kvm_x86_mce);
}

/// Bits of MCG_CAP that a guest can be given.
///
/// # Errors
/// Where KVM does not say.
#[expect(unsafe_code, reason = "kvm-ioctls has no such call")]
pub fn supported(kvm: &Kvm) -> Result<u64, Error> {
    let mut bits = 0_u64;
    // SAFETY: KVM writes the one u64 that the call is declared with, and the descriptor is /dev/kvm.
    match unsafe { ioctl_with_mut_ref(kvm, KVM_X86_GET_MCE_CAP_SUPPORTED(), &mut bits) } {
        0 => Ok(bits),
        _ => errno_result(),
    }
}

/// Gives a vCPU machine checks with software error recovery, as far as KVM supports it. Before its first run.
///
/// # Errors
/// Where KVM refuses.
#[expect(unsafe_code, reason = "kvm-ioctls has no such call")]
pub(super) fn set_up(fd: &VcpuFd, supported: u64) -> Result<(), Error> {
    let mcg_cap = guest_mcg_cap(supported);
    // SAFETY: KVM reads the one u64 that the call is declared with, and the descriptor is a vCPU's.
    match unsafe { ioctl_with_ref(fd, KVM_X86_SETUP_MCE(), &mcg_cap) } {
        0 => Ok(()),
        _ => errno_result(),
    }
}

/// Makes a vCPU take a machine check. On its own thread, outside the guest.
///
/// # Errors
/// Where KVM refuses: a bank that the vCPU has not, or a status that is not valid.
#[expect(unsafe_code, reason = "kvm-ioctls has no such call")]
pub(super) fn raise(fd: &VcpuFd, check: &ras_core::actions::MachineCheck) -> Result<(), Error> {
    let mce = kvm_x86_mce {
        status: check.status,
        addr: check.addr,
        misc: check.misc,
        mcg_status: check.mcg_status,
        bank: check.bank,
        ..Default::default()
    };
    // SAFETY: KVM reads the one structure that the call is declared with, and the descriptor is a vCPU's.
    match unsafe { ioctl_with_ref(fd, KVM_X86_SET_MCE(), &mce) } {
        0 => Ok(()),
        _ => errno_result(),
    }
}
