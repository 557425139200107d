//! aarch64: KVM's virtual GIC with its ITS, vCPUs and their PMU.
//!
//! KVM requires this sequence: create the vCPUs, create the GIC, set its addresses, initialise it, initialise the PMU
//! (Documentation/virt/kvm/devices/arm-vgic-v3.rst, vcpu.rst).

use std::fmt;

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
pub use vcpu::aarch64::Entry;
pub use vcpu::aarch64::SetupError;
use vcpu::aarch64::{CpuFeatures, enter_at};
use vcpu::uninterrupted;

use super::{KvmError, ioctl_failed};

/// The GIC and its ITS, which live as long as their descriptors.
pub(super) struct Controllers {
    _devices: Vec<DeviceFd>,
}

/// Number of INTIDs: up to that of the last virtio-mmio transport, a multiple of 32.
const INTID_COUNT: u32 = 320;
/// INTID of the first SPI.
const FIRST_SPI: u32 = 32;
/// Bits of a guest physical address in a VM of the default type (Documentation/virt/kvm/api.rst, 4.2).
const DEFAULT_IPA_BITS: u32 = 40;

/// The IPA size of a machine's VM: that of the default type, unless the machine has higher addresses or the host has fewer bits.
/// 0, the default type, on a host without KVM_CAP_ARM_VM_IPA_SIZE, whose `limit` is 0. That the host's bits suffice was checked
/// when the machine was planned.
fn ipa_bits(platform: &Platform, limit: i32) -> u32 {
    let end = platform.memory.ram.last().map_or(0, |ram| ram.end());
    let needed = u64::BITS - end.saturating_sub(1).leading_zeros();
    u32::try_from(limit).map_or(0, |limit| needed.max(DEFAULT_IPA_BITS).min(limit))
}

/// The features that this host offers to guests: GIC version and PMU.
///
/// # Errors
/// Returns an error if KVM cannot create a VM.
pub fn offered(kvm: &Kvm) -> Result<Features, KvmError> {
    let vm = uninterrupted(|| kvm.create_vm()).map_err(ioctl_failed("KVM_CREATE_VM"))?;
    // The device is really created, in a temporary VM: KVM_CREATE_DEVICE_TEST returns no descriptor, and kvm-ioctls would
    // take the 0 in its place for one and close it.
    let gic = if create_device(&vm, GICV3).is_ok() { 3 } else { 2 };
    Ok(Features { gic, performance_monitors: vm.check_extension(Cap::ArmPmuV3) })
}

pub(super) fn create_vm(kvm: &Kvm, platform: &Platform) -> Result<VmFd, KvmError> {
    let bits = ipa_bits(platform, kvm.get_host_ipa_limit());
    let ioctl =
        format_args!("KVM_CREATE_VM (guest physical addresses of {bits} bits; 0: of the default, 40)");
    let vm = uninterrupted(|| kvm.create_vm_with_ipa_size(bits)).map_err(ioctl_failed(ioctl))?;
    // Accesses that KVM cannot decode, and external aborts that the host's APEI driver does not claim, exit to the VMM if
    // the host supports it.
    for (name, cap) in
        [("KVM_CAP_ARM_NISV_TO_USER", KVM_CAP_ARM_NISV_TO_USER), ("KVM_CAP_ARM_SEA_TO_USER", ARM_SEA_TO_USER)]
    {
        if kvm.check_extension_raw(cap.into()) > 0 {
            let capability = kvm_enable_cap { cap, ..Default::default() };
            vm.enable_cap(&capability).map_err(ioctl_failed(format_args!("KVM_ENABLE_CAP ({name})")))?;
        }
    }
    Ok(vm)
}

/// KVM_CAP_ARM_SEA_TO_USER (linux/kvm.h, 6.19). kvm-bindings does not have it yet.
const ARM_SEA_TO_USER: u32 = 245;

