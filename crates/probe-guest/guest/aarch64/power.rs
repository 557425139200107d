//! Power-off and reset.

use super::{counter, cpu, psci};
use crate::cmdline::Exit;
use crate::event_device;
use crate::report::say;

pub(crate) fn end(exit: Exit) -> ! {
    cpu::disable_interrupts();
    match exit {
        Exit::PowerOff => switch_off(),
        Exit::Reset => {
            psci::reset();
            fail_to_end()
        }
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

pub(crate) fn switch_off() -> ! {
    cpu::disable_interrupts();
    psci::switch_off();
    fail_to_end()
}

/// Reports a PSCI call that returned although it must not.
fn fail_to_end() -> ! {
    // The VMM may need some time.
    counter::wait_until(|| false);
    say!("failed the machine still runs after power-off or reset");
    cpu::halt()
}
