//! The initial state of an aarch64 vCPU.

mod core_registers;
mod exceptions;
pub(crate) mod registers;

use kvm_bindings::{
    KVM_ARM_VCPU_PMU_V3, KVM_ARM_VCPU_PMU_V3_CTRL, KVM_ARM_VCPU_PMU_V3_INIT, KVM_ARM_VCPU_PMU_V3_IRQ,
    KVM_ARM_VCPU_POWER_OFF, KVM_ARM_VCPU_PSCI_0_2, KVM_ARM_VCPU_PTRAUTH_ADDRESS,
    KVM_ARM_VCPU_PTRAUTH_GENERIC, KVM_ARM_VCPU_SVE, kvm_device_attr, kvm_vcpu_init,
};
use kvm_ioctls::{Cap, Kvm, VcpuFd, VmFd};

pub(crate) use core_registers::core_registers;
pub(crate) use exceptions::{Exceptions, Registers, instruction_gpa};

use crate::uninterrupted;
use registers::{MPIDR_EL1, PC, PSTATE, X0};

/// The entry of a kernel (Documentation/arch/arm64/booting.rst): EL1, MMU and caches off, interrupts masked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// First instruction.
    pub pc: u64,
    /// GPA of the devicetree, passed in X0.
    pub devicetree: u64,
}

/// Optional processor features that KVM supports for a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuFeatures {
    /// PMUv3.
    pub performance_monitors: bool,
    /// SVE.
    pub sve: bool,
    /// Pointer authentication, with address and generic keys: KVM accepts both or none.
    pub pointer_authentication: bool,
}

/// The initial state of a vCPU could not be set.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SetupError {
    /// An ioctl failed.
    #[error("{call} (vCPU {vcpu}): {source}")]
    Call {
        /// The ioctl and its object, for example `KVM_ARM_VCPU_INIT`.
        call: &'static str,
        /// Index of the vCPU.
        vcpu: u32,
        /// Its error.
        source: kvm_ioctls::Error,
    },
    /// KVM gave the vCPU another MPIDR affinity than the firmware tables.
    #[error("MPIDR_EL1 (vCPU {vcpu}): affinity {actual:#x} in KVM, {expected:#x} in the firmware tables")]
    Affinity {
        /// Index of the vCPU.
        vcpu: u32,
        /// MPIDR affinity in KVM.
        actual: u64,
        /// MPIDR affinity in the firmware tables.
        expected: u64,
    },
}

impl CpuFeatures {
    /// The features that KVM supports, from its capabilities.
    #[must_use]
    pub fn supported(vm: &VmFd) -> Self {
        CpuFeatures {
            performance_monitors: vm.check_extension(Cap::ArmPmuV3),
            sve: vm.check_extension(Cap::ArmSve),
            pointer_authentication: vm.check_extension(Cap::ArmPtrAuthAddress)
                && vm.check_extension(Cap::ArmPtrAuthGeneric),
        }
    }

    /// Initialises the vCPU of index `vcpu` with these features. All vCPUs except the first are off until PSCI CPU_ON starts them.
    ///
    /// # Errors
    /// Returns an error if an ioctl fails, or the vCPU's MPIDR affinity is not `affinity`.
    pub fn initialise(self, vm: &VmFd, fd: &VcpuFd, vcpu: u32, affinity: u64) -> Result<(), SetupError> {
        let failed = |call| move |source| SetupError::Call { call, vcpu, source };
        let mut init = kvm_vcpu_init::default();
        vm.get_preferred_target(&mut init).map_err(failed("KVM_ARM_PREFERRED_TARGET"))?;
        let mut feature = |bit: u32, wanted: bool| init.features[0] |= u32::from(wanted) << bit;
        feature(KVM_ARM_VCPU_PSCI_0_2, true);
        feature(KVM_ARM_VCPU_POWER_OFF, vcpu != 0);
        feature(KVM_ARM_VCPU_PMU_V3, self.performance_monitors);
        feature(KVM_ARM_VCPU_SVE, self.sve);
        feature(KVM_ARM_VCPU_PTRAUTH_ADDRESS, self.pointer_authentication);
        feature(KVM_ARM_VCPU_PTRAUTH_GENERIC, self.pointer_authentication);
        fd.vcpu_init(&init).map_err(failed("KVM_ARM_VCPU_INIT"))?;
        if self.sve {
            // The feature to finalise is the number of its bit, which is far below i32::MAX.
            fd.vcpu_finalize(&(KVM_ARM_VCPU_SVE as i32)).map_err(failed("KVM_ARM_VCPU_FINALIZE of SVE"))?;
        }
        let mpidr = registers::get(fd, MPIDR_EL1).map_err(failed("KVM_GET_ONE_REG of MPIDR_EL1"))?;
        if mpidr & AFFINITY != affinity {
            return Err(SetupError::Affinity { vcpu, actual: mpidr & AFFINITY, expected: affinity });
        }
        Ok(())
    }