pub(super) fn create_vcpus(vm: &VmFd, platform: &Platform) -> Result<(Vec<VcpuFd>, Controllers), KvmError> {
    let features = CpuFeatures::supported(vm);
    let mut vcpus = Vec::with_capacity(platform.cpus.len());
    for cpu in &platform.cpus {
        let ioctl = format_args!("KVM_CREATE_VCPU (vCPU {})", cpu.index);
        let fd = vm.create_vcpu(cpu.index.into()).map_err(ioctl_failed(ioctl))?;
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

/// The number of an SPI in KVM_IRQFD, which counts from the first SPI.
pub(super) const fn irqfd_gsi(intid: u32) -> u32 {
    intid.saturating_sub(FIRST_SPI)
}

/// The number of an SPI in KVM_IRQ_LINE (Documentation/virt/kvm/api.rst, 4.25).
pub(super) const fn level_irq(intid: u32) -> u32 {
    KVM_ARM_IRQ_TYPE_SPI << KVM_ARM_IRQ_TYPE_SHIFT | intid
}

/// An interrupt controller of KVM: its device type, and its name in error messages.
#[derive(Clone, Copy)]
struct DeviceType(u32, &'static str);

const GICV3: DeviceType = DeviceType(kvm_device_type_KVM_DEV_TYPE_ARM_VGIC_V3, "VGICv3");
const GICV2: DeviceType = DeviceType(kvm_device_type_KVM_DEV_TYPE_ARM_VGIC_V2, "VGICv2");
const ITS: DeviceType = DeviceType(kvm_device_type_KVM_DEV_TYPE_ARM_VGIC_ITS, "VGIC ITS");

fn create_gic(vm: &VmFd, controller: &InterruptController) -> Result<Vec<DeviceFd>, KvmError> {
    let mut devices = Vec::new();
    match controller {
        InterruptController::Gicv3 { distributor, redistributors, its } => {
            let gic = VgicDevice::create(vm, GICV3)?;
            gic.set_address("distributor", KVM_VGIC_V3_ADDR_TYPE_DIST, distributor.start)?;
            gic.set_address("redistributors", KVM_VGIC_V3_ADDR_TYPE_REDIST, redistributors.start)?;
            gic.set_intid_count()?;
            gic.initialise()?;
            devices.push(gic.fd);
            if let Some(its) = its {
                let service = VgicDevice::create(vm, ITS)?;
                service.set_address("registers", KVM_VGIC_ITS_ADDR_TYPE, its.start)?;
                service.initialise()?;
                devices.push(service.fd);
            }
        }
        InterruptController::Gicv2 { distributor, cpu_interface } => {
            let gic = VgicDevice::create(vm, GICV2)?;
            gic.set_address("distributor", KVM_VGIC_V2_ADDR_TYPE_DIST, distributor.start)?;
            gic.set_address("CPU interface", KVM_VGIC_V2_ADDR_TYPE_CPU, cpu_interface.start)?;
            gic.set_intid_count()?;
            gic.initialise()?;
            devices.push(gic.fd);
        }
        InterruptController::Apic { .. } => return Err(KvmError::OtherArchitecture),
    }
    Ok(devices)
}

fn create_device(vm: &VmFd, DeviceType(type_, name): DeviceType) -> Result<DeviceFd, KvmError> {
    let mut device = kvm_create_device { type_, fd: 0, flags: 0 };
    vm.create_device(&mut device).map_err(ioctl_failed(format_args!("KVM_CREATE_DEVICE ({name})")))
}

/// An interrupt controller that is being set up.
struct VgicDevice {
    fd: DeviceFd,
    name: &'static str,
}

/// What KVM reads during KVM_SET_DEVICE_ATTR, of the size that the attribute has.
enum AttributeValue {
    None,
    U32(u32),
    U64(u64),
}

impl VgicDevice {
    fn create(vm: &VmFd, device: DeviceType) -> Result<Self, KvmError> {
        Ok(VgicDevice { fd: create_device(vm, device)?, name: device.1 })
    }

    fn set_address(&self, part: &str, attr: u32, gpa: u64) -> Result<(), KvmError> {
        let what = format_args!("address of its {part}, {gpa:#x}");
        self.set(KVM_DEV_ARM_VGIC_GRP_ADDR, attr, &AttributeValue::U64(gpa), what)
    }

    fn set_intid_count(&self) -> Result<(), KvmError> {
        let what = format_args!("NR_IRQS, {INTID_COUNT}");
        self.set(KVM_DEV_ARM_VGIC_GRP_NR_IRQS, 0, &AttributeValue::U32(INTID_COUNT), what)
    }

    fn initialise(&self) -> Result<(), KvmError> {
        let what = format_args!("CTRL_INIT");
        self.set(KVM_DEV_ARM_VGIC_GRP_CTRL, KVM_DEV_ARM_VGIC_CTRL_INIT, &AttributeValue::None, what)
    }

    fn set(
        &self,
        group: u32,
        attr: u32,
        value: &AttributeValue,
        what: fmt::Arguments<'_>,
    ) -> Result<(), KvmError> {
        // KVM reads the value through its address during the call.
        let addr = match value {
            AttributeValue::None => 0,
            AttributeValue::U32(value) => std::ptr::from_ref(value) as u64,
            AttributeValue::U64(value) => std::ptr::from_ref(value) as u64,
        };
        let attribute = kvm_device_attr { group, attr: attr.into(), addr, flags: 0 };
        let ioctl = format_args!("KVM_SET_DEVICE_ATTR ({}, {what})", self.name);
        self.fd.set_device_attr(&attribute).map_err(ioctl_failed(ioctl))
    }
}
