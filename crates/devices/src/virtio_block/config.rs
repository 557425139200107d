//! The section of a disk in a profile, and the device that it makes.

use std::path::PathBuf;
use std::sync::Arc;

use machine_profile::device_kind::{
    Default, DeviceSection, FilePath, Flag, Key, Optional, Reported, Required, Word, Words,
};

use super::{Block, Disk, DiskError, Format};
use crate::kind::DeviceError;
use crate::virtio::VirtioKind;

/// `type = "virtio-block"`.
pub static KIND: VirtioKind<BlockConfig, Arc<Disk>> = VirtioKind {
    name: "virtio-block",
    doc: "a disk",
    keys: &[&PATH, &READ_ONLY, &FORMAT],
    read: BlockConfig::read,
    inspect: BlockConfig::inspect,
    open: BlockConfig::open,
    build: |disk, name| Box::new(Block::new(Arc::clone(disk), name)),
};

/// The configuration of a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockConfig {
    /// The image or block device.
    pub path: PathBuf,
    /// Whether the guest may only read.
    pub read_only: bool,
    /// The format of the image. `None`: raw, and an image of another format is refused.
    pub format: Option<Format>,
}

static PATH: Key<FilePath, Required> = Key {
    name: "path",
    doc: "The disk image or block device, relative to the profile.",
    form: FilePath { example: "disk.img" },
    absent: Required,
};
static READ_ONLY: Key<Flag, Default<bool>> =
    Key { name: "read-only", doc: "Whether the guest may only read.", form: Flag, absent: Default(false) };
static FORMAT: Key<Words<Format>, Optional> = Key {
    name: "format",
    doc: "The format of the image.",
    form: Words(&[Word {
        word: "raw",
        value: Format::Raw,
        doc: "the bytes of the disk, even if they start like an image of another format",
    }]),
    absent: Optional("raw, and a file with the signature of another format is refused"),
};

impl BlockConfig {
    fn read(section: &mut DeviceSection<'_>) -> Result<Self, Reported> {
        let (path, read_only) = (section.required_path(&PATH), section.value(&READ_ONLY));
        let format = section.optional(&FORMAT);
        let (path, read_only) = (path?, read_only?.value);
        section.uses_file(&path, !read_only);
        Ok(BlockConfig { path: path.value, read_only, format: format?.map(|format| format.value) })
    }

    fn inspect(&self) -> Result<(), DeviceError> {
        match Disk::inspect(&self.path, self.format) {
            // It may exist on the host that the machine is for.
            Ok(()) | Err(DiskError::Open { .. }) => Ok(()),
            Err(error) => Err(self.error(&error)),
        }
    }

    fn open(&self) -> Result<Arc<Disk>, DeviceError> {
        let disk = Disk::open(&self.path, self.read_only, self.format).map_err(|error| self.error(&error))?;
        tracing::info!(path = ?self.path, read_only = self.read_only, "disk opened");
        Ok(Arc::new(disk))
    }

    fn error(&self, error: &DiskError) -> DeviceError {
        DeviceError {
            key: PATH.name,
            message: format!("{}: {error}", self.path.display()),
            help: error.help().into(),
        }
    }
}
