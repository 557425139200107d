//! The initial state of an x86_64 vCPU.

mod core_registers;
mod cpuid;
mod entry;
mod exceptions;
mod local_apic;
pub mod machine_check;
mod msrs;

use std::ops::Range;

use kvm_bindings::{KVM_MAX_CPUID_ENTRIES, kvm_cpuid_entry2};
use kvm_ioctls::{Cap, Kvm, VcpuFd};

pub(crate) use core_registers::core_registers;
pub use cpuid::{Topology, address_bits, shape};
pub use entry::{BOOT_GDT, BOOT_GDT_GPA, Entry, PageTables};
pub(crate) use exceptions::{Exceptions, Registers, instruction_gpa};

/// The initial state of a vCPU could not be set: the ioctl that failed, and its error.
#[derive(Debug, thiserror::Error)]
#[error("{call} (vCPU {vcpu}): {source}")]
pub struct SetupError {
    call: &'static str,
    vcpu: u32,
    source: kvm_ioctls::Error,
}

/// What KVM supports of a guest's processor, read once for all vCPUs of a machine.
#[derive(Debug)]
pub struct GuestCpu {
    supported: Vec<kvm_cpuid_entry2>,
    tsc_deadline: bool,
    /// Supported bits of IA32_MCG_CAP. `None` without KVM_CAP_MCE.
    machine_checks: Option<u64>,
    /// Addresses below 4 GiB that hold no memory.
    registers: Range<u64>,
}

impl GuestCpu {
    /// Reads it from KVM.
    ///
    /// # Errors
    /// Returns the error of KVM_GET_SUPPORTED_CPUID or KVM_X86_GET_MCE_CAP_SUPPORTED.
    pub fn supported(kvm: &Kvm) -> Result<Self, kvm_ioctls::Error> {
        Ok(GuestCpu {
            supported: kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)?.as_slice().to_vec(),
            tsc_deadline: kvm.check_extension(Cap::TscDeadlineTimer),
            machine_checks: if kvm.check_extension(Cap::Mce) {
                Some(machine_check::supported(kvm)?)
            } else {
                None
            },
            registers: 0..0,
        })
    }

    /// The same, for a machine with registers and no memory at these addresses: the processors do not cache them.
    ///
    /// The range is one of whole pages. Each processor has a limited number of registers for such ranges (eight in KVM), of which
    /// one suffices if the length is a power of two and the start a multiple of it.
    #[must_use]
    pub fn with_registers_at(self, registers: Range<u64>) -> Self {
        GuestCpu { registers, ..self }
    }

    /// Sets CPUID, the local APIC's LINT pins, recoverable machine checks, the model-specific registers that firmware sets
    /// (IA32_MISC_ENABLE, MTRRs) and, on the boot processor, the registers that the boot protocol requires. The other processors
    /// wait for INIT and SIPI.
    ///
    /// # Errors
    /// Returns an error if an ioctl fails.
    pub fn set_up(&self, fd: &VcpuFd, topology: Topology, entry: &Entry) -> Result<(), SetupError> {
        let vcpu = topology.apic_id;
        let failed = |call| move |source| SetupError { call, vcpu, source };
        let entries = shape(&self.supported, topology, self.tsc_deadline);
        let cpuid = kvm_bindings::CpuId::from_entries(&entries)
            .map_err(|_| failed("KVM_SET_CPUID2")(kvm_ioctls::Error::new(libc::E2BIG)))?;
        fd.set_cpuid2(&cpuid).map_err(failed("KVM_SET_CPUID2"))?;
        let mut lapic = fd.get_lapic().map_err(failed("KVM_GET_LAPIC"))?;
        local_apic::wire(&mut lapic);
        fd.set_lapic(&lapic).map_err(failed("KVM_SET_LAPIC"))?;
        if let Some(supported) = self.machine_checks {
            machine_check::set_up(fd, supported).map_err(failed("KVM_X86_SETUP_MCE"))?;
        }
        msrs::set_up(fd, &entries, &self.registers).map_err(|(call, source)| failed(call)(source))?;
        if vcpu == 0 {
            fd.set_regs(&entry.regs()).map_err(failed("KVM_SET_REGS"))?;
            let mut sregs = fd.get_sregs().map_err(failed("KVM_GET_SREGS"))?;
            entry.apply(&mut sregs);
            fd.set_sregs(&sregs).map_err(failed("KVM_SET_SREGS"))?;
        }
        Ok(())
    }
}
