//! Limits of what a device does in a second: bytes and operations.
//!
//! A [`RateLimit`] belongs to a device, and each of its threads takes from it with a [`RateLimiter`] of its own. A request that
//! is refused waits for the limiter's timer (timerfd_create(2)), which the thread watches: nothing polls.
//!
//! Each limit is a token bucket that holds the tokens of [`BURST`]. A request is admitted while its buckets are not empty, and
//! takes all its tokens at once: one that is larger than a bucket leaves it in debt, which the next requests wait for. Over time
//! a device gets what its limits say, whatever the size of its requests.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use machine_profile::device_kind::RateLimits;
use vmm_sys_util::timerfd::TimerFd;

/// What a device that was idle may do at once: what its limits permit in this time.
pub const BURST: Duration = Duration::from_millis(100);

/// The limits of a device, which its threads share.
#[derive(Debug)]
pub struct RateLimit {
    start: Instant,
    buckets: Mutex<Buckets>,
}

impl RateLimit {
    /// Limits whose buckets are full.
    #[must_use]
    pub fn new(limits: RateLimits) -> Self {
        RateLimit { start: Instant::now(), buckets: Mutex::new(Buckets::new(limits)) }
    }

    fn take(&self, bytes: u64) -> Result<(), Duration> {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        buckets.take(self.start.elapsed(), bytes)
    }
}

/// A thread's access to a [`RateLimit`]. Its descriptor is readable once a refused request may be tried again.
pub struct RateLimiter {
    limit: Arc<RateLimit>,
    timer: TimerFd,
}

impl RateLimiter {
    /// # Errors
    /// Returns an error if timerfd_create(2) fails.
    pub fn new(limit: Arc<RateLimit>) -> io::Result<Self> {
        Ok(RateLimiter { limit, timer: TimerFd::new()? })
    }

    /// Takes the tokens of a request with `bytes` of data. False if there are none now: the timer then runs until there can be,
    /// and the request is to be tried again.
    ///
    /// # Errors
    /// Returns an error if timerfd_settime(2) fails.
    pub fn admits(&mut self, bytes: u64) -> io::Result<bool> {
        let refused = self.limit.take(bytes);
        // This also makes a timer that has expired unreadable.
        self.timer.reset(refused.err().unwrap_or_default(), None)?;
        Ok(refused.is_ok())
    }
}

impl AsRawFd for RateLimiter {
    fn as_raw_fd(&self) -> RawFd {
        self.timer.as_raw_fd()
    }
}

#[derive(Debug)]
struct Buckets {
    bytes: Option<Bucket>,
    operations: Option<Bucket>,
}

/// A token bucket, kept as the time at which everything that was taken from it is refilled.
#[derive(Debug)]
struct Bucket {
    /// Tokens that are refilled in a second.
    rate: u64,
    full: Duration,
}

impl Buckets {
    fn new(limits: RateLimits) -> Self {
        let bucket = |rate| Bucket { rate, full: Duration::ZERO };
        Buckets {
            bytes: limits.bandwidth.map(bucket),
            operations: limits.operations.map(u64::from).map(bucket),
        }
    }

    /// Takes the tokens of an operation. Fails with the time, never zero, after which neither bucket is empty.
    fn take(&mut self, now: Duration, bytes: u64) -> Result<(), Duration> {
        let buckets = [&self.bytes, &self.operations].into_iter().flatten();
        let wait = buckets.map(|bucket| bucket.empty_for(now)).max().unwrap_or_default();
        if !wait.is_zero() {
            return Err(wait);
        }
        for (bucket, tokens) in [(&mut self.bytes, bytes), (&mut self.operations, 1)] {
            if let Some(bucket) = bucket {
                bucket.take(now, tokens);
            }
        }
        Ok(())
    }
}

impl Bucket {
    /// How long it has no token.
    fn empty_for(&self, now: Duration) -> Duration {
        self.full.saturating_sub(now + BURST)
    }

    fn take(&mut self, now: Duration, tokens: u64) {
        let nanoseconds = (u128::from(tokens) * 1_000_000_000).div_ceil(u128::from(self.rate.max(1)));
        let refilled = Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX));
        self.full = self.full.max(now).saturating_add(refilled);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(bandwidth: Option<u64>, operations: Option<u32>) -> Buckets {
        Buckets::new(RateLimits { bandwidth, operations })
    }

    /// The time at which `requests` of `bytes` each are admitted, if each is tried when the one before it says.
    fn duration(buckets: &mut Buckets, requests: u32, bytes: u64) -> Duration {
        let mut now = Duration::ZERO;
        for _ in 0..requests {
            while let Err(wait) = buckets.take(now, bytes) {
                assert!(!wait.is_zero());
                now += wait;
            }
        }
        now
    }

    #[test]
    fn operations_are_admitted_at_their_rate_after_a_burst() {
        // 100 in the first burst and one that empties the bucket, then 1000 a second.
        let took = duration(&mut limits(None, Some(1000)), 1101, 1 << 20);
        assert_eq!(took, Duration::from_secs(1));
    }

    #[test]
    fn requests_larger_than_the_bucket_are_admitted_at_the_rate_of_their_bytes() {
        let rate = 1 << 20;
        // The last one is admitted when those before it are paid for, but for the burst.
        let took = duration(&mut limits(Some(rate), None), 11, rate);
        assert_eq!(took, Duration::from_secs(10) - BURST);
    }

    #[test]
    fn the_stricter_limit_decides() {
        let both = |bytes| duration(&mut limits(Some(1 << 20), Some(1000)), 2001, bytes);
        assert_eq!(both(0), Duration::from_secs(2) - BURST);
        assert_eq!(both(1 << 20), Duration::from_secs(2000) - BURST);
    }

    #[test]
    fn an_idle_device_saves_no_more_than_a_burst() {
        let mut buckets = limits(None, Some(10));
        let later = Duration::from_secs(3600);
        assert_eq!(buckets.take(later, 0), Ok(()));
        assert_eq!(buckets.take(later, 0), Ok(()));
        assert_eq!(buckets.take(later, 0), Err(Duration::from_millis(100)));
    }

    #[test]
    fn no_rate_and_no_size_overflows() {
        let mut buckets = limits(Some(1), Some(1));
        assert_eq!(buckets.take(Duration::ZERO, u64::MAX), Ok(()));
        assert!(buckets.take(Duration::from_secs(1 << 32), u64::MAX).is_err());
    }

    #[test]
    fn the_timer_is_readable_when_a_request_may_be_tried_again() {
        let limit = Arc::new(RateLimit::new(RateLimits { bandwidth: Some(1 << 20), operations: None }));
        let mut limiter = RateLimiter::new(limit).expect("a timer");
        assert!(limiter.admits(200 << 10).expect("a timer"));
        // In debt for another tenth of a second.
        assert!(!limiter.admits(1).expect("a timer"));
        while !limiter.admits(1).expect("a timer") {
            // Blocks until the timer expires.
            assert_eq!(limiter.timer.wait().expect("a timer"), 1);
        }
    }
}
