//! The report: lines on the console, the last one the verdict.

use core::sync::atomic::{AtomicBool, Ordering};

use crate::arch::{self, Console};
use crate::format::{Show, Sink};

/// Prints one line from parts that [`Show`] themselves.
macro_rules! say {
    ($($part:expr),+ $(,)?) => {
        $crate::report::line(&[$(&$part as &dyn $crate::format::Show),+])
    };
}
pub(crate) use say;

pub(crate) fn line(parts: &[&dyn Show]) {
    let console = &mut Console;
    "probe: ".show(console);
    for part in parts {
        part.show(console);
    }
    console.put(b'\n');
}

/// Ends the report with a failure, and the machine with it. May be called anywhere, in a handler too.
pub(crate) fn fail(why: &dyn Show) -> ! {
    static FAILING: AtomicBool = AtomicBool::new(false);
    if FAILING.swap(true, Ordering::Relaxed) {
        arch::halt();
    }
    say!("failed ", why);
    arch::power::switch_off()
}
