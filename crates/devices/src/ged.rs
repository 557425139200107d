//! The Generic Event Device (ACPI 6.5, 5.6.9). A devicetree cannot describe it.
//!
//! | offset | register | access |
//! |---|---|---|
//! | 0 | selector: one bit for each event since the last read; a read clears it | read |
//! | 4 | loopback: raises the events whose bits are written; for a guest that tests its interrupts | write |
//!
//! Both are 32 bits wide. Other reads return zero, and other writes are ignored. Each event raises the interrupt once.

use platform::{AcpiIdentity, AcpiObject, DeviceNode, EventSource, Trigger, Window};
use vm_device::MutDeviceMmio;
use vm_device::bus::{MmioAddress, MmioAddressOffset};

use crate::line::InterruptLine;
use crate::{error_device, generation_id, power_button};

/// Bytes of the registers.
pub const LEN: u64 = 8;
/// Event: the power button was pressed.
pub const POWER_BUTTON: u32 = 1 << 1;
/// Event: the platform has detected a hardware error and written its record.
pub const HARDWARE_ERROR: u32 = 1 << 5;
/// Event: the machine has a new generation id.
pub const NEW_GENERATION: u32 = 1 << 6;

/// Notification value of a pressed button, a hardware error and a new generation id (ACPI 6.5, 5.6.6).
const NOTIFICATION_VALUE: u8 = 0x80;
const SELECTOR: u64 = 0;
const LOOPBACK: u64 = 4;

/// The event device at a GPA and on a GSI.
#[must_use]
pub fn node(base: u64, gsi: u32) -> DeviceNode {
    DeviceNode::new("ged").mmio(base, LEN).interrupt(gsi, Trigger::Edge).acpi(
        AcpiIdentity::new("GED0", "ACPI0013").object(AcpiObject::GenericEvents {
            selector: Window::Mmio { base: base + SELECTOR, len: 4 },
            sources: vec![
                EventSource {
                    mask: POWER_BUTTON,
                    target: power_button::ACPI_NAME,
                    value: NOTIFICATION_VALUE,
                },
                EventSource {
                    mask: HARDWARE_ERROR,
                    target: error_device::ACPI_NAME,
                    value: NOTIFICATION_VALUE,
                },
                EventSource {
                    mask: NEW_GENERATION,
                    target: generation_id::ACPI_NAME,
                    value: NOTIFICATION_VALUE,
                },
            ],
        }),
    )
}

/// The event device.
#[derive(Debug)]
pub struct GenericEventDevice {
    selector: u32,
    line: InterruptLine,
}

impl GenericEventDevice {
    /// A device on a line, with nothing pending.
    #[must_use]
    pub fn new(line: InterruptLine) -> Self {
        GenericEventDevice { selector: 0, line }
    }

    /// Raises the events of `mask`.
    pub fn raise(&mut self, mask: u32) {
        if mask != 0 {
            self.selector |= mask;
            self.line.raise();
        }
    }
}

impl MutDeviceMmio for GenericEventDevice {
    fn mmio_read(&mut self, _: MmioAddress, offset: MmioAddressOffset, data: &mut [u8]) {
        match (offset, data) {
            (SELECTOR, data) if data.len() == 4 => {
                data.copy_from_slice(&std::mem::take(&mut self.selector).to_le_bytes());
            }
            (_, data) => data.fill(0),
        }
    }

    fn mmio_write(&mut self, _: MmioAddress, offset: MmioAddressOffset, data: &[u8]) {
        if let (LOOPBACK, Ok(mask)) = (offset, data.try_into()) {
            self.raise(u32::from_le_bytes(mask));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(ged: &mut GenericEventDevice) -> u32 {
        let mut data = [0xff; 4];
        ged.mmio_read(MmioAddress(0), SELECTOR, &mut data);
        u32::from_le_bytes(data)
    }

    #[test]
    fn events_accumulate_until_the_selector_is_read() {
        let mut ged = GenericEventDevice::new(InterruptLine::new().expect("an eventfd"));
        ged.raise(POWER_BUTTON);
        ged.mmio_write(MmioAddress(0), LOOPBACK, &0x10_u32.to_le_bytes());
        assert_eq!(ged.line.event().read().expect("raised"), 2);
        assert_eq!(read(&mut ged), POWER_BUTTON | 0x10);
        assert_eq!(read(&mut ged), 0);
    }

    #[test]
    fn no_event_raises_no_interrupt() {
        let mut ged = GenericEventDevice::new(InterruptLine::new().expect("an eventfd"));
        ged.raise(0);
        ged.mmio_write(MmioAddress(0), LOOPBACK, &[1]);
        ged.mmio_write(MmioAddress(0), SELECTOR, &1_u32.to_le_bytes());
        assert!(ged.line.event().read().is_err());
    }
}
