//! A queue as its driver describes it, before it is used.

use virtio_queue::{Error, Queue, QueueT};
use vm_memory::{GuestAddress, GuestMemoryMmap};

use super::registers::Part;

/// What a driver wrote of a queue.
#[derive(Clone, Debug)]
pub(super) struct QueueSetup {
    pub(super) max: u16,
    pub(super) size: u32,
    pub(super) ready: bool,
    descriptors: u64,
    driver: u64,
    device: u64,
}

impl QueueSetup {
    /// A queue of which nothing was written.
    pub(super) fn new(max: u16) -> Self {
        QueueSetup { max, size: max.into(), ready: false, descriptors: 0, driver: 0, device: 0 }
    }

    /// The GPA of one of its parts.
    pub(super) fn address(&mut self, part: Part) -> &mut u64 {
        match part {
            Part::Descriptors => &mut self.descriptors,
            Part::Driver => &mut self.driver,
            Part::Device => &mut self.device,
        }
    }

    /// The queue; none where the driver has not made it ready.
    ///
    /// # Errors
    /// Where its size is no power of two up to the largest, or its parts are not aligned or not in memory.
    pub(super) fn build(&self, memory: &GuestMemoryMmap, event_index: bool) -> Result<Option<Queue>, Error> {
        if !self.ready {
            return Ok(None);
        }
        let mut queue = Queue::new(self.max)?;
        queue.try_set_size(u16::try_from(self.size).map_err(|_| Error::InvalidSize)?)?;
        queue.try_set_desc_table_address(GuestAddress(self.descriptors))?;
        queue.try_set_avail_ring_address(GuestAddress(self.driver))?;
        queue.try_set_used_ring_address(GuestAddress(self.device))?;
        queue.set_event_idx(event_index);
        queue.set_ready(true);
        if queue.is_valid(memory) { Ok(Some(queue)) } else { Err(Error::FindMemoryRegion) }
    }
}
