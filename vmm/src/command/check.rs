//! `ghest check`.

use std::path::PathBuf;

use clap::Args;
use machine_profile::{Diagnostic, Profile};
use platform::Arch;
use vmm::board::profile_devices;
use vmm::boot;
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
    problems.extend(good.iter().filter_map(command_line_problem));
    if problems.is_empty() { Status::Success } else { profiles::refuse(&problems) }
}

/// A command line that is too long for the profile's kernel, with the devices that it describes. Files that cannot be read are
/// no problem here: a profile may be checked on another host than its own.
fn command_line_problem(profile: &Profile) -> Option<Diagnostic> {
    let machine = &profile.machine;
    let line = profile_devices::command_line(machine).ok()?;
    let error = boot::check_command_line(&line, &machine.boot.kernel, machine.arch).err()?;
    let (key, help) = error.key();
    Some(profile.problem(key, error.to_string(), help))
}
