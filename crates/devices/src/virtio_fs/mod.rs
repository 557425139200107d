//! A shared directory (VIRTIO 1.2, 5.11), which a vhost-user back end serves: virtiofsd.
//!
//! The device has a high priority queue and one request queue; its configuration is the tag by which the guest mounts it
//! (`mount -t virtiofs TAG /mnt`). It offers no feature of its own, and of the rings' features those that the back end offers.
//!
//! The back end's process does all work, with its own permissions, and sees all of the guest's memory. If it ends, the machine
//! continues, requests wait, and the device uses the next process that listens at the socket ([`crate::vhost_user`]). A new virtiofsd
//! does not know the guest's mount: the guest has to mount the directory again.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use machine_profile::device_kind::{DeviceSection, FilePath, Key, Reported, Required, Text};
use virtio_bindings::virtio_ids::VIRTIO_ID_FS;
use zerocopy::little_endian::U32;
use zerocopy::{Immutable, IntoBytes, Unaligned};

use crate::kind::DeviceError;
use crate::vhost_user::{ConnectError, VhostUserBackend};
use crate::virtio::{Activation, Queue, QueueWorkers, VirtioDevice, VirtioKind};

/// `type = "virtio-fs"`.
pub static KIND: VirtioKind<FsConfig, FsBackend> = VirtioKind {
    name: "virtio-fs",
    doc: "a shared directory, which virtiofsd serves",
    keys: &[&TAG, &SOCKET],
    read: FsConfig::read,
    // Whether a process listens is known only when the machine starts.
    inspect: |_| Ok(()),
    open: FsConfig::open,
    build: FsBackend::build,
};

/// The configuration of a shared directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FsConfig {
    /// The name by which the guest mounts it, 1 to 36 bytes.
    pub tag: String,
    /// The socket at which virtiofsd listens.
    pub socket: PathBuf,
}

/// The longest tag, in bytes (VIRTIO 1.2, 5.11.4).
const MAX_TAG_LEN: usize = 36;

static TAG: Key<Text, Required> = Key {
    name: "tag",
    doc: "The name by which the guest mounts it: `mount -t virtiofs TAG /mnt`.",
    form: Text {
        min: 1,
        max: (MAX_TAG_LEN, "the size of the tag in a virtio file system device"),
        refused: &['\0'..='\x1f', '\x7f'..='\u{9f}'],
        example: "share",
    },
    absent: Required,
};
static SOCKET: Key<FilePath, Required> = Key {
    name: "socket",
    doc: "The Unix socket at which virtiofsd listens, relative to the profile.",
    form: FilePath { example: "virtiofsd.sock" },
    absent: Required,
};

impl FsConfig {
    fn read(section: &mut DeviceSection<'_>) -> Result<Self, Reported> {
        let (tag, socket) = (section.required(&TAG), section.required_socket(&SOCKET));
        let (tag, socket) = (tag?, socket?);
        section.shares_memory(&socket);
        // One virtiofsd serves one device.
        section.uses_file(&socket, true);
        Ok(FsConfig { tag: tag.value, socket: socket.value })
    }

    fn open(&self) -> Result<FsBackend, DeviceError> {
        let backend = VhostUserBackend::connect(&self.socket, QUEUE_SIZES.len() as u16);
        let backend = backend.map_err(|error| self.error(&error))?;
        tracing::info!(tag = self.tag, socket = ?self.socket, "vhost-user back end connected");
        Ok(FsBackend { tag: self.tag.clone(), backend: Arc::new(backend) })
    }

    fn error(&self, error: &ConnectError) -> DeviceError {
        DeviceError {
            key: SOCKET.name,
            message: format!("{}: {error}", self.socket.display()),
            help: match error {
                ConnectError::Connect(_) => {
                    "start virtiofsd first: `virtiofsd --socket-path=SOCKET --shared-dir=DIRECTORY`; it serves one machine and \
                     ends with it"
                }
                _ => "name the socket of a virtiofsd",
            }
            .into(),
        }
    }
}

/// The host's side of a shared directory.
pub struct FsBackend {
    tag: String,
    backend: Arc<VhostUserBackend>,
}

impl FsBackend {
    fn build(&self, name: &str) -> Box<dyn VirtioDevice> {
        tracing::info!(device = name, tag = self.tag, "shared directory attached");
        Box::new(Fs::new(&self.tag, Arc::clone(&self.backend)))
    }
}

/// A file system device.
pub struct Fs {
    config: Config,
    backend: Arc<VhostUserBackend>,
    /// `Some` while the device is active.
    workers: Option<QueueWorkers>,
}

/// Maximum sizes of the high priority queue and the request queue, in elements: what virtiofsd supports.
const QUEUE_SIZES: [u16; 2] = [1024; 2];

/// For logs and as the name of the thread.
const DEVICE: &str = "virtio-fs";

/// `struct virtio_fs_config` without `notify_buf_size`, which needs VIRTIO_FS_F_NOTIFICATION (VIRTIO 1.2, 5.11.4).
#[derive(Clone, Copy, IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct Config {
    /// Padded with zeros.
    tag: [u8; MAX_TAG_LEN],
    num_request_queues: U32,
}

const _: () = assert!(size_of::<Config>() == 40);

impl Fs {
    /// A device with a tag, of which 36 bytes are used.
    #[must_use]
    pub fn new(tag: &str, backend: Arc<VhostUserBackend>) -> Self {
        let mut bytes = [0; MAX_TAG_LEN];
        bytes.iter_mut().zip(tag.bytes()).for_each(|(to, from)| *to = from);
        let requests = QUEUE_SIZES.len() as u32 - 1;
        Fs { config: Config { tag: bytes, num_request_queues: U32::new(requests) }, backend, workers: None }
    }
}

impl VirtioDevice for Fs {
    fn device_type(&self) -> u32 {
        VIRTIO_ID_FS
    }

    fn queue_max_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn features(&self) -> u64 {
        0
    }

    fn ring_features(&self) -> u64 {
        Queue::FEATURES & self.backend.features()
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let from = usize::try_from(offset).ok().and_then(|offset| self.config.as_bytes().get(offset..));
        data.iter_mut().zip(from.unwrap_or_default()).for_each(|(to, from)| *to = *from);
    }

    fn activate(&mut self, activation: Activation) -> io::Result<()> {
        // The back end is another process, which a caller that serves the queues without threads does not wait for.
        #[cfg(feature = "testing")]
        let activation = Activation { without_threads: false, ..activation };
        let group = self.backend.group(DEVICE, activation.features)?;
        self.workers = Some(QueueWorkers::start(DEVICE, activation, [group])?);
        Ok(())
    }

    fn workers(&mut self) -> Option<&mut QueueWorkers> {
        self.workers.as_mut()
    }

    fn reset(&mut self) {
        self.workers = None;
    }
}