    /// Connects the PMU's overflow interrupt to a PPI. Called after the GIC was initialised.
    ///
    /// # Errors
    /// Returns an error if an ioctl fails.
    pub fn wire_performance_monitors(self, fd: &VcpuFd, vcpu: u32, intid: u32) -> Result<(), SetupError> {
        if !self.performance_monitors {
            return Ok(());
        }
        let failed = |call| move |source| SetupError::Call { call, vcpu, source };
        let attribute = |attr: u32, addr: u64| kvm_device_attr {
            group: KVM_ARM_VCPU_PMU_V3_CTRL,
            attr: attr.into(),
            addr,
            flags: 0,
        };
        // KVM reads the number from the address during the ioctl.
        let intid_address = std::ptr::from_ref(&intid) as u64;
        fd.set_device_attr(&attribute(KVM_ARM_VCPU_PMU_V3_IRQ, intid_address))
            .map_err(failed("KVM_SET_DEVICE_ATTR of KVM_ARM_VCPU_PMU_V3_IRQ"))?;
        fd.set_device_attr(&attribute(KVM_ARM_VCPU_PMU_V3_INIT, 0))
            .map_err(failed("KVM_SET_DEVICE_ATTR of KVM_ARM_VCPU_PMU_V3_INIT"))
    }
}

/// Whether vCPUs have the RAS extension (ID_AA64PFR0_EL1.RAS, bits 31:28). `None` if a vCPU cannot be created to read it.
#[must_use]
pub fn has_ras_extension(kvm: &Kvm) -> Option<bool> {
    let vm = uninterrupted(|| kvm.create_vm()).ok()?;
    let fd = vm.create_vcpu(0).ok()?;
    let features = CpuFeatures { performance_monitors: false, sve: false, pointer_authentication: false };
    features.initialise(&vm, &fd, 0, 0).ok()?;
    registers::get(&fd, registers::ID_AA64PFR0_EL1).ok().map(|value| value >> 28 & 0xf != 0)
}

/// Aff0 to Aff3 of MPIDR_EL1.
const AFFINITY: u64 = 0xff_00ff_ffff;
/// PSTATE: EL1 with its own stack pointer, debug exceptions, SErrors, IRQs and FIQs masked.
const EL1H_MASKED: u64 = 0x3c5;

/// Sets the boot processor's registers. PSCI CPU_ON sets those of the others.
///
/// # Errors
/// Returns an error if an ioctl fails.
pub fn enter_at(fd: &VcpuFd, entry: Entry) -> Result<(), SetupError> {
    for (call, id, value) in [
        ("KVM_SET_ONE_REG of PSTATE", PSTATE, EL1H_MASKED),
        ("KVM_SET_ONE_REG of PC", PC, entry.pc),
        ("KVM_SET_ONE_REG of X0", X0, entry.devicetree),
    ] {
        registers::set(fd, id, value).map_err(|source| SetupError::Call { call, vcpu: 0, source })?;
    }
    Ok(())
}
