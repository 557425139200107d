//! Power-off and reset.

use core::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use super::{cpu, local_apic};
use crate::acpi::{Fadt, GenericAddress};
use crate::cmdline::Exit;
use crate::event_device;
use crate::report::say;
use crate::tables::Tables;

/// SLP_EN of SLEEP_CONTROL_REG (ACPI 6.5, 4.8.3.7, table 4.22); SLP_TYP begins at bit 2.
const SLEEP_ENABLE: u8 = 1 << 5;
const SLEEP_TYPE_SHIFT: u8 = 2;

const KEYBOARD_COMMAND: u16 = 0x64;
const PULSE_RESET: u8 = 0xfe;

/// Set when the tables are read; used wherever the guest fails.
static SLEEP: Switch = Switch::new();
static RESET: Switch = Switch::new();

/// Uses the power-off and reset registers of ACPI.
pub(crate) fn use_acpi(tables: &Tables) {
    SLEEP.kind.store(Switch::MISSING, Ordering::Relaxed);
    if let (Some(register), Some(sleep_type)) = (tables.sleep_control, tables.dsdt.s5_sleep_type) {
        SLEEP.set(register, sleep_type << SLEEP_TYPE_SHIFT | SLEEP_ENABLE);
    }
    RESET.kind.store(Switch::MISSING, Ordering::Relaxed);
    if tables.fadt.flags & Fadt::RESET_SUPPORTED != 0 {
        RESET.set(tables.fadt.reset_register, tables.fadt.reset_value);
    }
}

pub(crate) fn end(exit: Exit) -> ! {
    cpu::disable_interrupts();
    match exit {
        Exit::PowerOff => switch_off(),
        Exit::Reset => write_register(&RESET),
        Exit::TripleFault => cpu::triple_fault(),
        Exit::KeyboardController => write_register(&Switch::new()),
        Exit::Hang => cpu::halt(),
        Exit::Loop => loop {
            cpu::pause();
        },
        Exit::PowerButton => {
            event_device::wait_for_power_button();
            switch_off()
        }
    }
}

/// Power-off by ACPI, or with an MP table, which describes none, a reset by the keyboard controller.
pub(crate) fn switch_off() -> ! {
    cpu::disable_interrupts();
    write_register(&SLEEP)
}

fn write_register(switch: &Switch) -> ! {
    let address = switch.address.load(Ordering::Relaxed);
    let value = switch.value.load(Ordering::Relaxed);
    match switch.kind.load(Ordering::Relaxed) {
        Switch::KEYBOARD => cpu::port_out(KEYBOARD_COMMAND, PULSE_RESET),
        Switch::PORT => cpu::port_out(address as u16, value),
        // SAFETY: a register in the low 4 GiB, which are mapped; it ends the machine.
        Switch::MEMORY => unsafe { (address as *mut u8).write_volatile(value) },
        _ => {
            say!("failed the tables have no register for power-off or reset");
            cpu::halt();
        }
    }
    // The VMM may need some time.
    local_apic::delay(10_000_000);
    say!("failed the machine still runs after power-off or reset");
    cpu::halt()
}

/// A value to write to a register.
struct Switch {
    kind: AtomicU8,
    address: AtomicU64,
    value: AtomicU8,
}

impl Switch {
    const KEYBOARD: u8 = 0;
    const PORT: u8 = 1;
    const MEMORY: u8 = 2;
    const MISSING: u8 = 3;

    const fn new() -> Self {
        Switch { kind: AtomicU8::new(Self::KEYBOARD), address: AtomicU64::new(0), value: AtomicU8::new(0) }
    }

    /// Registers in address spaces other than memory and ports count as missing (ACPI 6.5, table 5.1).
    fn set(&self, register: GenericAddress, value: u8) {
        self.address.store(register.address, Ordering::Relaxed);
        self.value.store(value, Ordering::Relaxed);
        let kind = match register.space {
            0 if register.address < 1 << 32 => Self::MEMORY,
            1 if register.address < 1 << 16 => Self::PORT,
            _ => Self::MISSING,
        };
        self.kind.store(kind, Ordering::Relaxed);
    }
}
