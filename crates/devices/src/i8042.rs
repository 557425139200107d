//! The part of a keyboard controller that resets the machine: the command 0xfe, written to its command port.
//!
//! No table describes it: there is no keyboard, and the FADT declares that. A guest without ACPI probes the ports without a
//! description, so reads must show it that there is no controller to drive. They return all ones, as reads of unassigned
//! ports do, except for one bit of the status:
//!
//! - Output buffer full (bit 0) never clears, from which Linux's driver concludes at once that there is no controller
//!   (`i8042_flush` in `drivers/input/serio/i8042.c`). A status of zero would be a controller that never answers, for which
//!   Linux waits half a second per command.
//! - Input buffer full (bit 1) is clear: whoever resets the machine waits for that before the command (Linux, `kb_wait` in
//!   `arch/x86/kernel/reboot.c`).

use std::sync::Arc;

use platform::DeviceNode;
use vm_device::MutDevicePio;
use vm_device::bus::{PioAddress, PioAddressOffset};

use crate::power::{MachineControl, ResetCause};

/// Number of ports, 0x60 to 0x64 on a PC. Port 0x61 within belongs to KVM's timer.
pub const LEN: u16 = 5;

/// The device at its ports. Neither ACPI nor a devicetree describes it.
#[must_use]
pub fn node(base: u16) -> DeviceNode {
    DeviceNode::new("i8042").ports(base, LEN)
}

/// Status when read, command when written: port 0x64.
const STATUS_AND_COMMAND: u16 = 4;
/// Input buffer full.
const STATUS_IBF: u8 = 1 << 1;
/// Pulses the line that resets the processor.
const COMMAND_RESET: u8 = 0xfe;

/// The keyboard controller.
pub struct KeyboardController(Arc<dyn MachineControl>);

impl KeyboardController {
    /// A controller whose reset line goes to `machine`.
    #[must_use]
    pub fn new(machine: Arc<dyn MachineControl>) -> Self {
        KeyboardController(machine)
    }
}

impl MutDevicePio for KeyboardController {
    fn pio_read(&mut self, _: PioAddress, offset: PioAddressOffset, data: &mut [u8]) {
        data.fill(0xff);
        if let (STATUS_AND_COMMAND, [status, ..]) = (offset, data) {
            *status &= !STATUS_IBF;
        }
    }

    fn pio_write(&mut self, _: PioAddress, offset: PioAddressOffset, data: &[u8]) {
        if offset == STATUS_AND_COMMAND && data == [COMMAND_RESET] {
            self.0.reset(ResetCause::KeyboardController);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[derive(Default)]
    struct Resets(AtomicU32);

    impl MachineControl for Resets {
        fn power_off(&self) {
            panic!("a keyboard controller powers nothing off");
        }

        fn reset(&self, cause: ResetCause) {
            assert_eq!(cause, ResetCause::KeyboardController);
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn get(controller: &mut KeyboardController, port: u16) -> u8 {
        let mut byte = [0];
        controller.pio_read(PioAddress(0x60 + port), port, &mut byte);
        byte[0]
    }

    /// The steps of Linux's `i8042_flush`: the number of bytes that it reads before the status has none any more, or none
    /// if it gives up.
    fn flush(controller: &mut KeyboardController) -> Option<usize> {
        const I8042_BUFFER_SIZE: usize = 16;
        for count in 0..=I8042_BUFFER_SIZE {
            if get(controller, 4) & 1 == 0 {
                return Some(count);
            }
            get(controller, 0);
        }
        None
    }

    #[test]
    fn linux_finds_no_controller_and_does_not_wait_before_a_reset() {
        let mut controller = KeyboardController::new(Arc::new(Resets::default()));
        assert_eq!(flush(&mut controller), None);
        assert_eq!(get(&mut controller, 4) & STATUS_IBF, 0);
        assert_eq!(get(&mut controller, 0), 0xff);
    }

    #[test]
    fn only_the_reset_command_at_the_command_port_resets() {
        let resets = Arc::new(Resets::default());
        let mut controller = KeyboardController::new(resets.clone());
        for (port, data) in [(0, &[0xfe][..]), (4, &[0xfe, 0xfe]), (4, &[0x20]), (4, &[])] {
            controller.pio_write(PioAddress(0x60), port, data);
        }
        assert_eq!(resets.0.load(Ordering::Relaxed), 0);
        controller.pio_write(PioAddress(0x64), 4, &[0xfe]);
        assert_eq!(resets.0.load(Ordering::Relaxed), 1);
    }
}
