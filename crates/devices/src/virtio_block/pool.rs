//! The tokens of a queue's operations, each with its buffer.

use super::bounce::Bounce;

/// Tokens and buffers of operations that can begin.
pub(super) struct Pool {
    /// The last is the next one: few buffers are used if few are needed.
    free: Vec<(u16, Bounce)>,
    operations: usize,
    /// The least number of free ones since the last [`trim`](Self::trim): so many at the start were not used.
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

    /// Frees the memory of buffers that were not used since the last time. Returns whether others have memory.
    pub(super) fn trim(&mut self) -> bool {
        for (_, buffer) in self.free.iter_mut().take(self.least_free) {
            *buffer = Bounce::default();
        }
        self.least_free = self.free.len();
        self.has_buffers()
    }

    /// Whether buffers have memory, or are used.
    pub(super) fn has_buffers(&self) -> bool {
        self.free.len() < self.operations || self.free.iter().any(|(_, buffer)| buffer.is_allocated())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A time of a queue with so many operations in flight at once.
    fn use_buffers(pool: &mut Pool, count: usize) {
        let taken: Vec<_> = (0..count).map_while(|_| pool.take()).collect();
        assert_eq!(taken.len(), count);
        for (token, mut buffer) in taken.into_iter().rev() {
            buffer.resize(1).unwrap();
            pool.put(token, buffer);
        }
    }

    fn allocated(pool: &Pool) -> usize {
        pool.free.iter().filter(|(_, buffer)| buffer.is_allocated()).count()
    }

    #[test]
    fn buffers_that_were_not_used_are_freed() {
        let mut pool = Pool::new(64);
        assert!(!pool.has_buffers());
        use_buffers(&mut pool, 64);
        assert!(pool.trim());
        assert_eq!(allocated(&pool), 64);
        use_buffers(&mut pool, 3);
        assert!(pool.trim());
        assert_eq!(allocated(&pool), 3);
        assert!(!pool.trim());
        assert_eq!(allocated(&pool), 0);
    }

    #[test]
    fn a_buffer_in_use_stays() {
        let mut pool = Pool::new(4);
        use_buffers(&mut pool, 4);
        pool.trim();
        let (token, buffer) = pool.take().unwrap();
        assert!(pool.trim());
        assert!(pool.trim());
        assert_eq!((allocated(&pool), buffer.is_allocated()), (0, true));
        pool.put(token, buffer);
        assert!(pool.trim());
        assert!(!pool.trim());
    }
}
