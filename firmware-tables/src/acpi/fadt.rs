//! FADT: what kind of ACPI machine this is, and how it is switched off.

use acpi_tables::Aml;
use acpi_tables::fadt::{FADTBuilder, Flags};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use platform::{Arch, DeviceNode, Platform, PowerControl, Window, x86_64};

use super::{NAME, header};
use crate::BuildError;

/// IA-PC boot architecture flags (ACPI 6.5, 5.2.9.3, table 5.11).
mod boot_flags {
    /// LEGACY_DEVICES: there are devices on an ISA bus.
    pub(super) const LEGACY_DEVICES: u16 = 1 << 0;
    /// 8042: there is a keyboard controller.
    pub(super) const KEYBOARD_CONTROLLER: u16 = 1 << 1;
    /// VGA Not Present: do not probe for one.
    pub(super) const NO_VGA: u16 = 1 << 2;
    /// CMOS RTC Not Present.
    pub(super) const NO_CMOS_RTC: u16 = 1 << 5;
}

/// The name of the device that is a CMOS real-time clock.
const RTC: &str = "rtc";

/// Arm boot architecture flags (ACPI 6.5, 5.2.9.4, table 5.12).
mod arm_boot_flags {
    /// PSCI_COMPLIANT.
    pub(super) const PSCI: u16 = 1 << 0;
    /// PSCI_USE_HVC: by HVC, not by SMC.
    pub(super) const HVC: u16 = 1 << 1;
}

/// Fixed ACPI Description Table (ACPI 6.5, 5.2.9, table 5.9), revision 6.5, hardware-reduced: without FACS, SCI and PM
/// register blocks.
pub(super) fn bytes(platform: &Platform, dsdt: u64) -> Result<Vec<u8>, BuildError> {
    // Buttons are devices or absent, and so is the clock's wake-up: nothing of the fixed hardware is there.
    let mut fadt = FADTBuilder::new(header::OEM_ID, header::OEM_TABLE_ID, header::OEM_REVISION)
        .dsdt_64(dsdt)
        .flag(Flags::PwrButton)
        .flag(Flags::SlpButton)
        .flag(Flags::FixRtc)
        .flag(Flags::Headless)
        .flag(Flags::HwReducedAcpi);
    fadt.creator_id = header::CREATOR_ID;
    fadt.creator_revision = header::CREATOR_REVISION.to_le_bytes();
    fadt.hypervisor_vendor_identity = u64::from_le_bytes(*b"GHEST\0\0\0").into();
    let fadt = match platform.arch {
        Arch::X86_64 => x86_64(fadt, platform)?,
        Arch::Aarch64 => aarch64(fadt, platform)?,
    };
    let mut bytes = Vec::with_capacity(acpi_tables::fadt::FADT::len());
    fadt.finalize().to_aml_bytes(&mut bytes);
    Ok(bytes)
}

fn x86_64(fadt: FADTBuilder, platform: &Platform) -> Result<FADTBuilder, BuildError> {
    let power = |found: String| BuildError::Power {
        tables: NAME,
        needed: "power-off and reset registers, one byte each",
        found,
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
        let found = format!("{:x?}", platform.power);
        return Err(BuildError::Power { tables: NAME, needed: "PSCI by HVC", found });
    }
    let mut fadt = fadt.flag(Flags::LowPowerS0IdleCapable);
    fadt.arm_boot_arch = (arm_boot_flags::PSCI | arm_boot_flags::HVC).into();
    Ok(fadt)
}

/// What an operating system would probe for if nobody told it.
fn boot_architecture(devices: &[DeviceNode]) -> u16 {
    let listed = || devices.iter().filter(|device| device.acpi.is_some());
    let mut flags = boot_flags::NO_VGA;
    if listed().flat_map(|device| &device.windows).any(|window| matches!(window, Window::Ports { .. })) {
        flags |= boot_flags::LEGACY_DEVICES;
    }
    // A controller that does nothing but reset has no entry in the DSDT, and is not to be probed for keyboards.
    if listed().flat_map(|device| &device.windows).any(|window| covers(*window, x86_64::I8042_COMMAND_PORT)) {
        flags |= boot_flags::KEYBOARD_CONTROLLER;
    }
    if !devices.iter().any(|device| device.name == RTC) {
        flags |= boot_flags::NO_CMOS_RTC;
    }
    flags
}

fn covers(window: Window, port: u16) -> bool {
    match window {
        Window::Ports { base, len } => port >= base && port - base < len,
        Window::Mmio { .. } => false,
    }
}

/// A register of one byte as a Generic Address Structure (ACPI 6.5, 5.2.3.2, table 5.1).
pub(super) fn byte_register(window: Window) -> Option<GAS> {
    let (space, len) = match window {
        Window::Ports { len, .. } => (AddressSpace::SystemIo, u64::from(len)),
        Window::Mmio { len, .. } => (AddressSpace::SystemMemory, len),
    };
    (len == 1).then(|| GAS::new(space, 8, 0, AccessSize::ByteAccess, window.base()))
}
