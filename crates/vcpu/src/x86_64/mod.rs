//! What an x86_64 vCPU is before it first enters the guest.

mod cpuid;
mod entry;
mod exceptions;
mod local_apic;
pub mod machine_check;

use kvm_bindings::{KVM_MAX_CPUID_ENTRIES, kvm_cpuid_entry2};
use kvm_ioctls::{Cap, Kvm, VcpuFd};

pub use cpuid::{Topology, shape};
pub use entry::{BOOT_GDT, BOOT_GDT_GPA, Entry, PageTables};
pub(crate) use exceptions::{Exceptions, Registers, instruction_gpa};

/// A vCPU could not be set up.
#[derive(Debug, thiserror::Error)]
#[error("{what} of vCPU {vcpu} cannot be set: {source}")]
pub struct SetupError {
    what: &'static str,
    vcpu: u32,
    source: kvm_ioctls::Error,
}

/// What KVM can show a guest, read once for all vCPUs of a machine.
#[derive(Debug)]
pub struct GuestCpu {
    supported: Vec<kvm_cpuid_entry2>,
    tsc_deadline: bool,
    /// Bits of MCG_CAP.
    machine_checks: Option<u64>,
}

impl GuestCpu {
    /// Asks KVM.
    ///
    /// # Errors
    /// Where KVM does not say.
    pub fn supported(kvm: &Kvm) -> Result<Self, kvm_ioctls::Error> {
        Ok(GuestCpu {
            supported: kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)?.as_slice().to_vec(),
            tsc_deadline: kvm.check_extension(Cap::TscDeadlineTimer),
            machine_checks: if kvm.check_extension(Cap::Mce) {
                Some(machine_check::supported(kvm)?)
            } else {
                None
            },
        })
    }

    /// Sets CPUID, the local APIC's wires, machine checks that a guest can survive and, on the boot processor, the registers that the boot protocol wants.
    /// The other processors wait for INIT and SIPI, as KVM leaves them.
    ///
    /// # Errors
    /// Where KVM refuses a value.
    pub fn set_up(&self, fd: &VcpuFd, topology: Topology, entry: &Entry) -> Result<(), SetupError> {
        let vcpu = topology.apic_id;
        let failed = |what| move |source| SetupError { what, vcpu, source };
        let cpuid =
            kvm_bindings::CpuId::from_entries(&shape(&self.supported, topology, self.tsc_deadline)).map_err(
                |_| SetupError { what: "CPUID", vcpu, source: kvm_ioctls::Error::new(libc::E2BIG) },
            )?;
        fd.set_cpuid2(&cpuid).map_err(failed("CPUID"))?;
        let mut lapic = fd.get_lapic().map_err(failed("local APIC"))?;
        local_apic::wire(&mut lapic);
        fd.set_lapic(&lapic).map_err(failed("local APIC"))?;
        if let Some(supported) = self.machine_checks {
            machine_check::set_up(fd, supported).map_err(failed("machine checks"))?;
        }
        if vcpu == 0 {
            fd.set_regs(&entry.regs()).map_err(failed("registers"))?;
            let mut sregs = fd.get_sregs().map_err(failed("system registers"))?;
            entry.apply(&mut sregs);
            fd.set_sregs(&sregs).map_err(failed("system registers"))?;
        }
        Ok(())
    }
}
