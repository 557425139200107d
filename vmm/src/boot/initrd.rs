//! The initrd: as high as it may lie in the first run of memory, so that the kernel has room to unpack itself, and below what
//! is lost there.

use std::path::Path;

use platform::Range;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::{BootError, Loaded, open_regular};

pub(super) fn load<K>(
    path: &Path,
    memory: &GuestMemoryMmap,
    low_end: u64,
    lost: &[Range],
    kernel: &Loaded<K>,
) -> Result<Range, BootError> {
    let failed = |source| BootError::Initrd { path: path.to_owned(), source };
    let mut file = open_regular(path).map_err(failed)?;
    let len = file.metadata().map_err(failed)?.len();
    if len == 0 {
        return Err(failed(std::io::Error::other("the file is empty")));
    }
    // initrd_addr_max is the last address that may be taken.
    let limit = low_end.min(kernel.initrd_max.saturating_add(1));
    let too_large = BootError::InitrdTooLarge { len, kernel_end: kernel.end, limit };
    let place = |limit: u64| Some(Range { start: limit.checked_sub(len)? & !0xfff, len });
    let mut found = place(limit);
    while let Some(in_the_way) = found.and_then(|place| lost.iter().find(|lost| lost.overlaps(place))) {
        found = place(in_the_way.start);
    }
    let Some(Range { start, .. }) = found.filter(|place| place.start >= kernel.end) else {
        return Err(too_large);
    };
    let size = usize::try_from(len).map_err(|_| too_large)?;
    memory
        .read_exact_volatile_from(GuestAddress(start), &mut file, size)
        .map_err(|error| failed(std::io::Error::other(error.to_string())))?;
    Ok(Range { start, len })
}
