//! The configuration space of a disk.

use std::mem::offset_of;

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromZeros, Immutable, IntoBytes, Unaligned};

use super::request::{MAX_RANGE_SECTORS, MAX_RANGES};
use super::{Disk, QUEUE_SIZE, SECTOR};

/// The part of `struct virtio_blk_config` (VIRTIO 1.2, 5.2.4) that the offered features need.
#[derive(FromZeros, IntoBytes, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct ConfigSpace {
    /// In sectors.
    capacity: U64,
    size_max: U32,
    seg_max: U32,
    cylinders: U16,
    heads: u8,
    sectors: u8,
    blk_size: U32,
    /// log2 of logical blocks.
    physical_block_exp: u8,
    /// In logical blocks, as the next two.
    alignment_offset: u8,
    min_io_size: U16,
    opt_io_size: U32,
    writeback: u8,
    unused0: u8,
    num_queues: U16,
    max_discard_sectors: U32,
    max_discard_seg: U32,
    /// In sectors.
    discard_sector_alignment: U32,
    max_write_zeroes_sectors: U32,
    max_write_zeroes_seg: U32,
    write_zeroes_may_unmap: u8,
    unused1: [u8; 3],
}

const _: () = assert!(size_of::<ConfigSpace>() == 60);

/// Offset of `writeback`, the only field that a driver can change.
pub(super) const WRITEBACK: u64 = offset_of!(ConfigSpace, writeback) as u64;

impl ConfigSpace {
    pub(super) fn new(disk: &Disk, queues: u16, writeback: bool) -> Self {
        let geometry = disk.geometry();
        let in_blocks = |bytes: u32| bytes / geometry.logical;
        let mut config = ConfigSpace {
            capacity: U64::new(disk.sectors()),
            // The header and the status take one element each.
            seg_max: U32::new(u32::from(QUEUE_SIZE) - 2),
            blk_size: U32::new(geometry.logical),
            physical_block_exp: geometry.physical_exponent(),
            // 0 is "none"; values that do not fit are not reported.
            alignment_offset: in_blocks(geometry.alignment_offset).try_into().unwrap_or_default(),
            min_io_size: U16::new(in_blocks(geometry.minimum_transfer).try_into().unwrap_or_default()),
            opt_io_size: U32::new(in_blocks(geometry.optimal_transfer)),
            writeback: writeback.into(),
            num_queues: U16::new(queues),
            ..ConfigSpace::new_zeroed()
        };
        if disk.can_discard() {
            config.max_discard_sectors = U32::new(MAX_RANGE_SECTORS);
            config.max_discard_seg = U32::new(MAX_RANGES);
            config.discard_sector_alignment = U32::new(geometry.discard / SECTOR as u32);
            config.max_write_zeroes_sectors = U32::new(MAX_RANGE_SECTORS);
            config.max_write_zeroes_seg = U32::new(MAX_RANGES);
            config.write_zeroes_may_unmap = 1;
        }
        config
    }
}
