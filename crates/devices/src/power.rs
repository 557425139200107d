//! The sleep and reset registers of a hardware-reduced ACPI machine (ACPI 6.5, 4.8.3.6 and 4.8.3.7).
//!
//! | offset | register | access |
//! |---|---|---|
//! | 0 | SLEEP_CONTROL: SLP_TYP in bits 2 to 4, SLP_EN in bit 5 | write |
//! | 1 | SLEEP_STATUS: always 0, the machine never wakes from a sleep state | read |
//! | 2 | RESET: writing the reset value resets the machine | write |
//!
//! It is not a device in ACPI or in a devicetree: the FADT describes the registers.

use std::sync::Arc;

use vm_device::MutDevicePio;
use vm_device::bus::{PioAddress, PioAddressOffset};

/// How a guest requested a reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ResetCause {
    /// The ACPI reset register.
    AcpiRegister,
    /// The keyboard controller.
    KeyboardController,
    /// PSCI SYSTEM_RESET.
    Psci,
}

impl std::fmt::Display for ResetCause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            ResetCause::AcpiRegister => "the ACPI reset register",
            ResetCause::KeyboardController => "the keyboard controller",
            ResetCause::Psci => "PSCI",
        })
    }
}

/// Requests of a guest that concern the whole machine. Called on the thread of a vCPU.
pub trait MachineControl: Send + Sync {
    /// The guest powers the machine off.
    fn power_off(&self);
    /// The guest resets the machine.
    fn reset(&self, cause: ResetCause);
}

/// The registers.
pub struct PowerRegisters {
    machine: Arc<dyn MachineControl>,
    s5_sleep_type: u8,
    reset_value: u8,
}

/// Bytes of the registers.
pub const LEN: u16 = 3;

const SLEEP_CONTROL: u16 = 0;
const SLEEP_STATUS: u16 = 1;
const RESET: u16 = 2;

/// SLP_EN of SLEEP_CONTROL.
const SLEEP_ENABLE: u8 = 1 << 5;

impl PowerRegisters {
    /// Registers with the values that the FADT and `\_S5` declare: the sleep type of S5 (0 to 7), and the reset value.
    #[must_use]
    pub fn new(machine: Arc<dyn MachineControl>, s5_sleep_type: u8, reset_value: u8) -> Self {
        PowerRegisters { machine, s5_sleep_type, reset_value }
    }
}

impl MutDevicePio for PowerRegisters {
    fn pio_read(&mut self, _: PioAddress, _: PioAddressOffset, data: &mut [u8]) {
        data.fill(0);
    }

    fn pio_write(&mut self, _: PioAddress, offset: PioAddressOffset, data: &[u8]) {
        let &[value] = data else { return };
        match offset {
            SLEEP_CONTROL if value & SLEEP_ENABLE != 0 => {
                let sleep_type = value >> 2 & 0x7;
                if sleep_type == self.s5_sleep_type {
                    self.machine.power_off();
                } else {
                    tracing::warn!(
                        sleep_type,
                        "the guest requested a sleep state that no table declares: ignored"
                    );
                }
            }
            RESET if value == self.reset_value => self.machine.reset(ResetCause::AcpiRegister),
            // Writing ones clears status bits, none of which is ever set.
            SLEEP_CONTROL | SLEEP_STATUS | RESET => {}
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[derive(Default)]
    pub(crate) struct Requests(Mutex<Vec<String>>);

    impl MachineControl for Requests {
        fn power_off(&self) {
            self.0.lock().expect("one thread").push("off".into());
        }
        fn reset(&self, cause: ResetCause) {
            self.0.lock().expect("one thread").push(cause.to_string());
        }
    }

    fn requests_after(writes: &[(u16, &[u8])]) -> Vec<String> {
        let requests = Arc::new(Requests::default());
        let mut registers = PowerRegisters::new(requests.clone(), 5, 1);
        for (offset, data) in writes {
            registers.pio_write(PioAddress(0x600), *offset, data);
        }
        requests.0.lock().expect("one thread").clone()
    }

    #[test]
    fn only_s5_with_the_enable_bit_powers_off() {
        assert_eq!(requests_after(&[(0, &[5 << 2 | 0x20])]), ["off"]);
        assert!(requests_after(&[(0, &[5 << 2]), (0, &[3 << 2 | 0x20]), (0, &[0x34, 0])]).is_empty());
    }

    #[test]
    fn only_the_reset_value_resets() {
        assert_eq!(requests_after(&[(2, &[0]), (2, &[1])]), ["the ACPI reset register"]);
    }
}
