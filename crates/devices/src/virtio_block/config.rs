//! The section of a disk in a profile, and the device that it makes.

use std::path::PathBuf;
use std::sync::Arc;

use machine_profile::device_kind::{
    Default, DeviceSection, FilePath, Flag, Integer, Key, Optional, RateLimits, Rates, Reported, Required,
    Text, Word, Words,
};

use super::{Block, Disk, DiskError, DiskOptions, EngineKind, Format, MAX_QUEUES};
use crate::kind::DeviceError;
use crate::rate_limit::RateLimit;
use crate::virtio::{VirtioDevice, VirtioKind};

/// `type = "virtio-block"`.
pub static KIND: VirtioKind<BlockConfig, BlockBackend> = VirtioKind {
    name: "virtio-block",
    doc: "a disk",
    keys: &[&PATH, &READ_ONLY, &FORMAT, &SERIAL, &DIRECT, &QUEUES, &DISCARD, &RATE_LIMIT],
    read: BlockConfig::read,
    inspect: BlockConfig::inspect,
    open: BlockConfig::open,
    build: BlockBackend::build,
};

/// The configuration of a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockConfig {
    /// The image or block device.
    pub path: PathBuf,
    /// How it is opened.
    pub options: DiskOptions,
    /// The serial number. `None`: the VMM's name of the device.
    pub serial: Option<String>,
    /// The number of queues.
    pub queues: u16,
    /// Limits of the device's requests.
    pub rate_limit: Option<RateLimits>,
}

/// The host's side of a disk.
pub struct BlockBackend {
    disk: Arc<Disk>,
    serial: Option<String>,
    queues: u16,
    engine: EngineKind,
    rate_limit: Option<Arc<RateLimit>>,
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
static SERIAL: Key<Text, Optional> = Key {
    name: "serial",
    doc: "The serial number of the disk, by which a guest names it in /dev/disk/by-id.",
    form: Text {
        min: 1,
        max: (super::MAX_ID_LEN, "the length of an id of virtio-block"),
        // All but printable ASCII.
        refused: &['\0'..='\x1f', '\x7f'..=char::MAX],
        example: "web-1-root",
    },
    absent: Optional("the name of the device in its machine, for example virtio0"),
};
static DIRECT: Key<Flag, Default<bool>> = Key {
    name: "direct",
    doc: "Whether reads and writes bypass the host's page cache (open(2), O_DIRECT).",
    form: Flag,
    absent: Default(false),
};
static QUEUES: Key<Integer, Default<u32>> = Key {
    name: "queues",
    doc: "The number of queues, each served by a thread. A guest uses no more of them than it has vCPUs.",
    form: Integer { min: 1, max: MAX_QUEUES as u32, example: 2 },
    absent: Default(1),
};
static DISCARD: Key<Flag, Default<bool>> = Key {
    name: "discard",
    doc: "Whether the guest may discard sectors, which become holes in the image. A disk that is read-only has no discard.",
    form: Flag,
    absent: Default(true),
};
static RATE_LIMIT: Key<Rates, Optional> = Key {
    name: "rate-limit",
    doc: "Limits of the disk's requests.",
    form: Rates,
    absent: Optional("no limits"),
};

impl BlockConfig {
    fn read(section: &mut DeviceSection<'_>) -> Result<Self, Reported> {
        let (path, read_only) = (section.required_path(&PATH), section.value(&READ_ONLY));
        let (format, serial) = (section.optional(&FORMAT), section.optional(&SERIAL));
        let (direct, discard) = (section.value(&DIRECT), section.value(&DISCARD));
        let (queues, rate_limit) = (section.value(&QUEUES), section.optional(&RATE_LIMIT));
        let (path, read_only) = (path?, read_only?.value);
        section.uses_file(&path, !read_only);
        Ok(BlockConfig {
            path: path.value,
            options: DiskOptions {
                read_only,
                format: format?.map(|format| format.value),
                direct: direct?.value,
                discard: discard?.value,
            },
            serial: serial?.map(|serial| serial.value),
            queues: queues?.value as u16,
            rate_limit: rate_limit?.map(|limits| limits.value),
        })
    }

    fn inspect(&self) -> Result<(), DeviceError> {
        match Disk::inspect(&self.path, self.options) {
            // It may exist on the host that the machine is for.
            Ok(()) | Err(DiskError::Open { .. }) => Ok(()),
            Err(error) => Err(self.error(&error)),
        }
    }

    fn open(&self) -> Result<BlockBackend, DeviceError> {
        let disk = Disk::open(&self.path, self.options).map_err(|error| self.error(&error))?;
        let engine = EngineKind::of_this_host();
        let DiskOptions { read_only, direct, .. } = self.options;
        tracing::info!(path = ?self.path, read_only, direct, %engine, "disk opened");
        Ok(BlockBackend {
            disk: Arc::new(disk),
            serial: self.serial.clone(),
            queues: self.queues,
            engine,
            rate_limit: self.rate_limit.map(|limits| Arc::new(RateLimit::new(limits))),
        })
    }

    fn error(&self, error: &DiskError) -> DeviceError {
        let key = if matches!(error, DiskError::NoDirect { .. }) { DIRECT.name } else { PATH.name };
        DeviceError { key, message: format!("{}: {error}", self.path.display()), help: error.help().into() }
    }
}

impl BlockBackend {
    fn build(&self, name: &str) -> Box<dyn VirtioDevice> {
        let block = Block::new(Arc::clone(&self.disk), self.serial.as_deref().unwrap_or(name));
        Box::new(block.queues(self.queues).engine(self.engine).rate_limit(self.rate_limit.clone()))
    }
}
