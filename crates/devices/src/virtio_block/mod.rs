//! A virtio disk (VIRTIO 1.2, 5.2), with one queue.
//!
//! | feature | |
//! |---|---|
//! | VIRTIO_BLK_F_SEG_MAX | a request has up to 254 data buffers |
//! | VIRTIO_BLK_F_RO | offered if the disk is read-only |
//! | VIRTIO_BLK_F_FLUSH | offered if the disk is writable; a driver that does not accept it has every write flushed |
//!
//! The request types are IN, OUT, FLUSH and GET_ID; others end with VIRTIO_BLK_S_UNSUPP. A request ends with
//! VIRTIO_BLK_S_IOERR if it names sectors past the disk's end or part of a sector, has data of the wrong direction, if one of
//! its buffers is not memory or is poisoned, or if the host fails to access the file. A poisoned page of the queue or of a
//! descriptor sets DEVICE_NEEDS_RESET: where the status of the request would go is unknown.
//!
//! Requests are handled one after the other on a thread of the device.

mod config;
mod disk;
mod format;
mod request;

use std::io;
use std::sync::Arc;

use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_F_RO, VIRTIO_BLK_F_SEG_MAX, VIRTIO_BLK_ID_BYTES,
};
use virtio_bindings::virtio_ids::VIRTIO_ID_BLOCK;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{Immutable, IntoBytes, Unaligned};

pub use self::config::{BlockConfig, KIND};
pub use self::disk::{Disk, DiskError, SECTOR};
pub use self::format::Format;
use self::request::RequestHandler;
use crate::virtio::{Activation, QueueWorkers, VirtioDevice, per_request};

/// A disk that a driver can use.
pub struct Block {
    disk: Arc<Disk>,
    id: Id,
    /// `Some` while the device is active.
    workers: Option<QueueWorkers>,
}

/// The response to GET_ID: text, padded with zeros (VIRTIO 1.2, 5.2.6).
type Id = [u8; VIRTIO_BLK_ID_BYTES as usize];

/// Maximum size of the queue, in elements.
const QUEUE_SIZE: u16 = 256;

/// The part of `struct virtio_blk_config` (VIRTIO 1.2, 5.2.4) that the offered features need.
#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct Config {
    /// In sectors.
    capacity: U64,
    size_max: U32,
    seg_max: U32,
}

const _: () = assert!(size_of::<Config>() == 16);

impl Block {
    /// A device for a disk. GET_ID returns the first 20 bytes of `id`.
    #[must_use]
    pub fn new(disk: impl Into<Arc<Disk>>, id: &str) -> Self {
        let mut bytes = Id::default();
        bytes.iter_mut().zip(id.bytes()).for_each(|(to, from)| *to = from);
        Block { disk: disk.into(), id: bytes, workers: None }
    }
}

impl VirtioDevice for Block {
    fn device_type(&self) -> u32 {
        VIRTIO_ID_BLOCK
    }

    fn queue_max_sizes(&self) -> &[u16] {
        &[QUEUE_SIZE]
    }

    fn features(&self) -> u64 {
        let access = if self.disk.is_read_only() { VIRTIO_BLK_F_RO } else { VIRTIO_BLK_F_FLUSH };
        1 << VIRTIO_BLK_F_SEG_MAX | 1 << access
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let config = Config {
            capacity: U64::new(self.disk.sectors()),
            size_max: U32::ZERO,
            // The header and the status take one element each.
            seg_max: U32::new(u32::from(QUEUE_SIZE) - 2),
        };
        let from = usize::try_from(offset).ok().and_then(|offset| config.as_bytes().get(offset..));
        data.iter_mut().zip(from.unwrap_or_default()).for_each(|(to, from)| *to = *from);
    }

    fn activate(&mut self, activation: Activation) -> io::Result<()> {
        let flush_writes = activation.features & 1 << VIRTIO_BLK_F_FLUSH == 0;
        let handler = RequestHandler::new(Arc::clone(&self.disk), self.id, flush_writes);
        self.workers = Some(QueueWorkers::start("virtio-block", activation, [per_request(0, handler)])?);
        Ok(())
    }

    fn workers(&mut self) -> Option<&mut QueueWorkers> {
        self.workers.as_mut()
    }

    fn reset(&mut self) {
        self.workers = None;
    }
}
