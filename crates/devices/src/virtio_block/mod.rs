//! A virtio disk (VIRTIO 1.2, 5.2).
//!
//! | feature | |
//! |---|---|
//! | VIRTIO_BLK_F_SEG_MAX | a request has up to 254 data buffers |
//! | VIRTIO_BLK_F_BLK_SIZE, _TOPOLOGY | the blocks of a block device; an image has sectors, best transferred in 4 KiB |
//! | VIRTIO_BLK_F_RO | offered if the disk is read-only |
//! | VIRTIO_BLK_F_FLUSH, _CONFIG_WCE | offered if the disk is writable |
//! | VIRTIO_BLK_F_DISCARD, _WRITE_ZEROES | offered if the guest may discard: holes in the image, or discards of the block device |
//! | VIRTIO_BLK_F_MQ | offered if there are several queues |
//!
//! The request types are IN, OUT, FLUSH, GET_ID, DISCARD and WRITE_ZEROES; others end with VIRTIO_BLK_S_UNSUPP. A request ends with
//! VIRTIO_BLK_S_IOERR if it names sectors past the disk's end or part of a sector, has data of the wrong direction, if one of
//! its buffers is not memory or is poisoned, or if the host fails to access the file. A poisoned page of the queue or of a
//! descriptor sets DEVICE_NEEDS_RESET: where the status of the request would go is unknown.
//!
//! # Order and durability
//!
//! Each queue has a thread, and many requests in progress at the same time. They complete in any order: a driver that needs one
//! write to follow another waits for the first. A completed write is in the file, for every reader on the host, also if the VMM is
//! killed then. It is on stable storage when a FLUSH that began after its completion has completed (fdatasync(2)), or when it
//! completes itself if the driver chose writethrough: `writeback` = 0, or no VIRTIO_BLK_F_FLUSH.
//!
//! A request that is abandoned, because its queue is stopped or the device is reset, accesses no guest memory any more. Its
//! writes are done or not, in part or whole, before a reset returns, and before a stopped queue serves the next request.

mod bounce;
mod config;
mod config_space;
mod disk;
mod engine;
mod format;
mod pool;
mod queue;
mod request;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_F_BLK_SIZE, VIRTIO_BLK_F_CONFIG_WCE, VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_FLUSH,
    VIRTIO_BLK_F_MQ, VIRTIO_BLK_F_RO, VIRTIO_BLK_F_SEG_MAX, VIRTIO_BLK_F_TOPOLOGY, VIRTIO_BLK_F_WRITE_ZEROES,
    VIRTIO_BLK_ID_BYTES,
};
use virtio_bindings::virtio_ids::VIRTIO_ID_BLOCK;
use zerocopy::IntoBytes;

pub use self::config::{BlockBackend, BlockConfig, KIND};
use self::config_space::{ConfigSpace, WRITEBACK};
pub use self::disk::{Disk, DiskError, DiskOptions, SECTOR};
pub use self::engine::EngineKind;
pub use self::format::Format;
use self::queue::BlockQueue;
use self::request::Target;
use crate::rate_limit::{RateLimit, RateLimiter};
use crate::virtio::{Activation, Group, QueueWorkers, VirtioDevice};

/// A disk that a driver can use.
pub struct Block {
    disk: Arc<Disk>,
    id: Id,
    /// Of each queue.
    queue_sizes: Vec<u16>,
    engine: EngineKind,
    rate_limit: Option<Arc<RateLimit>>,
    /// Whether completed writes may be in a cache of the host. The queues read it.
    writeback: Arc<AtomicBool>,
    /// Whether the driver can change `writeback`: it can until the device is active, and then if it has accepted
    /// VIRTIO_BLK_F_CONFIG_WCE.
    is_cache_configurable: bool,
    /// `Some` while the device is active.
    workers: Option<QueueWorkers>,
}

/// The response to GET_ID: text, padded with zeros (VIRTIO 1.2, 5.2.6).
type Id = [u8; MAX_ID_LEN];

/// Bytes of a serial number.
pub const MAX_ID_LEN: usize = VIRTIO_BLK_ID_BYTES as usize;
/// The maximum number of queues.
pub const MAX_QUEUES: u16 = 16;
/// Maximum size of a queue, in elements.
const QUEUE_SIZE: u16 = 256;
/// Operations of a disk in flight: of its queues together, but for the minimum of each. Each may have a buffer of 64 KiB.
const MAX_OPERATIONS: u16 = 64;
/// Operations of a queue in flight.
const MIN_OPERATIONS: u16 = 16;

