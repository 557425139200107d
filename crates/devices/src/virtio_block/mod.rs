//! A disk (VIRTIO 1.2, 5.2), with one queue.
//!
//! | feature | |
//! |---|---|
//! | VIRTIO_BLK_F_SEG_MAX | a request has up to 254 buffers of data |
//! | VIRTIO_BLK_F_RO | offered where the guest may only read |
//! | VIRTIO_BLK_F_FLUSH | offered where it may write: without it every write is flushed |
//!
//! Requests are IN, OUT, FLUSH and GET_ID. What cannot be done gives VIRTIO_BLK_S_IOERR: sectors that the disk has not, part
//! of a sector, a buffer that is not memory or that the host has lost, a file that the host cannot read. Other requests
//! give VIRTIO_BLK_S_UNSUPP. Where a page of the queue is lost, the device needs a reset: so it does for a descriptor, since
//! nothing says then where a status would go.
//!
//! They are carried out one after the other on a thread of the device.

mod config;
mod disk;
mod request;
mod worker;

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
use self::worker::Worker;
use crate::virtio::{Activation, VirtioDevice};

/// A disk that a driver can reach.
pub struct Block {
    disk: Arc<Disk>,
    id: Id,
    /// While it is active and its driver has made the queue ready.
    worker: Option<Worker>,
}

/// What GET_ID gives: text, ended by a zero where it is shorter (VIRTIO 1.2, 5.2.6).
type Id = [u8; VIRTIO_BLK_ID_BYTES as usize];

/// Elements of the queue.
const QUEUE_SIZE: u16 = 256;

/// `struct virtio_blk_config` (VIRTIO 1.2, 5.2.4) as far as features are offered that it has fields for.
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
    /// A device for a disk. Drivers see the first 20 bytes of `id`.
    #[must_use]
    pub fn new(disk: Disk, id: &str) -> Self {
        let mut bytes = Id::default();
        bytes.iter_mut().zip(id.bytes()).for_each(|(to, from)| *to = from);
        Block { disk: Arc::new(disk), id: bytes, worker: None }
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
        let Activation { ram, observer: lost, features, queues, interrupt } = activation;
        if let Some(queue) = queues.into_iter().next().flatten() {
            let flush_writes = features & 1 << VIRTIO_BLK_F_FLUSH == 0;
            let server =
                request::Server::new(Arc::clone(&self.disk), self.id, flush_writes, Arc::clone(&lost));
            self.worker = Some(Worker::start(server, queue, ram, interrupt, lost)?);
        }
        Ok(())
    }

    fn notify(&self, queue: u16) {
        if let (0, Some(worker)) = (queue, &self.worker) {
            worker.kick();
        }
    }

    fn reset(&mut self) {
        self.worker = None;
    }
}
