//! The machine in KVM (x86_64): memory slots, interrupt controllers, lines, vCPUs.

use devices::InterruptLine;
use guest_memory::{GuestRam, Slot};
use kvm_bindings::{
    KVM_IRQ_ROUTING_IRQCHIP, KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE,
    KVM_PIT_SPEAKER_DUMMY, KvmIrqRouting, kvm_irq_routing_entry, kvm_pit_config, kvm_userspace_memory_region,
};
use kvm_ioctls::{Cap, Kvm, VmFd};
use platform::x86_64::{KVM_IDENTITY_MAP, KVM_TSS};
use vcpu::KvmPort;
use vcpu::x86_64::{Entry, GuestCpu, SetupError, Topology};

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
        wanted: u32,
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
    kvm: Kvm,
    vm: VmFd,
    /// Mapped for as long as KVM may touch it: dropped after `vm`.
    ram: GuestRam,
}

impl KvmVm {
    /// A machine with memory and interrupt controllers, without vCPUs.
    ///
    /// # Errors
    /// Where KVM refuses, or has not what the machine needs.
    pub fn new(kvm: Kvm, ram: GuestRam, vcpus: u32) -> Result<Self, KvmError> {
        let limit = kvm.get_max_vcpus();
        if vcpus as usize > limit {
            return Err(KvmError::TooManyVcpus { wanted: vcpus, limit });
        }
        let vm = kvm.create_vm().map_err(refused("a virtual machine"))?;
        vm.set_tss_address(KVM_TSS.start as usize).map_err(refused("room for its TSS"))?;
        vm.set_identity_map_address(KVM_IDENTITY_MAP.start).map_err(refused("room for its identity map"))?;
        if vcpus > 255 {
            enable_x2apic_ids(&vm)?;
        }
        vm.create_irq_chip().map_err(refused("interrupt controllers"))?;
        let pit = kvm_pit_config { flags: KVM_PIT_SPEAKER_DUMMY, ..Default::default() };
        vm.create_pit2(pit).map_err(refused("an interval timer"))?;
        vm.set_gsi_routing(&routing()?).map_err(refused("interrupt routes"))?;
        for slot in ram.slots() {
            add_memory(&vm, slot)?;
        }
        Ok(KvmVm { kvm, vm, ram })
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
        // ISA interrupts are known to KVM by their ISA number, and no device here has the timer's.
        self.vm.register_irqfd(line.event(), gsi).map_err(refused("an interrupt line"))
    }

    /// The vCPUs, ready to run; the first enters the kernel, the others wait for it to start them.
    ///
    /// # Errors
    /// Where KVM refuses.
    pub fn vcpus(&self, count: u32, entry: &Entry) -> Result<Vec<KvmPort>, KvmError> {
        let guest_cpu = GuestCpu::supported(&self.kvm).map_err(refused("the CPUID that it supports"))?;
        (0..count)
            .map(|apic_id| {
                let fd = self.vm.create_vcpu(apic_id.into()).map_err(refused("a vCPU"))?;
                guest_cpu.set_up(&fd, Topology { apic_id, vcpus: count }, entry)?;
                Ok(KvmPort::new(fd))
            })
            .collect()
    }
}

#[expect(unsafe_code, reason = "KVM is given host addresses")]
fn add_memory(vm: &VmFd, slot: Slot) -> Result<(), KvmError> {
    let region = kvm_userspace_memory_region {
        slot: slot.index,
        flags: 0,
        guest_phys_addr: slot.gpa,
        memory_size: slot.len,
        userspace_addr: slot.hva,
    };
    // SAFETY: the slot is memory that `GuestRam` mapped and that nothing unmaps while a `KvmVm` holds it.
    unsafe { vm.set_user_memory_region(region) }.map_err(refused("memory"))
}

/// More than 255 vCPUs: destinations of 32 bits, and 0xff is a processor and not all of them.
fn enable_x2apic_ids(vm: &VmFd) -> Result<(), KvmError> {
    let cap = kvm_bindings::kvm_enable_cap {
        cap: Cap::X2ApicApi as u32,
        args: [
            u64::from(
                kvm_bindings::KVM_X2APIC_API_USE_32BIT_IDS
                    | kvm_bindings::KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK,
            ),
            0,
            0,
            0,
        ],
        ..Default::default()
    };
    vm.enable_cap(&cap).map_err(refused("more than 255 vCPUs (KVM_CAP_X2APIC_API)"))
}

/// Pins of the I/O APIC.
const IO_APIC_PINS: u32 = 24;
/// Interrupts of the two legacy controllers.
const ISA_INTERRUPTS: u32 = 16;
/// The timer's pin of the I/O APIC, and the cascade of the legacy controllers.
const TIMER_PIN: u32 = 2;

/// The routes of a PC: GSI n is pin n of the I/O APIC and, below 16, of the legacy controllers; but the timer's, ISA 0,
/// is pin 2 of the I/O APIC, as the tables say.
fn routing() -> Result<KvmIrqRouting, KvmError> {
    let route = |gsi, irqchip, pin| {
        let mut entry = kvm_irq_routing_entry { gsi, type_: KVM_IRQ_ROUTING_IRQCHIP, ..Default::default() };
        entry.u.irqchip = kvm_bindings::kvm_irq_routing_irqchip { irqchip, pin };
        entry
    };
    let legacy = (0..ISA_INTERRUPTS).filter(|&irq| irq != TIMER_PIN).map(|irq| match irq {
        0..8 => route(irq, KVM_IRQCHIP_PIC_MASTER, irq),
        _ => route(irq, KVM_IRQCHIP_PIC_SLAVE, irq - 8),
    });
    let io_apic = (0..IO_APIC_PINS)
        .filter(|&gsi| gsi != TIMER_PIN)
        .map(|gsi| route(gsi, KVM_IRQCHIP_IOAPIC, if gsi == 0 { TIMER_PIN } else { gsi }));
    let entries: Vec<_> = legacy.chain(io_apic).collect();
    KvmIrqRouting::from_entries(&entries).map_err(|_| KvmError::Refused {
        what: "interrupt routes",
        source: kvm_ioctls::Error::new(libc::E2BIG),
    })
}
