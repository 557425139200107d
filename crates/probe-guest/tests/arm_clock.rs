//! Date conversion of the aarch64 guest, whose clock counts seconds, run on the host.

#[path = "../guest/date.rs"]
mod date;
#[path = "../guest/failure.rs"]
#[allow(dead_code, reason = "only success and failure matter here")]
mod failure;
#[path = "../guest/format.rs"]
#[allow(dead_code, reason = "only dates are shown; an expectation does not see traits")]
mod format;
#[path = "../guest/aarch64/unix_time.rs"]
mod unix_time;

use date::Date;
use format::{Show, Sink};

/// Expected values are from `date -u`.
#[test]
fn seconds_are_converted_to_dates() {
    struct Written(String);

    impl Sink for Written {
        fn put(&mut self, byte: u8) {
            self.0.push(byte.into());
        }
    }

    let shown = |seconds: u32| {
        let date: Date = unix_time::date(seconds);
        assert_eq!(date.check(), Ok(()));
        let mut written = Written(String::new());
        date.show(&mut written);
        written.0
    };
    assert_eq!(shown(0), "1970-01-01T00:00:00");
    assert_eq!(shown(951_782_399), "2000-02-28T23:59:59");
    assert_eq!(shown(951_782_400), "2000-02-29T00:00:00");
    assert_eq!(shown(978_307_199), "2000-12-31T23:59:59");
    assert_eq!(shown(1_709_251_199), "2024-02-29T23:59:59");
    assert_eq!(shown(u32::MAX), "2106-02-07T06:28:15");
}
