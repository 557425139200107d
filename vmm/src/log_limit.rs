//! The rate limit of the log: of each line in the source, only so many are written. A guest can cause any number of some of them,
//! and must not fill the host's disk.
//!
//! What is suppressed is counted. The journal's writer reports the counts.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing::callsite::Identifier;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use crate::rate::RateLimit;

/// Lines that are written at once, and the interval of those that follow.
const BURST: u32 = 50;
const INTERVAL: Duration = Duration::from_secs(1);
/// The same at the levels debug and trace, which nobody gets without asking for them.
const DEBUG_BURST: u32 = 1000;
const DEBUG_INTERVAL: Duration = Duration::from_millis(10);

/// How often suppressed lines are reported.
pub(crate) const REPORT_INTERVAL: Duration = Duration::from_secs(10);
/// The target of these reports, which are not limited.
const REPORT_TARGET: &str = "ghest::log";

/// The limit, as a layer of a subscriber.
#[derive(Clone, Copy, Debug, Default)]
pub struct LogLimit;

/// A line in the source that has logged something.
struct Site {
    limit: RateLimit,
    /// Lines since the last report that were not written.
    suppressed: u64,
    /// The message of the first of them.
    message: String,
}

/// The lines in the source.
static SITES: LazyLock<Mutex<HashMap<Identifier, Site>>> = LazyLock::new(Mutex::default);
/// Lines that were suppressed since the start of the process.
static TOTAL: AtomicU64 = AtomicU64::new(0);
/// Those of them that are reported.
static REPORTED: AtomicU64 = AtomicU64::new(0);
static LAST_REPORT: Mutex<Option<Instant>> = Mutex::new(None);

impl<S: Subscriber> Layer<S> for LogLimit {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let metadata = event.metadata();
        if metadata.target() == REPORT_TARGET {
            return true;
        }
        let mut sites = lock(&SITES);
        let site = sites.entry(metadata.callsite()).or_insert_with(|| Site::new(*metadata.level()));
        if site.limit.permits(Instant::now()) {
            return true;
        }
        if site.suppressed == 0 {
            event.record(&mut Message(&mut site.message));
        }
        site.suppressed += 1;
        TOTAL.fetch_add(1, Ordering::Relaxed);
        false
    }
}

impl Site {
    fn new(level: Level) -> Self {
        let limit = match level {
            Level::DEBUG | Level::TRACE => RateLimit::new(DEBUG_BURST, DEBUG_INTERVAL),
            _ => RateLimit::new(BURST, INTERVAL),
        };
        Site { limit, suppressed: 0, message: String::new() }
    }
}

/// Takes the message of a line.
struct Message<'a>(&'a mut String);

impl Visit for Message<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            *self.0 = format!("{value:?}");
        }
    }
}

/// Lines that were suppressed since the start of the process.
pub(crate) fn suppressed() -> u64 {
    TOTAL.load(Ordering::Relaxed)
}

/// Whether lines were suppressed since the last report.
pub(crate) fn has_suppressed() -> bool {
    suppressed() > REPORTED.load(Ordering::Relaxed)
}

/// Whether it is time for a report of suppressed lines.
pub(crate) fn is_report_due(now: Instant) -> bool {
    has_suppressed()
        && lock(&LAST_REPORT).is_none_or(|last| now.saturating_duration_since(last) >= REPORT_INTERVAL)
}

/// Logs how many lines were suppressed since the last report.
pub(crate) fn report() {
    *lock(&LAST_REPORT) = Some(Instant::now());
    // Collected first: other threads need the lock for every line that they log.
    let suppressed: Vec<(u64, String)> = lock(&SITES)
        .values_mut()
        .filter(|site| site.suppressed > 0)
        .map(|site| (std::mem::take(&mut site.suppressed), std::mem::take(&mut site.message)))
        .collect();
    for (lines, message) in suppressed {
        REPORTED.fetch_add(lines, Ordering::Relaxed);
        tracing::warn!(target: REPORT_TARGET, lines, "too many lines like this one, the others are not logged: {message}");
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;

    use tracing_subscriber::layer::SubscriberExt;
    use tracing_subscriber::{fmt, registry};

    use super::*;

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            lock(&self.0).extend(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_of_one_place_are_limited_and_the_others_are_counted() {
        let log = Log::default();
        let writer = log.clone();
        let lines = fmt::layer().with_ansi(false).with_writer(move || writer.clone());
        tracing::subscriber::with_default(registry().with(lines).with(LogLimit), || {
            for n in 0..100_000 {
                tracing::warn!(n, "a device needs a reset");
            }
            tracing::warn!("another place");
            report();
        });
        let text = String::from_utf8(lock(&log.0).clone()).expect("UTF-8");
        let written = text.matches(" a device needs a reset n=").count();
        // One more for each second that this takes.
        assert!((50..1000).contains(&written), "{text}");
        let report = format!(
            "like this one, the others are not logged: a device needs a reset lines={}",
            100_000 - written
        );
        assert!(text.contains(&report), "{text}");
        assert!(text.contains("another place"), "{text}");
        assert!(suppressed() >= 100_000 - written as u64 && !has_suppressed());
    }
}
