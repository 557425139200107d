//! aarch64: KVM's virtual GIC, its interrupt translation service and what vCPUs get beside them.
//!
//! KVM wants an order: vCPUs are created, then the GIC is, then it is placed, then it is initialised; the performance
//! monitors come after that (Documentation/virt/kvm/devices/arm-vgic-v3.rst, vcpu.rst).

use kvm_bindings::{
    KVM_ARM_IRQ_TYPE_SHIFT, KVM_ARM_IRQ_TYPE_SPI, KVM_CAP_ARM_NISV_TO_USER, KVM_DEV_ARM_VGIC_CTRL_INIT,
    KVM_DEV_ARM_VGIC_GRP_ADDR, KVM_DEV_ARM_VGIC_GRP_CTRL, KVM_DEV_ARM_VGIC_GRP_NR_IRQS,
    KVM_VGIC_ITS_ADDR_TYPE, KVM_VGIC_V2_ADDR_TYPE_CPU, KVM_VGIC_V2_ADDR_TYPE_DIST,
    KVM_VGIC_V3_ADDR_TYPE_DIST, KVM_VGIC_V3_ADDR_TYPE_REDIST, kvm_create_device, kvm_device_attr,
    kvm_device_type_KVM_DEV_TYPE_ARM_VGIC_ITS, kvm_device_type_KVM_DEV_TYPE_ARM_VGIC_V2,
    kvm_device_type_KVM_DEV_TYPE_ARM_VGIC_V3, kvm_enable_cap,
};
use kvm_ioctls::{Cap, DeviceFd, Kvm, VcpuFd, VmFd};
use platform::aarch64::Features;
use platform::{InterruptController, Platform};
pub use vcpu::aarch64::SetupError;
use vcpu::aarch64::{CpuFeatures, Entry, enter_at};

use super::{KvmError, refused};

/// The GIC's parts, which live as long as their descriptors.
pub(super) struct Controllers {
    _devices: Vec<DeviceFd>,
}

/// INTIDs that the GIC knows: up to the last virtio-mmio transport's, in units of 32.
const INTERRUPTS: u32 = 320;
/// The first SPI's INTID: irqfd counts from it.
const FIRST_SPI: u32 = 32;
/// Bits of guest physical addresses where nothing else is asked for.
const DEFAULT_IPA_BITS: u32 = 40;

/// What this host offers a guest.
///
/// # Errors
/// Where KVM makes no machine at all, or has no GIC.
pub fn offered(kvm: &Kvm) -> Result<Features, KvmError> {
    let vm = kvm.create_vm().map_err(refused("a virtual machine"))?;
    // Made for a machine that is thrown away: kvm-ioctls takes the descriptor of a mere test for a real one, 0.
    let has = |kind| create_device(&vm, kind).is_ok();
    let gic3 = has(kvm_device_type_KVM_DEV_TYPE_ARM_VGIC_V3);
    Ok(Features { gic: if gic3 { 3 } else { 2 }, performance_monitors: vm.check_extension(Cap::ArmPmuV3) })
}

pub(super) fn create_vm(kvm: &Kvm, platform: &Platform) -> Result<VmFd, KvmError> {
    let end = platform.memory.ram.last().map_or(0, |ram| ram.end());
    let bits = end.next_power_of_two().trailing_zeros();
    let vm = if bits <= DEFAULT_IPA_BITS {
        kvm.create_vm().map_err(refused("a virtual machine"))?
    } else {
        let refused = refused("guest physical addresses as wide as its memory needs");
        kvm.create_vm_with_ipa_size(bits).map_err(refused)?
    };
    // What KVM cannot take apart, and aborts that no driver of the host claims, come to us, where the host can do that.
    for capability in [KVM_CAP_ARM_NISV_TO_USER, ARM_SEA_TO_USER] {
        if kvm.check_extension_raw(capability.into()) > 0 {
            let capability = kvm_enable_cap { cap: capability, ..Default::default() };
            vm.enable_cap(&capability).map_err(refused("accesses and aborts for the VMM to answer"))?;
        }
    }
    Ok(vm)
}

/// KVM_CAP_ARM_SEA_TO_USER (linux/kvm.h, 6.19), which kvm-bindings does not know.
const ARM_SEA_TO_USER: u32 = 245;

