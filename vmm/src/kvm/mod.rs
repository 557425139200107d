//! The machine in KVM: memory slots, interrupt controllers, lines, vCPUs.

#[cfg_attr(target_arch = "x86_64", path = "x86_64.rs")]
#[cfg_attr(target_arch = "aarch64", path = "aarch64.rs")]
mod arch;
mod slots;

use std::sync::{Arc, Mutex, PoisonError};

use devices::{InterruptLine, Level};
use guest_memory::GuestRam;
use kvm_ioctls::{Kvm, VcpuFd, VmFd};
use platform::Platform;
use ras_core::Span;
use vcpu::KvmPort;

pub use arch::{SetupError, offered};

use crate::boot::Entry;

use slots::Slots;

/// Why KVM does not give us the machine.
#[derive(Debug, thiserror::Error)]
pub enum KvmError {
    /// A request that every KVM grants.
    #[error("KVM refuses {what}: {source}")]
    Refused {
        /// What was asked for.
        what: &'static str,
        /// What KVM said.
        source: kvm_ioctls::Error,
    },
    /// More vCPUs than this host's KVM allows.
    #[error("this host's KVM allows {limit} vCPUs, and the machine has {wanted}")]
    TooManyVcpus {
        /// vCPUs of the machine.
        wanted: usize,
        /// KVM_CAP_MAX_VCPUS.
        limit: usize,
    },
    /// A register that KVM does not take.
    #[error(transparent)]
    Setup(#[from] SetupError),
}

/// Makes a [`KvmError::Refused`] of what KVM said.
fn refused(what: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> KvmError {
    move |source| KvmError::Refused { what, source }
}

/// A virtual machine in KVM, with its memory.
pub struct KvmVm {
    vcpus: Vec<VcpuFd>,
    /// Interrupt controllers, which live as long as their descriptors.
    _controllers: arch::Controllers,
    slots: Mutex<Slots>,
    vm: Arc<VmFd>,
    kvm: Kvm,
    /// Mapped for as long as KVM may touch it: dropped last.
    ram: GuestRam,
}

impl KvmVm {
    /// The platform's machine, with memory, interrupt controllers and vCPUs that have no registers yet.
    ///
    /// # Errors
    /// Where KVM refuses, or has not what the machine needs.
    pub fn new(kvm: Kvm, ram: GuestRam, platform: &Platform) -> Result<Self, KvmError> {
        let (wanted, limit) = (platform.cpus.len(), kvm.get_max_vcpus());
        if wanted > limit {
            return Err(KvmError::TooManyVcpus { wanted, limit });
        }
        let vm = Arc::new(arch::create_vm(&kvm, platform)?);
        let slots = Mutex::new(Slots::new(Arc::clone(&vm), &ram)?);
        let (vcpus, controllers) = arch::create_vcpus(&vm, platform)?;
        Ok(KvmVm { vcpus, _controllers: controllers, slots, vm, kvm, ram })
    }

    /// Takes pages from the guest: an access to them leaves to the VMM. While no vCPU is in the guest.
    ///
    /// # Errors
    /// Where KVM refuses.
    pub fn punch_hole(&self, span: Span) -> Result<(), KvmError> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner).punch_hole(span.gpa, span.bytes())
    }

    /// Gives pages back that were taken from the guest. While no vCPU is in the guest.
    ///
    /// # Errors
    /// Where KVM refuses.
    pub fn fill_hole(&self, span: Span) -> Result<(), KvmError> {
        match self.ram.host_address(span.gpa) {
            Some(hva) => {
                let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
                slots.fill_hole(span.gpa, span.bytes(), hva)
            }
            None => Ok(()),
        }
    }

    /// Gives a device a level-triggered line to a GSI.
    #[must_use]
    pub fn level(&self, gsi: u32) -> KvmLevel {
        KvmLevel { vm: Arc::clone(&self.vm), line: arch::level_line(gsi) }
    }

    /// The guest's memory.
    #[must_use]
    pub fn ram(&self) -> &GuestRam {
        &self.ram
    }

    /// Makes each edge of a line an edge on a GSI.
    ///
    /// # Errors
    /// Where KVM refuses.
    pub fn bind(&self, line: &InterruptLine, gsi: u32) -> Result<(), KvmError> {
        self.vm.register_irqfd(line.event(), arch::route(gsi)).map_err(refused("an interrupt line"))
    }

    /// The vCPUs, ready to run; the first enters the kernel, the others wait for it to start them.
    ///
    /// # Errors
    /// Where KVM refuses.
    pub fn ports(&mut self, entry: &Entry) -> Result<Vec<KvmPort>, KvmError> {
        arch::set_up(&self.kvm, &self.vcpus, entry)?;
        Ok(self.vcpus.drain(..).map(|fd| KvmPort::new(fd, self.ram.clone())).collect())
    }
}

/// A level-triggered line.
pub struct KvmLevel {
    vm: Arc<VmFd>,
    /// KVM_IRQ_LINE's name of it.
    line: u32,
}

impl Level for KvmLevel {
    fn set(&self, asserted: bool) {
        if let Err(error) = self.vm.set_irq_line(self.line, asserted) {
            tracing::error!(line = self.line, %error, "an interrupt line cannot be driven");
        }
    }
}
