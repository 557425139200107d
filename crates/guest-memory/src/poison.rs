//! Poisoning pages of guest memory on request.

use std::io;

use crate::ram::GuestRam;
use crate::{AccessError, pages, sigbus};

impl GuestRam {
    /// Poisons the pages, of the backing's size, that contain these bytes, with MADV_HWPOISON: the kernel treats them as if the
    /// hardware had reported an uncorrected error. It unmaps them from every process and does not use them again. The SIGBUS that it
    /// sends to the calling thread is consumed here; the [`AoListener`](sigbus::AoListener) is notified as of a detected error.
    ///
    /// # Errors
    /// `InvalidInput` if the bytes are not all guest memory; EINVAL if the kernel lacks CONFIG_MEMORY_FAILURE; EPERM without
    /// CAP_SYS_ADMIN; EHWPOISON if a page is poisoned already. Pages before the failing one are poisoned.
    pub fn poison(&self, gpa: u64, len: u64) -> io::Result<()> {
        let page_size = self.backing().page_size();
        let start = gpa & !(page_size - 1);
        let end = gpa.checked_add(len).and_then(|end| end.checked_next_multiple_of(page_size));
        let count = end.map_or(0, |end| (end - start) / page_size);
        for page in (0..count).map(|index| start + index * page_size) {
            let range = self.host_range(page, page_size).ok_or_else(|| {
                io::Error::new(io::ErrorKind::InvalidInput, AccessError::NotMemory { gpa, len })
            })?;
            // The page has to be the guest's own, not the shared zero page. A page that is poisoned already fails here.
            pages::populate_write(range)?;
            let outcome = sigbus::capture_action_required(|| pages::poison(range));
            // Other faults that were captured for this thread are queued again.
            let mut others = Vec::new();
            while let Some(fault) = sigbus::take_fault() {
                others.extend(Some(fault).filter(|fault| !range.contains(fault.hva)));
            }
            others
                .into_iter()
                .try_for_each(|fault| sigbus::capture_action_required(|| sigbus::raise(fault)))?;
            outcome?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Backing;

    #[test]
    fn only_guest_memory_can_be_poisoned() {
        let ram = GuestRam::allocate(&[(0, 0x10000)], Backing::Anonymous).expect("small memory");
        let error = ram.poison(0x20000, 1).expect_err("not memory");
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }
}
