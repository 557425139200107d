//! FADT: the properties of the machine, and its power registers.

use acpi_tables::Aml;
use acpi_tables::fadt::{FADTBuilder, Flags};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use platform::{Arch, DeviceNode, DeviceRole, Platform, PowerControl, Window};

use super::{AcpiTable, Body, Context, SET, header, version};
use crate::BuildError;

/// IA-PC boot architecture flags (ACPI 6.5, 5.2.9.3, table 5.11).
mod boot_flags {
    /// LEGACY_DEVICES: the machine has devices on an ISA bus.
    pub(super) const LEGACY_DEVICES: u16 = 1 << 0;
    /// 8042: the machine has a keyboard controller.
    pub(super) const KEYBOARD_CONTROLLER: u16 = 1 << 1;
    /// VGA Not Present.
    pub(super) const NO_VGA: u16 = 1 << 2;
    /// CMOS RTC Not Present.
    pub(super) const NO_CMOS_RTC: u16 = 1 << 5;
}

/// Arm boot architecture flags (ACPI 6.5, 5.2.9.4, table 5.12).
mod arm_boot_flags {
    /// PSCI_COMPLIANT.
    pub(super) const PSCI: u16 = 1 << 0;
    /// PSCI_USE_HVC: PSCI calls are made by HVC, not by SMC.
    pub(super) const HVC: u16 = 1 << 1;
}

/// Fixed ACPI Description Table (ACPI 6.5, 5.2.9, table 5.9), hardware-reduced: without FACS, SCI and PM register blocks.
pub(super) const TABLE: AcpiTable =
    AcpiTable { signature: *b"FACP", name: "facp", file_name: "facp.aml", body };

fn body(context: &Context<'_>) -> Result<Option<Body>, BuildError> {
    let platform = context.platform;
    // The machine has no fixed hardware: buttons are devices or absent, and the clock cannot wake it up. The builder's
    // header is not used.
    let mut fadt = FADTBuilder::new([0; 6], [0; 8], 0)
        .dsdt_64(context.dsdt)
        .flag(Flags::PwrButton)
        .flag(Flags::SlpButton)
        .flag(Flags::FixRtc)
        .flag(Flags::Headless)
        .flag(Flags::HwReducedAcpi);
    let (revision, minor) = version::FADT;
    fadt.fadt_minor_version = minor;
    fadt.hypervisor_vendor_identity = u64::from_le_bytes(context.oem.hypervisor_vendor).into();
    let fadt = match platform.arch {
        Arch::X86_64 => x86_64(fadt, platform)?,
        Arch::Aarch64 => aarch64(fadt, platform)?,
    };
    let mut bytes = Vec::with_capacity(acpi_tables::fadt::FADT::len());
    fadt.finalize().to_aml_bytes(&mut bytes);
    Ok(Some(Body { revision, bytes: bytes.split_off(header::LEN as usize) }))
}

fn x86_64(fadt: FADTBuilder, platform: &Platform) -> Result<FADTBuilder, BuildError> {
    let power = |actual: String| BuildError::Power {
        set: SET,
        expected: "sleep and reset registers of one byte each (ACPI 6.5, 4.8.3.6 and 4.8.3.7)",
        actual,
    };
    let PowerControl::AcpiRegisters { sleep_control, sleep_status, reset, reset_value, .. } = platform.power
    else {
        return Err(power(format!("{:?}", platform.power)));
    };
    let register = |window| byte_register(window).ok_or_else(|| power(format!("{window:x?}")));

    let mut fadt = fadt.flag(Flags::Wbinvd).flag(Flags::ResetRegSup);
    fadt.iapc_boot_arch = boot_architecture(&platform.devices).into();
    fadt.reset_reg = register(reset)?;
    fadt.reset_value = reset_value;
    fadt.sleep_control_reg = register(sleep_control)?;
    fadt.sleep_status_reg = register(sleep_status)?;
    Ok(fadt)
}

fn aarch64(fadt: FADTBuilder, platform: &Platform) -> Result<FADTBuilder, BuildError> {
    if platform.power != PowerControl::PsciHvc {
        let actual = format!("{:x?}", platform.power);
        return Err(BuildError::Power { set: SET, expected: "PSCI by HVC", actual });
    }
    let mut fadt = fadt.flag(Flags::LowPowerS0IdleCapable);
    fadt.arm_boot_arch = (arm_boot_flags::PSCI | arm_boot_flags::HVC).into();
    Ok(fadt)
}

/// Hardware that an operating system would otherwise probe for.
fn boot_architecture(devices: &[DeviceNode]) -> u16 {
    let listed = || devices.iter().filter(|device| device.acpi.is_some());
    let mut flags = boot_flags::NO_VGA;
    if listed().flat_map(|device| &device.windows).any(|window| matches!(window, Window::Ports { .. })) {
        flags |= boot_flags::LEGACY_DEVICES;
    }
    if has_role(devices, DeviceRole::KeyboardController) {
        flags |= boot_flags::KEYBOARD_CONTROLLER;
    }
    if !has_role(devices, DeviceRole::CmosRtc) {
        flags |= boot_flags::NO_CMOS_RTC;
    }
    flags
}

fn has_role(devices: &[DeviceNode], role: DeviceRole) -> bool {
    devices.iter().any(|device| device.role == Some(role))
}

/// A register of one byte as a Generic Address Structure (ACPI 6.5, 5.2.3.2, table 5.1). `None` if it is longer.
fn byte_register(window: Window) -> Option<GAS> {
    let (space, len) = match window {
        Window::Ports { len, .. } => (AddressSpace::SystemIo, u64::from(len)),
        Window::Mmio { len, .. } => (AddressSpace::SystemMemory, len),
    };
    (len == 1).then(|| GAS::new(space, 8, 0, AccessSize::ByteAccess, window.base()))
}
