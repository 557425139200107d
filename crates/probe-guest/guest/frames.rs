//! Memory for page tables and stacks: the usable memory after the guest's image.

use crate::failure::Failure;
use crate::memory_map::MemoryMap;

/// Bytes of a frame.
pub(crate) const FRAME: u64 = 4096;

/// A bump allocator for frames, which are never freed.
pub(crate) struct Frames {
    start: u64,
    next: u64,
    end: u64,
}

impl Frames {
    /// The rest of the usable region that contains the image, which is from `image_start` to `image_end`.
    pub(crate) fn after_image(memory: &MemoryMap, image_start: u64, image_end: u64) -> Result<Self, Failure> {
        let region = memory
            .usable()
            .find(|region| region.holds(image_start, image_end))
            .ok_or(Failure::with("the image is not in usable memory at", image_start))?;
        Ok(Frames { start: image_start, next: image_end, end: region.end })
    }

    /// Limits the frames to below `address`, if that is after the image.
    #[cfg(target_arch = "aarch64")]
    pub(crate) fn up_to(self, address: u64) -> Self {
        let end = if address >= self.next { self.end.min(address) } else { self.end };
        Frames { end, ..self }
    }

    /// Allocates `count` contiguous frames, zeroed, and returns their address.
    pub(crate) fn allocate(&mut self, count: u64) -> Result<u64, Failure> {
        let frames = self.next;
        let end = count
            .checked_mul(FRAME)
            .and_then(|len| frames.checked_add(len))
            .filter(|end| *end <= self.end)
            .ok_or(Failure::with("no memory left after", frames))?;
        self.next = end;
        // SAFETY: usable memory after the image, mapped as the image is, and not allocated yet.
        unsafe { core::ptr::write_bytes(frames as *mut u8, 0, (end - frames) as usize) };
        Ok(frames)
    }

    /// From the start of the image to the end of the allocated frames.
    pub(crate) fn in_use(&self) -> core::ops::Range<u64> {
        self.start..self.next
    }
}
