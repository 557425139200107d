//! A rate limit with bursts: the generic cell rate algorithm (ITU-T I.371), which is a token bucket without a timer.

use std::time::{Duration, Instant};

/// Permits a burst, and after it one more for each interval that has passed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RateLimit {
    interval: Duration,
    burst: u32,
    /// When the bucket is full again.
    full_at: Option<Instant>,
}

impl RateLimit {
    /// A limit that has permitted nothing yet.
    #[must_use]
    pub(crate) const fn new(burst: u32, interval: Duration) -> Self {
        RateLimit { interval, burst, full_at: None }
    }

    /// Whether one more is permitted at this time, which is then taken.
    pub(crate) fn permits(&mut self, now: Instant) -> bool {
        let full_at = self.full_at.map_or(now, |time| time.max(now));
        let is_permitted = full_at.duration_since(now) + self.interval <= self.interval * self.burst;
        if is_permitted {
            self.full_at = Some(full_at + self.interval);
        }
        is_permitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_permitted_and_then_one_for_each_interval() {
        let start = Instant::now();
        let mut limit = RateLimit::new(3, Duration::from_secs(2));
        let mut permitted = |seconds: u64, attempts: usize| {
            let now = start + Duration::from_secs(seconds);
            (0..attempts).filter(|_| limit.permits(now)).count()
        };
        assert_eq!(permitted(0, 100), 3);
        assert_eq!(permitted(1, 100), 0);
        assert_eq!(permitted(2, 100), 1);
        assert_eq!(permitted(6, 100), 2);
        assert_eq!(permitted(1000, 100), 3);
    }
}
