//! A virtio memory balloon (VIRTIO 1.2, 5.5): the guest gives pages back to the host.
//!
//! | feature | |
//! |---|---|
//! | VIRTIO_BALLOON_F_STATS_VQ | the guest sends statistics of its memory when the VMM asks for them |
//! | VIRTIO_BALLOON_F_DEFLATE_ON_OOM | the guest may take pages back rather than to run out of memory; by the configuration |
//! | VIRTIO_BALLOON_F_PAGE_REPORTING | the guest reports its free pages; by the configuration |
//!
//! The VMM changes the balloon's size and reads statistics by a [`BalloonControl`].
//!
//! A page in the balloon, or reported as free, is given back to the host (MADV_DONTNEED, a hole in the memfd), and is zero when the
//! guest touches it again. A page of the host that is larger than 4 KiB is given back only if all of it is named in one request. Pages
//! of hugetlbfs are kept: the pool may have no page when the guest wants its memory back, which would be a SIGBUS.
//!
//! A poisoned page that is given back is no longer the guest's: the guest gets a fresh page when it touches the address. The
//! [`PoisonObserver`](crate::PoisonObserver) is notified of what was given back.
//!
//! The queues are numbered as drivers number them, not as 5.5.2 does: without gaps for features that were not negotiated. Queue 2 has the
//! statistics if these were negotiated; the others from 2 on have reports of free pages.

mod config;
mod control;
mod group;
mod statistics;

use std::io;
use std::sync::atomic::Ordering;

use virtio_bindings::virtio_ids::VIRTIO_ID_BALLOON;

pub use self::config::{BalloonBackend, BalloonConfig, KIND};
pub use self::control::BalloonControl;
use self::group::BalloonGroup;
pub use self::statistics::Statistics;
use crate::virtio::{Activation, QueueGroup, QueueWorkers, VirtioDevice};

/// A balloon.
pub struct Balloon {
    control: BalloonControl,
    config: BalloonConfig,
    /// `Some` while the device is active.
    workers: Option<QueueWorkers>,
}

/// Bytes of a page, whatever the size of a page of the guest or the host (VIRTIO 1.2, 5.5.6).
const PAGE: u64 = 4096;

const INFLATE_QUEUE: u16 = 0;
const DEFLATE_QUEUE: u16 = 1;
/// If the feature is negotiated.
const STATISTICS_QUEUE: u16 = 2;
/// Maximum sizes of the queues, in elements: one more than exists when all are negotiated, for drivers that number them as 5.5.2 does.
const QUEUE_SIZES: [u16; 5] = [128; 5];

// Features (VIRTIO 1.2, 5.5.3).
const STATS_VQ: u64 = 1 << 1;
const DEFLATE_ON_OOM: u64 = 1 << 2;
const PAGE_REPORTING: u64 = 1 << 5;

/// Offset of `actual` in the configuration, behind `num_pages` (VIRTIO 1.2, 5.5.4).
const ACTUAL: usize = 4;
/// Bytes of the configuration that the offered features need.
const CONFIG_LEN: usize = 8;

impl Balloon {
    /// A device with this control. The configuration's size is not read: the control has the target.
    #[must_use]
    pub fn new(control: BalloonControl, config: BalloonConfig) -> Self {
        Balloon { control, config, workers: None }
    }

    fn config_bytes(&self) -> [u8; CONFIG_LEN] {
        let shared = &self.control.0;
        let mut bytes = [0; CONFIG_LEN];
        bytes[..ACTUAL].copy_from_slice(&shared.target.load(Ordering::SeqCst).to_le_bytes());
        bytes[ACTUAL..].copy_from_slice(&shared.actual.load(Ordering::SeqCst).to_le_bytes());
        bytes
    }
}

impl VirtioDevice for Balloon {
    fn device_type(&self) -> u32 {
        VIRTIO_ID_BALLOON
    }

    fn queue_max_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn features(&self) -> u64 {
        let deflate = if self.config.deflate_on_oom { DEFLATE_ON_OOM } else { 0 };
        let reporting = if self.config.free_page_reporting { PAGE_REPORTING } else { 0 };
        STATS_VQ | deflate | reporting
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let config = self.config_bytes();
        let from = usize::try_from(offset).ok().and_then(|offset| config.get(offset..));
        data.iter_mut().zip(from.unwrap_or_default()).for_each(|(to, from)| *to = *from);
    }

    fn write_config(&mut self, offset: u64, data: &[u8]) {
        let mut config = self.config_bytes();
        let to = usize::try_from(offset).ok().and_then(|offset| config.get_mut(offset..));
        to.unwrap_or_default().iter_mut().zip(data).for_each(|(to, from)| *to = *from);
        // `num_pages` is the VMM's: what was written to it is dropped.
        let [.., a, b, c, d] = config;
        self.control.0.actual.store(u32::from_le_bytes([a, b, c, d]), Ordering::SeqCst);
    }

    fn activate(&mut self, activation: Activation) -> io::Result<()> {
        let has_statistics = activation.features & STATS_VQ != 0;
        let group: Box<dyn QueueGroup> = Box::new(BalloonGroup {
            shared: self.control.0.clone(),
            statistics_queue: has_statistics.then_some(STATISTICS_QUEUE),
        });
        let queues = (0..).zip(QUEUE_SIZES).map(|(index, _)| index).collect();
        self.workers = Some(QueueWorkers::start("virtio-balloon", activation, [(queues, group)])?);
        Ok(())
    }

    fn workers(&mut self) -> Option<&mut QueueWorkers> {
        self.workers.as_mut()
    }

    fn reset(&mut self) {
        self.workers = None;
        self.control.0.actual.store(0, Ordering::SeqCst);
        self.control.0.set_statistics(None);
    }
}
