//! The section of a disk in a profile, and the device that it makes.

use std::path::PathBuf;

use machine_profile::device_kind::{Default, DeviceSection, FilePath, Flag, Key, Reported, Required};

use super::{Block, Disk, DiskError};
use crate::kind::DeviceError;
use crate::virtio::{VirtioDevice, VirtioKind};

/// `type = "virtio-block"`.
pub static KIND: VirtioKind<BlockConfig> = VirtioKind {
    name: "virtio-block",
    doc: "a disk",
    keys: &[&PATH, &READ_ONLY],
    read: BlockConfig::read,
    build: BlockConfig::build,
};

/// The configuration of a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockConfig {
    /// The image or block device.
    pub path: PathBuf,
    /// Whether the guest may only read.
    pub read_only: bool,
}

static PATH: Key<FilePath, Required> = Key {
    name: "path",
    doc: "The disk image or block device, relative to the profile.",
    form: FilePath { example: "disk.img" },
    absent: Required,
};
static READ_ONLY: Key<Flag, Default<bool>> =
    Key { name: "read-only", doc: "Whether the guest may only read.", form: Flag, absent: Default(false) };

impl BlockConfig {
    fn read(section: &mut DeviceSection<'_>) -> Result<Self, Reported> {
        let (path, read_only) = (section.required_path(&PATH), section.value(&READ_ONLY));
        let (path, read_only) = (path?, read_only?.value);
        section.uses_file(&path, !read_only);
        Ok(BlockConfig { path: path.value, read_only })
    }

    fn build(&self, name: &str) -> Result<Box<dyn VirtioDevice>, DeviceError> {
        let failed = |error: DiskError| DeviceError {
            key: PATH.name,
            message: format!("{}: {error}", self.path.display()),
            help: error.help(),
        };
        let disk = Disk::open(&self.path, self.read_only).map_err(failed)?;
        tracing::info!(device = name, path = %self.path.display(), read_only = self.read_only, "disk attached");
        Ok(Box::new(Block::new(disk, name)))
    }
}
