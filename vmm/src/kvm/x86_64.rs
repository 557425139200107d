//! x86_64: KVM's in-kernel APICs, legacy interrupt controllers and interval timer.

use kvm_bindings::{
    KVM_IRQ_ROUTING_IRQCHIP, KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE,
    KVM_PIT_SPEAKER_DUMMY, KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK, KVM_X2APIC_API_USE_32BIT_IDS,
    KvmIrqRouting, kvm_enable_cap, kvm_irq_routing_entry, kvm_irq_routing_irqchip, kvm_pit_config,
};
use kvm_ioctls::{Cap, Kvm, VcpuFd, VmFd};
use platform::Platform;
use platform::aarch64::Features;
use platform::x86_64::{KVM_IDENTITY_MAP, KVM_TSS};
pub use vcpu::x86_64::SetupError;
use vcpu::x86_64::{Entry, GuestCpu, Topology};

use super::{KvmError, refused};

/// KVM keeps its controllers itself.
pub(super) struct Controllers;

/// What this host offers an aarch64 guest: nothing that an x86_64 machine is made of differs by host.
///
/// # Errors
/// Never.
pub fn offered(_: &Kvm) -> Result<Features, KvmError> {
    Ok(Features::default())
}

pub(super) fn create_vm(kvm: &Kvm, platform: &Platform) -> Result<VmFd, KvmError> {
    let vm = kvm.create_vm().map_err(refused("a virtual machine"))?;
    vm.set_tss_address(KVM_TSS.start as usize).map_err(refused("room for its TSS"))?;
    vm.set_identity_map_address(KVM_IDENTITY_MAP.start).map_err(refused("room for its identity map"))?;
    if platform.cpus.len() > 255 {
        enable_x2apic_ids(&vm)?;
    }
    vm.create_irq_chip().map_err(refused("interrupt controllers"))?;
    let pit = kvm_pit_config { flags: KVM_PIT_SPEAKER_DUMMY, ..Default::default() };
    vm.create_pit2(pit).map_err(refused("an interval timer"))?;
    vm.set_gsi_routing(&routing()?).map_err(refused("interrupt routes"))?;
    Ok(vm)
}

pub(super) fn create_vcpus(vm: &VmFd, platform: &Platform) -> Result<(Vec<VcpuFd>, Controllers), KvmError> {
    let vcpus = platform.cpus.iter().map(|cpu| vm.create_vcpu(cpu.hardware_id).map_err(refused("a vCPU")));
    Ok((vcpus.collect::<Result<_, _>>()?, Controllers))
}

pub(super) fn set_up(kvm: &Kvm, vcpus: &[VcpuFd], entry: &Entry) -> Result<(), KvmError> {
    let guest_cpu = GuestCpu::supported(kvm).map_err(refused("the CPUID that it supports"))?;
    let count = vcpus.len() as u32;
    for (fd, apic_id) in vcpus.iter().zip(0..) {
        guest_cpu.set_up(fd, Topology { apic_id, vcpus: count }, entry)?;
    }
    Ok(())
}

/// KVM knows a GSI by the same number.
pub(super) const fn route(gsi: u32) -> u32 {
    gsi
}

/// KVM_IRQ_LINE's name of a GSI.
pub(super) const fn level_line(gsi: u32) -> u32 {
    gsi
}

/// More than 255 vCPUs: destinations of 32 bits, and 0xff is a processor and not all of them.
fn enable_x2apic_ids(vm: &VmFd) -> Result<(), KvmError> {
    let flags = KVM_X2APIC_API_USE_32BIT_IDS | KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK;
    let cap =
        kvm_enable_cap { cap: Cap::X2ApicApi as u32, args: [flags.into(), 0, 0, 0], ..Default::default() };
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
        entry.u.irqchip = kvm_irq_routing_irqchip { irqchip, pin };
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
