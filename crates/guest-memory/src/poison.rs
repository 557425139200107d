//! Pages that the host is told to lose.

use std::io;

use crate::ram::GuestRam;
use crate::{AccessError, pages, sigbus};

impl GuestRam {
    /// Has the host lose the pages that these bytes are in, as if the hardware had said so (MADV_HWPOISON): they are taken from
    /// whoever maps them, and not used again. The signal with which the host tells its caller is taken out of the way; the
    /// [`AoListener`](sigbus::AoListener) is told, as of memory that was found lost.
    ///
    /// # Errors
    /// `InvalidInput` where they are not all memory; EINVAL where the host's kernel has no CONFIG_MEMORY_FAILURE; EPERM without
    /// CAP_SYS_ADMIN.
    pub fn poison(&self, gpa: u64, len: u64) -> io::Result<()> {
        let page_size = self.backing().page_size();
        let start = gpa & !(page_size - 1);
        let end = gpa.checked_add(len).and_then(|end| end.checked_next_multiple_of(page_size));
        let pages = end.map_or(0, |end| (end - start) / page_size);
        for page in (0..pages).map(|index| start + index * page_size) {
            let hva = self.host_address(page).ok_or_else(|| {
                io::Error::new(io::ErrorKind::InvalidInput, AccessError::NotMemory { gpa, len })
            })?;
            // A page that nobody wrote to is the host's zero page, or none: it has to be the guest's own. One that is lost
            // already says so now.
            pages::populate(hva, page_size, pages::For::Writing)?;
            let outcome = sigbus::listening(|| pages::poison(hva, page_size));
            let is_this = |fault: &sigbus::Fault| fault.hva >= hva && fault.hva - hva < page_size;
            // What else this thread was told of is put back where it was.
            let mut others = Vec::new();
            while let Some(fault) = sigbus::take() {
                others.extend(Some(fault).filter(|fault| !is_this(fault)));
            }
            others.into_iter().try_for_each(|fault| sigbus::listening(|| sigbus::raise(fault)))?;
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
    fn only_memory_can_be_lost() {
        let ram = GuestRam::allocate(&[(0, 0x10000)], Backing::Anonymous).expect("small memory");
        let error = ram.poison(0x20000, 1).expect_err("not memory");
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }
}
