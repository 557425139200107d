//! The tokens of a queue's operations, each with its buffer.

use super::bounce::{self, Bounce};

/// The most buffers that are kept while a queue is idle: those of a request of 1 MiB.
const KEPT_BUFFERS: usize = (1 << 20) / bounce::MAX_LEN;

/// Tokens and buffers of operations that can begin.
pub(super) struct Pool {
    /// The last is the next one: few buffers are used if few are needed.
    free: Vec<(u16, Bounce)>,
    operations: usize,
    /// The least number of free ones since the queue was idle: the buffers of so many at the start were not used.
    least_free: usize,
}

impl Pool {
    pub(super) fn new(operations: u16) -> Self {
        let free = (0..operations).rev().map(|token| (token, Bounce::default())).collect();
        Pool { free, operations: operations.into(), least_free: operations.into() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.free.is_empty()
    }

    /// Takes a token and its buffer for an operation.
    pub(super) fn take(&mut self) -> Option<(u16, Bounce)> {
        let taken = self.free.pop();
        self.least_free = self.least_free.min(self.free.len());
        taken
    }

    /// Returns them when it has completed.
    pub(super) fn put(&mut self, token: u16, buffer: Bounce) {
        self.free.push((token, buffer));
    }

    /// Frees the memory of buffers that only a busy driver needs, if no operation is in flight: of all beyond those that are kept, and
    /// each time of one that has not been used since the last time. A driver that goes on as before finds its buffers allocated.
    pub(super) fn trim(&mut self) {
        if self.free.len() < self.operations {
            return;
        }
        let (unneeded, kept) = self.free.split_at_mut(self.operations.saturating_sub(KEPT_BUFFERS));
        let unused = self.least_free.saturating_sub(unneeded.len());
        let oldest = kept.iter_mut().take(unused).find(|(_, buffer)| buffer.is_allocated());
        for (_, buffer) in unneeded.iter_mut().chain(oldest) {
            *buffer = Bounce::default();
        }
        self.least_free = self.operations;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A busy time of a queue, with so many operations in flight at once.
    fn use_buffers(pool: &mut Pool, count: usize) {
        let taken: Vec<_> = (0..count).map_while(|_| pool.take()).collect();
        assert_eq!(taken.len(), count);
        // Not while they are in flight.
        pool.trim();
        for (token, mut buffer) in taken.into_iter().rev() {
            buffer.resize(1);
            pool.put(token, buffer);
        }
        pool.trim();
    }

    fn allocated(pool: &Pool) -> usize {
        pool.free.iter().filter(|(_, buffer)| buffer.is_allocated()).count()
    }

    #[test]
    fn buffers_in_use_are_kept_and_the_others_are_freed() {
        let mut pool = Pool::new(64);
        use_buffers(&mut pool, 64);
        assert!(pool.take().is_some() && !pool.is_empty());
        let mut pool = Pool::new(64);
        use_buffers(&mut pool, 64);
        assert_eq!(allocated(&pool), KEPT_BUFFERS);
        for _ in 0..100 {
            use_buffers(&mut pool, KEPT_BUFFERS);
            assert_eq!(allocated(&pool), KEPT_BUFFERS);
        }
        for left in (3..KEPT_BUFFERS).rev() {
            use_buffers(&mut pool, 3);
            assert_eq!(allocated(&pool), left);
        }
        use_buffers(&mut pool, 3);
        assert_eq!(allocated(&pool), 3);
    }

    #[test]
    fn a_pool_smaller_than_what_is_kept_is_trimmed_too() {
        let mut pool = Pool::new(4);
        use_buffers(&mut pool, 4);
        assert_eq!(allocated(&pool), 4);
        pool.trim();
        assert_eq!(allocated(&pool), 3);
    }
}
