//! The VM in KVM: memslots, interrupt controllers, interrupt lines, vCPUs.

#[cfg_attr(target_arch = "x86_64", path = "x86_64.rs")]
#[cfg_attr(target_arch = "aarch64", path = "aarch64.rs")]
mod arch;
mod memslots;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use devices::{InterruptLine, Level};
use guest_memory::GuestRam;
use kvm_ioctls::{IoEventAddress, Kvm, VcpuFd, VmFd};
use platform::Platform;
use ras_core::Span;
use vcpu::KvmPort;
use vmm_sys_util::eventfd::EventFd;

pub use arch::{Entry, SetupError, offered};

use memslots::Memslots;

/// Why a VM cannot be set up in KVM.
#[derive(Debug, thiserror::Error)]
pub enum KvmError {
    /// An ioctl failed.
    #[error("{ioctl}: {source}{}", remedy(.source))]
    Ioctl {
        /// Its name and its object, for example `KVM_CREATE_VCPU (vCPU 3)`.
        ioctl: String,
        /// Its errno.
        source: kvm_ioctls::Error,
    },
    /// More vCPUs than KVM on this host supports.
    #[error("KVM on this host supports {limit} vCPUs (KVM_CAP_MAX_VCPUS), the profile has {wanted}")]
    TooManyVcpus {
        /// vCPUs of the profile.
        wanted: usize,
        /// KVM_CAP_MAX_VCPUS.
        limit: usize,
    },
    /// More holes in guest memory than KVM on this host supports.
    #[error(
        "KVM on this host supports {limit} memslots (KVM_CAP_NR_MEMSLOTS), and {used} are in use: \
         no further page can be removed from guest memory"
    )]
    TooManyMemslots {
        /// Memslots in use.
        used: usize,
        /// KVM_CAP_NR_MEMSLOTS.
        limit: usize,
    },
    /// The platform describes a machine of another architecture.
    #[error("the platform describes a machine of another architecture than this host's")]
    OtherArchitecture,
    /// The registers of a vCPU cannot be set up.
    #[error(transparent)]
    Setup(#[from] SetupError),
}

/// Makes a [`KvmError::Ioctl`] of an errno.
fn ioctl_failed(ioctl: impl fmt::Display) -> impl FnOnce(kvm_ioctls::Error) -> KvmError {
    move |source| KvmError::Ioctl { ioctl: ioctl.to_string(), source }
}

/// What the user can do about an errno, if anything.
fn remedy(source: &kvm_ioctls::Error) -> &'static str {
    match source.errno() {
        libc::EMFILE => "; raise the limit of open files (ulimit -n)",
        libc::ENOMEM => "; the host is out of memory for KVM, or a cgroup limits it",
        _ => "",
    }
}

/// A VM and the memory that its memslots map.
struct MappedVm {
    fd: VmFd,
    /// After `fd`: fields are dropped in this order, and the memory has to stay mapped while the VM can access it. A vCPU's
    /// descriptor keeps the VM alive too; each [`KvmPort`] has a clone of the memory.
    ram: GuestRam,
}

/// A virtual machine in KVM, with its memory.
pub struct KvmVm {
    vcpus: Vec<VcpuFd>,
    /// Interrupt controllers, which live as long as their descriptors.
    _controllers: arch::Controllers,
    memslots: Mutex<Memslots>,
    vm: Arc<MappedVm>,
}

impl KvmVm {
    /// Creates the platform's VM: memory, interrupt controllers, and vCPUs whose registers [`ports`](Self::ports) sets.
    ///
    /// # Errors
    /// Returns an error if an ioctl fails, or if KVM supports fewer vCPUs than the platform has.
    pub fn new(kvm: &Kvm, ram: GuestRam, platform: &Platform) -> Result<Self, KvmError> {
        let (wanted, limit) = (platform.cpus.len(), kvm.get_max_vcpus());
        if wanted > limit {
            return Err(KvmError::TooManyVcpus { wanted, limit });
        }
        let vm = Arc::new(MappedVm { fd: arch::create_vm(kvm, platform)?, ram });
        let memslots = Mutex::new(Memslots::new(Arc::clone(&vm), kvm.get_nr_memslots())?);
        let (vcpus, controllers) = arch::create_vcpus(&vm.fd, platform)?;
        Ok(KvmVm { vcpus, _controllers: controllers, memslots, vm })
    }

