//! x86_64: KVM's in-kernel APICs, legacy interrupt controllers and interval timer.

use kvm_bindings::{
    KVM_IRQ_ROUTING_IRQCHIP, KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE,
    KVM_PIT_SPEAKER_DUMMY, KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK, KVM_X2APIC_API_USE_32BIT_IDS,
    KvmIrqRouting, kvm_enable_cap, kvm_irq_routing_entry, kvm_irq_routing_irqchip, kvm_pit_config,
};
use kvm_ioctls::{Cap, Kvm, VcpuFd, VmFd};
use platform::Platform;
use platform::aarch64::Features;
use platform::x86_64::{HOLE_END, KVM_IDENTITY_MAP, KVM_TSS, Layout};
use vcpu::uninterrupted;
pub use vcpu::x86_64::Entry;
pub use vcpu::x86_64::SetupError;
use vcpu::x86_64::{GuestCpu, Topology, machine_check};

use super::{KvmError, ioctl_failed};

/// KVM owns the interrupt controllers: they have no descriptors.
pub(super) struct Controllers;

/// The features that this host offers to aarch64 guests: none. An x86_64 machine has the same hardware on every host.
///
/// # Errors
/// Never returns an error.
pub fn offered(_: &Kvm) -> Result<Features, KvmError> {
    Ok(Features::default())
}

pub(super) fn create_vm(kvm: &Kvm, platform: &Platform) -> Result<VmFd, KvmError> {
    let vm = uninterrupted(|| kvm.create_vm()).map_err(ioctl_failed("KVM_CREATE_VM"))?;
    let (tss, identity_map) = (KVM_TSS.start, KVM_IDENTITY_MAP.start);
    vm.set_tss_address(tss as usize)
        .map_err(ioctl_failed(format_args!("KVM_SET_TSS_ADDR (GPA {tss:#x})")))?;
    vm.set_identity_map_address(identity_map)
        .map_err(ioctl_failed(format_args!("KVM_SET_IDENTITY_MAP_ADDR (GPA {identity_map:#x})")))?;
    if platform.cpus.len() > 255 {
        enable_x2apic_ids(&vm)?;
    }
    machine_check::answer_unknown_msrs(&vm)
        .map_err(ioctl_failed("KVM_ENABLE_CAP (KVM_CAP_X86_USER_SPACE_MSR)"))?;
    vm.create_irq_chip().map_err(ioctl_failed("KVM_CREATE_IRQCHIP"))?;
    let pit = kvm_pit_config { flags: KVM_PIT_SPEAKER_DUMMY, ..Default::default() };
    vm.create_pit2(pit).map_err(ioctl_failed("KVM_CREATE_PIT2"))?;
    vm.set_gsi_routing(&routing()?).map_err(ioctl_failed("KVM_SET_GSI_ROUTING"))?;
    Ok(vm)
}

pub(super) fn create_vcpus(vm: &VmFd, platform: &Platform) -> Result<(Vec<VcpuFd>, Controllers), KvmError> {
    let vcpus = platform.cpus.iter().map(|cpu| {
        let ioctl = format_args!("KVM_CREATE_VCPU (vCPU {}, APIC id {})", cpu.index, cpu.hardware_id);
        vm.create_vcpu(cpu.hardware_id).map_err(ioctl_failed(ioctl))
    });
    Ok((vcpus.collect::<Result<_, _>>()?, Controllers))
}

pub(super) fn set_up(kvm: &Kvm, vcpus: &[VcpuFd], entry: &Entry) -> Result<(), KvmError> {
    let guest_cpu = GuestCpu::supported(kvm).map_err(ioctl_failed("KVM_GET_SUPPORTED_CPUID"))?;
    let guest_cpu = guest_cpu.with_registers_at(Layout::REFERENCE.hole_start..HOLE_END);
    let count = vcpus.len() as u32;
    for (fd, apic_id) in vcpus.iter().zip(0..) {
        guest_cpu.set_up(fd, Topology { apic_id, vcpus: count }, entry)?;
    }
    Ok(())
}

/// The number of a GSI in KVM_IRQFD: the same.
pub(super) const fn irqfd_gsi(gsi: u32) -> u32 {
    gsi
}

/// The number of a GSI in KVM_IRQ_LINE: the same.
pub(super) const fn level_irq(gsi: u32) -> u32 {
    gsi
}

/// For more than 255 vCPUs: 32-bit destinations, and 0xff is one processor, not broadcast.
fn enable_x2apic_ids(vm: &VmFd) -> Result<(), KvmError> {
    let flags = KVM_X2APIC_API_USE_32BIT_IDS | KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK;
    let cap =
        kvm_enable_cap { cap: Cap::X2ApicApi as u32, args: [flags.into(), 0, 0, 0], ..Default::default() };
    vm.enable_cap(&cap).map_err(ioctl_failed("KVM_ENABLE_CAP (KVM_CAP_X2APIC_API, for more than 255 vCPUs)"))
}

/// Pins of the I/O APIC.
const IO_APIC_PINS: u32 = 24;
/// Interrupts of the two 8259 controllers.
const ISA_INTERRUPTS: u32 = 16;
/// The I/O APIC pin of the interval timer, and the 8259 pin of the cascade.
const TIMER_PIN: u32 = 2;

/// The interrupt routes of a PC: GSI n is pin n of the I/O APIC and, below 16, of the 8259 controllers. The exception is
/// ISA interrupt 0, the interval timer: it is pin 2 of the I/O APIC, as the MADT and the MP table describe.
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
    KvmIrqRouting::from_entries(&entries)
        .map_err(|_| ioctl_failed("KVM_SET_GSI_ROUTING")(kvm_ioctls::Error::new(libc::E2BIG)))
}
