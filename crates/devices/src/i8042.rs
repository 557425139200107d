//! The part of a keyboard controller that resets the machine: the command 0xfe, written to its command port.
//!
//! No table describes it: there is no keyboard, and the FADT declares that. A guest without ACPI uses the port without a
//! description.

use std::convert::Infallible;
use std::sync::Arc;

use platform::DeviceNode;
use vm_device::MutDevicePio;
use vm_device::bus::{PioAddress, PioAddressOffset};
use vm_superio::{I8042Device, Trigger};

use crate::power::{MachineControl, ResetCause};

/// Number of ports, 0x60 to 0x64 on a PC. Port 0x61 within belongs to KVM's timer.
pub const LEN: u16 = 5;

/// The device at its ports. Neither ACPI nor a devicetree describes it.
#[must_use]
pub fn node(base: u16) -> DeviceNode {
    DeviceNode::new("i8042").ports(base, LEN)
}

/// The keyboard controller.
pub struct KeyboardController(I8042Device<ResetLine>);

impl KeyboardController {
    /// A controller whose reset line goes to `machine`.
    #[must_use]
    pub fn new(machine: Arc<dyn MachineControl>) -> Self {
        KeyboardController(I8042Device::new(ResetLine(machine)))
    }
}

struct ResetLine(Arc<dyn MachineControl>);

impl Trigger for ResetLine {
    type E = Infallible;

    fn trigger(&self) -> Result<(), Infallible> {
        self.0.reset(ResetCause::KeyboardController);
        Ok(())
    }
}

impl MutDevicePio for KeyboardController {
    fn pio_read(&mut self, _: PioAddress, offset: PioAddressOffset, data: &mut [u8]) {
        // The offset is below LEN.
        data.fill(self.0.read(offset as u8));
    }

    fn pio_write(&mut self, _: PioAddress, offset: PioAddressOffset, data: &[u8]) {
        if let &[value] = data {
            match self.0.write(offset as u8, value) {
                Ok(()) => {}
            }
        }
    }
}