    /// Removes pages from the memslots: an access to them exits to the VMM. Call it only while no vCPU runs.
    ///
    /// # Errors
    /// Returns an error, and changes nothing, if KVM supports no further memslot or an ioctl fails.
    pub fn punch_hole(&self, span: Span) -> Result<(), KvmError> {
        self.memslots.lock().unwrap_or_else(PoisonError::into_inner).punch_hole(span.gpa, span.bytes())
    }

    /// Maps pages again that [`punch_hole`](Self::punch_hole) removed. Call it only while no vCPU runs.
    ///
    /// # Errors
    /// Returns an error if an ioctl fails.
    pub fn fill_hole(&self, span: Span) -> Result<(), KvmError> {
        self.memslots.lock().unwrap_or_else(PoisonError::into_inner).fill_hole(span.gpa, span.bytes())
    }

    /// A level-triggered interrupt line to a GSI.
    #[must_use]
    pub fn level(&self, gsi: u32) -> KvmLevel {
        KvmLevel { vm: Arc::clone(&self.vm), irq: arch::level_irq(gsi) }
    }

    /// The guest's memory.
    #[must_use]
    pub fn ram(&self) -> &GuestRam {
        &self.vm.ram
    }

    /// Makes each signal of an edge-triggered line raise a GSI (KVM_IRQFD).
    ///
    /// # Errors
    /// Returns an error if an ioctl fails.
    pub fn bind(&self, line: &InterruptLine, gsi: u32) -> Result<(), KvmError> {
        let ioctl = format_args!("KVM_IRQFD (GSI {gsi})");
        self.vm.fd.register_irqfd(line.event(), arch::irqfd_gsi(gsi)).map_err(ioctl_failed(ioctl))
    }

    /// Makes a guest's write of 32 bits with this value to a GPA signal an eventfd, without an exit (KVM_IOEVENTFD). Other writes to the
    /// GPA exit as before.
    ///
    /// # Errors
    /// Returns an error if the ioctl fails.
    pub fn signal_on_write(&self, gpa: u64, value: u32, event: &EventFd) -> Result<(), KvmError> {
        let ioctl = format_args!("KVM_IOEVENTFD (GPA {gpa:#x})");
        self.vm.fd.register_ioevent(event, &IoEventAddress::Mmio(gpa), value).map_err(ioctl_failed(ioctl))
    }

    /// Sets the vCPUs' registers and returns the vCPUs, ready to run: the first starts at `entry`, the others wait until
    /// the guest starts them.
    ///
    /// # Errors
    /// Returns an error if an ioctl fails.
    pub fn ports(&mut self, kvm: &Kvm, entry: &Entry) -> Result<Vec<KvmPort>, KvmError> {
        arch::set_up(kvm, &self.vcpus, entry)?;
        Ok(self.vcpus.drain(..).map(|fd| KvmPort::new(fd, self.vm.ram.clone())).collect())
    }
}

/// A level-triggered interrupt line.
pub struct KvmLevel {
    vm: Arc<MappedVm>,
    /// `irq` of KVM_IRQ_LINE.
    irq: u32,
}

impl Level for KvmLevel {
    fn set(&self, asserted: bool) {
        if let Err(error) = self.vm.fd.set_irq_line(self.irq, asserted) {
            tracing::error!(irq = self.irq, asserted, %error, "KVM_IRQ_LINE failed");
        }
    }
}

/// The main thread, vCPU threads and device workers share these.
const _: () = {
    const fn is_send_and_sync<T: Send + Sync>() {}
    is_send_and_sync::<KvmVm>();
    is_send_and_sync::<KvmLevel>();
    is_send_and_sync::<KvmError>();
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_message_names_the_ioctl_its_object_the_errno_and_the_remedy() {
        let message =
            |errno| ioctl_failed("KVM_CREATE_VCPU (vCPU 3)")(kvm_ioctls::Error::new(errno)).to_string();
        assert_eq!(message(libc::EINVAL), "KVM_CREATE_VCPU (vCPU 3): Invalid argument (os error 22)");
        assert_eq!(
            message(libc::EMFILE),
            "KVM_CREATE_VCPU (vCPU 3): Too many open files (os error 24); raise the limit of open files (ulimit -n)"
        );
    }
}
