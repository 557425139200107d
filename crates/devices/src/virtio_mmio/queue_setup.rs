//! A queue as its driver configures it by registers.

use super::registers::Part;
use crate::virtio::QueueLayout;

/// The queue registers of one queue.
#[derive(Clone, Debug)]
pub(super) struct QueueSetup {
    /// QueueSizeMax.
    pub(super) max_size: u16,
    /// QueueReady.
    pub(super) ready: bool,
    pub(super) layout: QueueLayout,
}

impl QueueSetup {
    /// The registers after a reset.
    pub(super) fn new(max_size: u16) -> Self {
        let layout = QueueLayout { size: max_size.into(), descriptors: 0, available: 0, used: 0 };
        QueueSetup { max_size, ready: false, layout }
    }

    /// The GPA of one of its parts.
    pub(super) fn address(&mut self, part: Part) -> &mut u64 {
        match part {
            Part::Descriptors => &mut self.layout.descriptors,
            Part::Driver => &mut self.layout.available,
            Part::Device => &mut self.layout.used,
        }
    }
}
