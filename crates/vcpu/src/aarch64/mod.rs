//! What an aarch64 vCPU is before it first enters the guest.

mod exceptions;
pub(crate) mod registers;

use kvm_bindings::{
    KVM_ARM_VCPU_PMU_V3, KVM_ARM_VCPU_PMU_V3_CTRL, KVM_ARM_VCPU_PMU_V3_INIT, KVM_ARM_VCPU_PMU_V3_IRQ,
    KVM_ARM_VCPU_POWER_OFF, KVM_ARM_VCPU_PSCI_0_2, KVM_ARM_VCPU_PTRAUTH_ADDRESS,
    KVM_ARM_VCPU_PTRAUTH_GENERIC, KVM_ARM_VCPU_SVE, kvm_device_attr, kvm_vcpu_init,
};
use kvm_ioctls::{Cap, Kvm, VcpuFd, VmFd};

pub(crate) use exceptions::{Exceptions, Registers, instruction_gpa};

use registers::{MPIDR_EL1, PC, PSTATE, X0};

/// How the kernel is entered (Documentation/arch/arm64/booting.rst): MMU and caches off, interrupts masked, EL1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// First instruction.
    pub pc: u64,
    /// GPA of the devicetree, handed over in X0.
    pub devicetree: u64,
}

/// What KVM can show a guest beyond what every vCPU has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuFeatures {
    /// PMUv3.
    pub performance_monitors: bool,
    /// Scalable vectors.
    pub sve: bool,
    /// Pointer authentication, by address and by generic key: KVM wants both or none.
    pub pointer_authentication: bool,
}

/// A vCPU could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// KVM refuses a request.
    #[error("{what} of vCPU {vcpu} cannot be set: {source}")]
    Refused {
        /// What was asked for.
        what: &'static str,
        /// Index of the vCPU.
        vcpu: u32,
        /// What KVM said.
        source: kvm_ioctls::Error,
    },
    /// KVM gave the vCPU another name than the tables.
    #[error("KVM calls vCPU {vcpu} by affinity {found:#x}, and the tables by {told:#x}")]
    Affinity {
        /// Index of the vCPU.
        vcpu: u32,
        /// MPIDR affinity in KVM.
        found: u64,
        /// MPIDR affinity in the tables.
        told: u64,
    },
}

impl CpuFeatures {
    /// Asks KVM. A capability that is missing is a feature that the guest does not get.
    #[must_use]
    pub fn supported(vm: &VmFd) -> Self {
        CpuFeatures {
            performance_monitors: vm.check_extension(Cap::ArmPmuV3),
            sve: vm.check_extension(Cap::ArmSve),
            pointer_authentication: vm.check_extension(Cap::ArmPtrAuthAddress)
                && vm.check_extension(Cap::ArmPtrAuthGeneric),
        }
    }

    /// Initialises the vCPU of index `vcpu` with these features. All but the first are off until PSCI starts them.
    ///
    /// # Errors
    /// Where KVM refuses, or knows the vCPU by another affinity than `told`.
    pub fn initialise(self, vm: &VmFd, fd: &VcpuFd, vcpu: u32, told: u64) -> Result<(), SetupError> {
        let refused = |what| move |source| SetupError::Refused { what, vcpu, source };
        let mut init = kvm_vcpu_init::default();
        vm.get_preferred_target(&mut init).map_err(refused("the processor model"))?;
        let mut feature = |bit: u32, wanted: bool| init.features[0] |= u32::from(wanted) << bit;
        feature(KVM_ARM_VCPU_PSCI_0_2, true);
        feature(KVM_ARM_VCPU_POWER_OFF, vcpu != 0);
        feature(KVM_ARM_VCPU_PMU_V3, self.performance_monitors);
        feature(KVM_ARM_VCPU_SVE, self.sve);
        feature(KVM_ARM_VCPU_PTRAUTH_ADDRESS, self.pointer_authentication);
        feature(KVM_ARM_VCPU_PTRAUTH_GENERIC, self.pointer_authentication);
        fd.vcpu_init(&init).map_err(refused("the initial state"))?;
        if self.sve {
            // The bit is also the name of the feature to finalise; it is far below i32's limit.
            fd.vcpu_finalize(&(KVM_ARM_VCPU_SVE as i32)).map_err(refused("the vector length"))?;
        }
        let found = registers::get(fd, MPIDR_EL1).map_err(refused("MPIDR_EL1"))? & AFFINITY;
        if found != told {
            return Err(SetupError::Affinity { vcpu, found, told });
        }
        Ok(())
    }

    /// Wires the performance monitors' overflow to a private interrupt. After the GIC was initialised.
    ///
    /// # Errors
    /// Where KVM refuses.
    pub fn wire_performance_monitors(self, fd: &VcpuFd, vcpu: u32, intid: u32) -> Result<(), SetupError> {
        if !self.performance_monitors {
            return Ok(());
        }
        let refused = |source| SetupError::Refused { what: "performance monitors", vcpu, source };
        let attribute = |attr: u32, addr: u64| kvm_device_attr {
            group: KVM_ARM_VCPU_PMU_V3_CTRL,
            attr: attr.into(),
            addr,
            flags: 0,
        };
        // KVM reads the number through the address, during the call.
        let intid_address = std::ptr::from_ref(&intid) as u64;
        fd.set_device_attr(&attribute(KVM_ARM_VCPU_PMU_V3_IRQ, intid_address)).map_err(refused)?;
        fd.set_device_attr(&attribute(KVM_ARM_VCPU_PMU_V3_INIT, 0)).map_err(refused)
    }
}

/// Whether vCPUs have the RAS extension (ID_AA64PFR0_EL1.RAS, bits 28 to 31); none where that cannot be asked.
#[must_use]
pub fn has_ras_extension(kvm: &Kvm) -> Option<bool> {
    let vm = kvm.create_vm().ok()?;
    let fd = vm.create_vcpu(0).ok()?;
    let features = CpuFeatures { performance_monitors: false, sve: false, pointer_authentication: false };
    features.initialise(&vm, &fd, 0, 0).ok()?;
    registers::get(&fd, registers::ID_AA64PFR0_EL1).ok().map(|value| value >> 28 & 0xf != 0)
}

/// Aff0 to Aff3 of MPIDR_EL1.
const AFFINITY: u64 = 0xff_00ff_ffff;
/// PSTATE: EL1 with its own stack pointer, debug exceptions, SErrors, IRQs and FIQs masked.
const EL1H_MASKED: u64 = 0x3c5;

/// Sets the boot processor's registers. The others get theirs from PSCI.
///
/// # Errors
/// Where KVM refuses.
pub fn enter_at(fd: &VcpuFd, entry: Entry) -> Result<(), SetupError> {
    for (what, id, value) in
        [("PSTATE", PSTATE, EL1H_MASKED), ("PC", PC, entry.pc), ("X0", X0, entry.devicetree)]
    {
        registers::set(fd, id, value).map_err(|source| SetupError::Refused { what, vcpu: 0, source })?;
    }
    Ok(())
}
