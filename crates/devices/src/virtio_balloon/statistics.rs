//! Statistics of the guest's memory (VIRTIO 1.2, 5.5.6.3).

use std::time::Instant;

use zerocopy::little_endian::{U16, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes};

use crate::virtio::Buffers;

/// What a guest says of its memory. It may be wrong, and omit any of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Statistics {
    /// When the guest said it.
    pub at: Instant,
    /// Bytes that were read from the swap.
    pub swap_in: Option<u64>,
    /// Bytes that were written to the swap.
    pub swap_out: Option<u64>,
    /// Page faults that needed I/O.
    pub major_faults: Option<u64>,
    /// Page faults that did not.
    pub minor_faults: Option<u64>,
    /// Bytes that are not used.
    pub free: Option<u64>,
    /// Bytes of memory, without what the balloon has.
    pub total: Option<u64>,
    /// Bytes that programs can get without swapping.
    pub available: Option<u64>,
    /// Bytes of caches that can be released quickly.
    pub caches: Option<u64>,
    /// Huge pages that were allocated.
    pub huge_pages: Option<u64>,
    /// Huge pages that could not be allocated.
    pub huge_page_failures: Option<u64>,
}

/// `struct virtio_balloon_stat` (VIRTIO 1.2, 5.5.6.3).
#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct Stat {
    tag: U16,
    value: U64,
}

const _: () = assert!(size_of::<Stat>() == 10);

/// The most statistics that are read of a guest: more than there are.
const MAX_STATS: usize = 64;

impl Statistics {
    fn new() -> Self {
        Statistics {
            at: Instant::now(),
            swap_in: None,
            swap_out: None,
            major_faults: None,
            minor_faults: None,
            free: None,
            total: None,
            available: None,
            caches: None,
            huge_pages: None,
            huge_page_failures: None,
        }
    }

    /// Reads what the guest wrote. Unknown statistics are ignored, and those that cannot be read.
    pub(super) fn read(mut from: Buffers<'_>) -> Self {
        let mut statistics = Statistics::new();
        for _ in 0..MAX_STATS {
            let mut stat = Stat::new_zeroed();
            if from.read(stat.as_mut_bytes()).is_err() {
                break;
            }
            // VIRTIO 1.2, 5.5.6.4.
            let field = match stat.tag.get() {
                0 => &mut statistics.swap_in,
                1 => &mut statistics.swap_out,
                2 => &mut statistics.major_faults,
                3 => &mut statistics.minor_faults,
                4 => &mut statistics.free,
                5 => &mut statistics.total,
                6 => &mut statistics.available,
                7 => &mut statistics.caches,
                8 => &mut statistics.huge_pages,
                9 => &mut statistics.huge_page_failures,
                _ => continue,
            };
            *field = Some(stat.value.get());
        }
        statistics
    }
}
