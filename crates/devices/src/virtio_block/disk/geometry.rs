//! The blocks of a disk, as its driver sees them (VIRTIO 1.2, 5.2.4, `blk_size`, `topology`, `discard_sector_alignment`).

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;

use rustix::fs::{ioctl_blkpbszget, ioctl_blksszget, major, minor};

use super::SECTOR;

/// The blocks of a disk. Sizes are in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::virtio_block) struct Geometry {
    /// The smallest unit that the driver should transfer: a power of two.
    pub(in crate::virtio_block) logical: u32,
    /// The unit of efficient transfers: a power of two, and at least `logical`.
    pub(in crate::virtio_block) physical: u32,
    /// Where the first physical block starts.
    pub(in crate::virtio_block) alignment_offset: u32,
    /// 0: unknown.
    pub(in crate::virtio_block) minimum_transfer: u32,
    /// 0: unknown.
    pub(in crate::virtio_block) optimal_transfer: u32,
    /// The unit that can be discarded.
    pub(in crate::virtio_block) discard: u32,
}

/// Blocks of most file systems, and the largest logical block that Linux supports with pages of 4 KiB.
const BLOCK: u32 = 4096;

impl Geometry {
    pub(super) fn of(file: &File, is_block_device: bool) -> Self {
        if is_block_device { Self::of_block_device(file) } else { Self::of_image() }
    }

    /// An image. Its partition table counts in sectors, whatever the blocks of the file system that holds it are.
    fn of_image() -> Self {
        Geometry {
            logical: SECTOR as u32,
            physical: BLOCK,
            alignment_offset: 0,
            minimum_transfer: 0,
            optimal_transfer: 0,
            discard: BLOCK,
        }
    }

    fn of_block_device(file: &File) -> Self {
        let size = |size: u32| size.is_power_of_two().then_some(size);
        let logical =
            ioctl_blksszget(file).ok().and_then(size).unwrap_or(SECTOR as u32).clamp(SECTOR as u32, BLOCK);
        let physical = ioctl_blkpbszget(file).ok().and_then(size).unwrap_or(logical).max(logical);
        let attributes = Attributes::of(file);
        Geometry {
            logical,
            physical,
            alignment_offset: attributes.number("alignment_offset").unwrap_or_default(),
            minimum_transfer: attributes.limit("minimum_io_size"),
            optimal_transfer: attributes.limit("optimal_io_size"),
            discard: attributes.limit("discard_granularity").max(logical),
        }
    }

    /// log2 of the logical blocks in a physical one.
    pub(in crate::virtio_block) fn physical_exponent(&self) -> u8 {
        (self.physical / self.logical).ilog2() as u8
    }
}

/// What sysfs says about a block device (Linux, `Documentation/ABI/stable/sysfs-block`).
struct Attributes {
    directory: String,
}

impl Attributes {
    fn of(file: &File) -> Self {
        let device = file.metadata().map_or(0, |metadata| metadata.rdev());
        Attributes { directory: format!("/sys/dev/block/{}:{}", major(device), minor(device)) }
    }

    /// A limit of the queue; 0 if it is unknown. A partition has the queue of its disk.
    fn limit(&self, name: &str) -> u32 {
        let of_disk = || self.number(&format!("../queue/{name}"));
        self.number(&format!("queue/{name}")).or_else(of_disk).unwrap_or_default()
    }

    fn number(&self, name: &str) -> Option<u32> {
        fs::read_to_string(format!("{}/{name}", self.directory)).ok()?.trim().parse().ok()
    }
}
