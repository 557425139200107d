//! `ghest check`.

use std::path::PathBuf;

use clap::Args;
use platform::Arch;
use vmm::status::Status;

use super::{ArchName, SetArgs, host_files, profiles};

#[derive(Args, Debug)]
pub(super) struct Options {
    /// The profiles.
    #[arg(required = true, value_name = "PROFILE")]
    profiles: Vec<PathBuf>,
    #[command(flatten)]
    set: SetArgs,
    /// Check for guests of this architecture. Default: the host's.
    #[arg(long, value_enum)]
    arch: Option<ArchName>,
}

pub(super) fn run(options: &Options) -> Status {
    let arch = options.arch.map_or(Arch::NATIVE, Arch::from);
    let overrides = match profiles::overrides(&options.set) {
        Ok(overrides) => overrides,
        Err(status) => return status,
    };
    let (mut good, mut problems) = (Vec::new(), Vec::new());
    for path in &options.profiles {
        match profiles::load_one(path, &overrides, arch) {
            Ok(profile) => {
                problems.extend(host_files::inspect(&profile));
                good.push(profile);
            }
            Err(more) => problems.extend(more),
        }
    }
    problems.extend(machine_profile::conflicts(&good));
    if problems.is_empty() { Status::Success } else { profiles::refuse(&problems) }
}
