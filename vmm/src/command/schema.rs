//! `ghest schema`.

use clap::Args;
use vmm::control;
use vmm::status::Status;

use super::output;

#[derive(Args, Debug)]
pub(super) struct Options {
    /// Print that of the control socket's protocol instead.
    #[arg(long)]
    control: bool,
}

pub(super) fn run(options: &Options) -> Status {
    let schema = if options.control { control::schema() } else { machine_profile::schema(&devices::kinds()) };
    output::print_json(&schema)
}
