//! Profiles from the command line.

use std::path::Path;

use machine_profile::{Diagnostic, Override, Profile};
use platform::Arch;
use vmm::status::Status;

use super::{ProfileArgs, SetArgs, diagnostics, output};

/// Reads a profile, or prints all its problems.
pub(super) fn load(args: &ProfileArgs, arch: Arch) -> Result<Profile, Status> {
    let overrides = overrides(&args.set)?;
    load_one(&args.profile, &overrides, arch).map_err(|problems| refuse(&problems))
}

pub(super) fn load_one(path: &Path, overrides: &[Override], arch: Arch) -> Result<Profile, Vec<Diagnostic>> {
    machine_profile::load(path, overrides, arch, &devices::kinds())
}

/// Parses every `--set`, or prints all their problems.
pub(super) fn overrides(args: &SetArgs) -> Result<Vec<Override>, Status> {
    let (mut overrides, mut problems) = (Vec::new(), Vec::new());
    for text in &args.set {
        match Override::parse(text) {
            Ok(parsed) => overrides.push(parsed),
            Err(problem) => problems.push(problem),
        }
    }
    if problems.is_empty() { Ok(overrides) } else { Err(refuse(&problems)) }
}

/// Prints problems of profiles, and their number.
pub(super) fn refuse(problems: &[Diagnostic]) -> Status {
    diagnostics::print(problems);
    let plural = if problems.len() == 1 { "" } else { "s" };
    output::report(&format!("{} problem{plural}", problems.len()), Status::Usage)
}
