//! The initrd: loaded as high as possible in the first range of memory, which leaves the space below to the kernel's
//! decompressor, and outside of poisoned memory.

use std::path::Path;

use platform::Range;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::{BootError, Loaded, open_regular};

pub(super) fn load<K>(
    path: &Path,
    memory: &GuestMemoryMmap,
    low_end: u64,
    poisoned: &[Range],
    kernel: &Loaded<K>,
) -> Result<Range, BootError> {
    let failed = |source| BootError::Initrd { path: path.to_owned(), source };
    let mut file = open_regular(path).map_err(failed)?;
    let len = file.metadata().map_err(failed)?.len();
    if len == 0 {
        return Err(failed(std::io::Error::other("the file is empty")));
    }
    // `initrd_max` is the last usable address.
    let limit = low_end.min(kernel.initrd_max.saturating_add(1));
    let too_large = BootError::InitrdTooLarge { len, kernel_end: kernel.end, limit };
    let place = |limit: u64| Some(Range { start: limit.checked_sub(len)? & !0xfff, len });
    let is_free = |place: &Range| place.start >= kernel.end;
    let mut candidate = place(limit).filter(is_free);
    let mut in_the_way = None;
    while let Some(page) = candidate.and_then(|place| poisoned.iter().find(|it| it.overlaps(place))) {
        in_the_way = Some(page.start);
        candidate = place(page.start).filter(is_free);
    }
    let Some(Range { start, .. }) = candidate else {
        return Err(match in_the_way {
            Some(page) => BootError::InitrdPoisoned { len, kernel_end: kernel.end, limit, page },
            None => too_large,
        });
    };
    let size = usize::try_from(len).map_err(|_| too_large)?;
    memory
        .read_exact_volatile_from(GuestAddress(start), &mut file, size)
        .map_err(|error| failed(std::io::Error::other(error.to_string())))?;
    Ok(Range { start, len })
}
