//! The `ghest` command.

mod command;

use std::process::ExitCode;

use vmm::timings::Timings;

fn main() -> ExitCode {
    // First of all: times are counted from here.
    let timings = Timings::start();
    vmm::signals::unblock();
    ExitCode::from(command::run(timings).code())
}
