//! Ways to end.

use super::{cpu, psci, timer};
use crate::cmdline::Exit;
use crate::report::say;

pub(crate) fn end(exit: Exit) -> ! {
    cpu::disable_interrupts();
    match exit {
        Exit::PowerOff => switch_off(),
        Exit::Reset => {
            psci::reset();
            go_on()
        }
        Exit::Hang => cpu::halt(),
        Exit::Loop => loop {
            cpu::pause();
        },
    }
}

pub(crate) fn switch_off() -> ! {
    cpu::disable_interrupts();
    psci::switch_off();
    go_on()
}

/// After a call that ought not to return.
fn go_on() -> ! {
    // A VMM may take its time.
    timer::wait_until(|| false);
    say!("failed the machine goes on after its end");
    cpu::halt()
}
