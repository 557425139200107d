//! Status blocks of others.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use super::STATUS_LEN;

/// Status blocks of others that wait for the block to be free, in the order in which the handshake has them queued.
#[derive(Debug, Default)]
pub(super) struct Injected {
    waiting: VecDeque<Vec<u8>>,
    /// Those that were written. The next injection frees them: a vCPU may wait when one is written.
    written: Vec<Vec<u8>>,
}

impl Injected {
    pub(super) fn add(&mut self, block: &[u8]) {
        self.written.clear();
        self.waiting.push_back(block.to_vec());
        self.written.reserve(self.waiting.len());
    }

    /// Copies the first one to `to`, and returns its length.
    pub(super) fn take(&mut self, to: &mut [u8]) -> Option<usize> {
        let block = self.waiting.pop_front()?;
        let len = block.len();
        // A block that is shorter than its status has zeros behind it.
        to.iter_mut().take(STATUS_LEN).for_each(|byte| *byte = 0);
        to.get_mut(..len)?.copy_from_slice(&block);
        self.written.push(block);
        Some(len)
    }
}