impl Block {
    /// A device for a disk, with one queue, and the best engine of the host. GET_ID returns the first 20 bytes of `id`.
    #[must_use]
    pub fn new(disk: impl Into<Arc<Disk>>, id: &str) -> Self {
        let mut bytes = Id::default();
        bytes.iter_mut().zip(id.bytes()).for_each(|(to, from)| *to = from);
        Block {
            disk: disk.into(),
            id: bytes,
            queue_sizes: vec![QUEUE_SIZE],
            engine: EngineKind::of_this_host(),
            rate_limit: None,
            writeback: Arc::new(AtomicBool::new(true)),
            is_cache_configurable: true,
            workers: None,
        }
    }

    /// Changes the number of queues: 1 to [`MAX_QUEUES`].
    #[must_use]
    pub fn queues(self, queues: u16) -> Self {
        Block { queue_sizes: vec![QUEUE_SIZE; queues.clamp(1, MAX_QUEUES).into()], ..self }
    }

    /// Changes the engine.
    #[must_use]
    pub fn engine(self, engine: EngineKind) -> Self {
        Block { engine, ..self }
    }

    /// Limits the requests of all queues together.
    #[must_use]
    pub fn rate_limit(self, rate_limit: Option<Arc<RateLimit>>) -> Self {
        Block { rate_limit, ..self }
    }

    fn set_up_queue(&self, index: u16) -> io::Result<Group> {
        let target =
            Target { disk: Arc::clone(&self.disk), id: self.id, writeback: Arc::clone(&self.writeback) };
        let limiter = self.rate_limit.clone().map(RateLimiter::new).transpose()?;
        let operations = (MAX_OPERATIONS / self.queue_sizes.len() as u16).max(MIN_OPERATIONS);
        Ok((vec![index], Box::new(BlockQueue::new(index, target, self.engine, operations, limiter))))
    }
}

impl VirtioDevice for Block {
    fn device_type(&self) -> u32 {
        VIRTIO_ID_BLOCK
    }

    fn queue_max_sizes(&self) -> &[u16] {
        &self.queue_sizes
    }

    fn features(&self) -> u64 {
        let mut features = vec![VIRTIO_BLK_F_SEG_MAX, VIRTIO_BLK_F_BLK_SIZE, VIRTIO_BLK_F_TOPOLOGY];
        if self.disk.is_read_only() {
            features.push(VIRTIO_BLK_F_RO);
        } else {
            features.extend([VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_F_CONFIG_WCE]);
        }
        if self.disk.can_discard() {
            features.extend([VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_WRITE_ZEROES]);
        }
        if self.queue_sizes.len() > 1 {
            features.push(VIRTIO_BLK_F_MQ);
        }
        features.into_iter().fold(0, |bits, feature| bits | 1 << feature)
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let writeback = self.writeback.load(Ordering::Relaxed);
        let config = ConfigSpace::new(&self.disk, self.queue_sizes.len() as u16, writeback);
        let from = usize::try_from(offset).ok().and_then(|offset| config.as_bytes().get(offset..));
        data.iter_mut().zip(from.unwrap_or_default()).for_each(|(to, from)| *to = *from);
    }

    fn write_config(&mut self, offset: u64, data: &[u8]) {
        if let (WRITEBACK, [mode], true) = (offset, data, self.is_cache_configurable) {
            self.writeback.store(*mode != 0, Ordering::Relaxed);
        }
    }

    fn activate(&mut self, activation: Activation) -> io::Result<()> {
        let has = |feature: u32| activation.features & 1 << feature != 0;
        self.is_cache_configurable = has(VIRTIO_BLK_F_CONFIG_WCE) && has(VIRTIO_BLK_F_FLUSH);
        if !self.is_cache_configurable {
            self.writeback.store(has(VIRTIO_BLK_F_FLUSH), Ordering::Relaxed);
        }
        let groups: io::Result<Vec<_>> =
            (0..).zip(&self.queue_sizes).map(|(index, _)| self.set_up_queue(index)).collect();
        self.workers = Some(QueueWorkers::start("virtio-block", activation, groups?)?);
        Ok(())
    }

    fn workers(&mut self) -> Option<&mut QueueWorkers> {
        self.workers.as_mut()
    }

    fn reset(&mut self) {
        self.workers = None;
        self.writeback.store(true, Ordering::Relaxed);
        self.is_cache_configurable = true;
    }
}
