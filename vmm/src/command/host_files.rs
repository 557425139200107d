//! Files of the host: what two paths have in common, and what must not be overwritten.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use machine_profile::{Diagnostic, Kernel, Profile};
use vmm::board::profile_devices;

/// What identifies a file, whatever path leads to it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum FileId {
    /// Device and inode of a regular file.
    Regular(u64, u64),
    /// The number of a block device, which may have several nodes.
    Block(u64),
    /// The path of a file that does not exist, or cannot be looked at.
    Missing(PathBuf),
}

impl FileId {
    /// `None` if the file holds no data: a FIFO, a terminal, `/dev/null`.
    fn of(path: &Path) -> Option<Self> {
        let Ok(metadata) = path.metadata() else { return Some(FileId::Missing(path.to_owned())) };
        let kind = metadata.file_type();
        if kind.is_block_device() {
            Some(FileId::Block(metadata.rdev()))
        } else {
            kind.is_file().then(|| FileId::Regular(metadata.dev(), metadata.ino()))
        }
    }
}

/// Files that two devices of a machine share although one of them writes, by whatever paths.
pub(super) fn shared(profile: &Profile) -> Vec<Diagnostic> {
    profile.shared_files(FileId::of)
}

/// What can be seen of a profile's files without booting. What is missing is not reported: the profile may be meant for
/// another host.
pub(super) fn inspect(profile: &Profile) -> Vec<Diagnostic> {
    let mut problems = shared(profile);
    // Devices without a place in the machine are reported by the plan.
    let devices = profile_devices::inspect(&profile.machine).unwrap_or_default();
    problems.extend(devices.into_iter().map(|(index, error)| {
        profile.problem(&format!("device.{index}.{}", error.key), error.message, error.help)
    }));
    problems
}

/// Checks that files that will be overwritten are no input of the machine, and not one file. `outputs` are options and their
/// paths.
///
/// # Errors
/// Returns the reason, with both paths.
pub(super) fn check_outputs(
    profile_path: &Path,
    profile: &Profile,
    outputs: &[(&'static str, Option<&Path>)],
) -> Result<(), String> {
    let boot = &profile.machine.boot;
    let mut known: Vec<(&str, &Path)> = vec![("the profile", profile_path)];
    if let Kernel::File(kernel) = &boot.kernel {
        known.push(("the kernel", kernel));
    }
    known.extend(boot.initrd.as_deref().map(|initrd| ("the initrd", initrd)));
    let devices = profile.machine.devices.iter().flat_map(|device| &device.files);
    known.extend(devices.map(|file| ("a file of a device", file.path.as_path())));
    for (option, output) in outputs {
        let Some(output) = output else { continue };
        let Some(id) = FileId::of(output) else { continue };
        if let Some((what, path)) = known.iter().find(|(_, path)| FileId::of(path).as_ref() == Some(&id)) {
            return Err(format!(
                "{option} {}: this is {what}, {}, which would be overwritten: name another file",
                output.display(),
                path.display()
            ));
        }
        known.push((option, output));
    }
    Ok(())
}
