//! The report: lines on the console. The last one is the result.

use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicUsize, Ordering};

use crate::arch::{self, Console};
use crate::format::{Show, Sink};

/// Prints one line from parts that implement [`Show`].
macro_rules! say {
    ($($part:expr),+ $(,)?) => {
        $crate::report::line(&[$(&$part as &dyn $crate::format::Show),+])
    };
}
pub(crate) use say;

/// The processor that is printing a line.
static WRITER: AtomicU32 = AtomicU32::new(NO_PROCESSOR);
const NO_PROCESSOR: u32 = u32::MAX;
/// Lines of handlers that interrupted the printing of a line on the same processor.
static DEFERRED: Deferred = Deferred::new();

/// Prints a line without interleaving with other processors. Safe to call from any handler.
pub(crate) fn line(parts: &[&dyn Show]) {
    let own = arch::processor();
    let masked = arch::mask_interrupts();
    if acquire_console(own) {
        write(parts, &mut Console);
        DEFERRED.print();
        WRITER.store(NO_PROCESSOR, Ordering::Release);
        // A handler may have deferred a line between printing and the release.
        while !DEFERRED.is_empty() && acquire_console(own) {
            DEFERRED.print();
            WRITER.store(NO_PROCESSOR, Ordering::Release);
        }
    } else {
        // This handler, of a non-maskable event, interrupted `line` on this processor, which prints the line afterwards.
        write(parts, &mut &DEFERRED);
    }
    arch::unmask_interrupts(masked);
}

/// Waits until the console is free and acquires it. Returns false if this processor holds it already.
fn acquire_console(own: u32) -> bool {
    loop {
        match WRITER.compare_exchange_weak(NO_PROCESSOR, own, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => return true,
            Err(writer) if writer == own => return false,
            Err(_) => core::hint::spin_loop(),
        }
    }
}

fn write(parts: &[&dyn Show], out: &mut dyn Sink) {
    "probe: ".show(out);
    for part in parts {
        part.show(out);
    }
    out.put(b'\n');
}

/// Prints a failure as the end of the report and switches the machine off. Safe to call from any handler.
pub(crate) fn fail(why: &dyn Show) -> ! {
    static FAILING: AtomicBool = AtomicBool::new(false);
    let is_first = !FAILING.swap(true, Ordering::Relaxed);
    if WRITER.load(Ordering::Relaxed) == arch::processor() {
        // The interrupted line will not be completed. Release the console.
        Console.put(b'\n');
        WRITER.store(NO_PROCESSOR, Ordering::Release);
    }
    if !is_first {
        arch::halt();
    }
    say!("failed ", why);
    arch::power::switch_off()
}

/// A buffer for characters; those that exceed its capacity are dropped.
struct Deferred {
    bytes: [AtomicU8; 2048],
    len: AtomicUsize,
}

impl Deferred {
    const fn new() -> Self {
        Deferred { bytes: [const { AtomicU8::new(0) }; 2048], len: AtomicUsize::new(0) }
    }

    fn is_empty(&self) -> bool {
        self.len.load(Ordering::SeqCst) == 0
    }

    /// Prints and removes all characters, including those added while it runs.
    fn print(&self) {
        let mut printed = 0;
        loop {
            let len = self.len.load(Ordering::SeqCst);
            for byte in self.bytes.iter().take(len).skip(printed) {
                Console.put(byte.load(Ordering::Relaxed));
            }
            printed = len;
            if self.len.compare_exchange(len, 0, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
                return;
            }
        }
    }
}

impl Sink for &Deferred {
    fn put(&mut self, byte: u8) {
        let len = self.len.load(Ordering::SeqCst);
        if let Some(slot) = self.bytes.get(len) {
            slot.store(byte, Ordering::Relaxed);
            self.len.store(len + 1, Ordering::SeqCst);
        }
    }
}