pub(super) fn create_vcpus(vm: &VmFd, platform: &Platform) -> Result<(Vec<VcpuFd>, Controllers), KvmError> {
    let features = CpuFeatures::supported(vm);
    let mut vcpus = Vec::with_capacity(platform.cpus.len());
    for cpu in &platform.cpus {
        let fd = vm.create_vcpu(cpu.index.into()).map_err(refused("a vCPU"))?;
        features.initialise(vm, &fd, cpu.index, cpu.hardware_id)?;
        vcpus.push(fd);
    }
    let controllers = Controllers { _devices: create_gic(vm, &platform.interrupts)? };
    if let Some(intid) = platform.private_interrupts.and_then(|private| private.performance_monitors) {
        for (fd, vcpu) in vcpus.iter().zip(0..) {
            features.wire_performance_monitors(fd, vcpu, intid)?;
        }
    }
    Ok((vcpus, controllers))
}

pub(super) fn set_up(_: &Kvm, vcpus: &[VcpuFd], entry: &Entry) -> Result<(), KvmError> {
    match vcpus.first() {
        Some(boot_processor) => Ok(enter_at(boot_processor, *entry)?),
        None => Ok(()),
    }
}

/// Routes count SPIs.
pub(super) const fn route(intid: u32) -> u32 {
    intid.saturating_sub(FIRST_SPI)
}

/// KVM_IRQ_LINE's name of an SPI (Documentation/virt/kvm/api.rst, 4.25).
pub(super) const fn level_line(intid: u32) -> u32 {
    KVM_ARM_IRQ_TYPE_SPI << KVM_ARM_IRQ_TYPE_SHIFT | intid
}

fn create_gic(vm: &VmFd, controller: &InterruptController) -> Result<Vec<DeviceFd>, KvmError> {
    let mut devices = Vec::new();
    match controller {
        InterruptController::Gicv3 { distributor, redistributors, its } => {
            let gic = create_device(vm, kvm_device_type_KVM_DEV_TYPE_ARM_VGIC_V3)?;
            place(&gic, KVM_VGIC_V3_ADDR_TYPE_DIST, distributor.start)?;
            place(&gic, KVM_VGIC_V3_ADDR_TYPE_REDIST, redistributors.start)?;
            initialise_gic(&gic)?;
            devices.push(gic);
            if let Some(its) = its {
                let service = create_device(vm, kvm_device_type_KVM_DEV_TYPE_ARM_VGIC_ITS)?;
                place(&service, KVM_VGIC_ITS_ADDR_TYPE, its.start)?;
                control_init(&service)?;
                devices.push(service);
            }
        }
        InterruptController::Gicv2 { distributor, cpu_interface } => {
            let gic = create_device(vm, kvm_device_type_KVM_DEV_TYPE_ARM_VGIC_V2)?;
            place(&gic, KVM_VGIC_V2_ADDR_TYPE_DIST, distributor.start)?;
            place(&gic, KVM_VGIC_V2_ADDR_TYPE_CPU, cpu_interface.start)?;
            initialise_gic(&gic)?;
            devices.push(gic);
        }
        InterruptController::Apic { .. } => {
            return Err(refused("an x86_64 machine")(kvm_ioctls::Error::new(libc::ENODEV)));
        }
    }
    Ok(devices)
}

fn create_device(vm: &VmFd, kind: u32) -> Result<DeviceFd, KvmError> {
    let mut device = kvm_create_device { type_: kind, fd: 0, flags: 0 };
    vm.create_device(&mut device).map_err(refused("an interrupt controller"))
}

fn place(device: &DeviceFd, what: u32, gpa: u64) -> Result<(), KvmError> {
    set(
        device,
        KVM_DEV_ARM_VGIC_GRP_ADDR,
        what,
        std::ptr::from_ref(&gpa) as u64,
        "its interrupt controller there",
    )
}

fn initialise_gic(gic: &DeviceFd) -> Result<(), KvmError> {
    let interrupts = std::ptr::from_ref(&INTERRUPTS) as u64;
    set(gic, KVM_DEV_ARM_VGIC_GRP_NR_IRQS, 0, interrupts, "as many interrupts")?;
    control_init(gic)
}

fn control_init(device: &DeviceFd) -> Result<(), KvmError> {
    set(device, KVM_DEV_ARM_VGIC_GRP_CTRL, KVM_DEV_ARM_VGIC_CTRL_INIT, 0, "an interrupt controller's start")
}

/// Sets an attribute. Where it has a value, KVM reads it through `addr` during the call.
fn set(device: &DeviceFd, group: u32, attr: u32, addr: u64, what: &'static str) -> Result<(), KvmError> {
    let attribute = kvm_device_attr { group, attr: attr.into(), addr, flags: 0 };
    device.set_device_attr(&attribute).map_err(refused(what))
}
