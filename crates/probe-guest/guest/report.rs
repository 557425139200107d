//! The report: lines on the console, the last one the verdict.

use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicUsize, Ordering};

use crate::arch::{self, Console};
use crate::format::{Show, Sink};

/// Prints one line from parts that [`Show`] themselves.
macro_rules! say {
    ($($part:expr),+ $(,)?) => {
        $crate::report::line(&[$(&$part as &dyn $crate::format::Show),+])
    };
}
pub(crate) use say;

/// The processor that writes a line.
static WRITER: AtomicU32 = AtomicU32::new(NOBODY);
const NOBODY: u32 = u32::MAX;
/// Lines of handlers that have interrupted the writing of a line.
static LATE: Late = Late::new();

/// Prints a line as a whole, whoever else prints. May be called anywhere, in a handler too.
pub(crate) fn line(parts: &[&dyn Show]) {
    let own = arch::processor();
    let masked = arch::mask_interrupts();
    if take_turn(own) {
        write(parts, &mut Console);
        LATE.print();
        WRITER.store(NOBODY, Ordering::Release);
        // What came in the moment before.
        while !LATE.is_empty() && take_turn(own) {
            LATE.print();
            WRITER.store(NOBODY, Ordering::Release);
        }
    } else {
        // This is a handler of what cannot be masked: who was interrupted prints the line after its own.
        write(parts, &mut &LATE);
    }
    arch::unmask_interrupts(masked);
}

/// Waits until the console is free, and takes it; false where the processor has it already.
fn take_turn(own: u32) -> bool {
    loop {
        match WRITER.compare_exchange_weak(NOBODY, own, Ordering::AcqRel, Ordering::Acquire) {
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

/// Ends the report with a failure, and the machine with it. May be called anywhere, in a handler too.
pub(crate) fn fail(why: &dyn Show) -> ! {
    static FAILING: AtomicBool = AtomicBool::new(false);
    let is_first = !FAILING.swap(true, Ordering::Relaxed);
    if WRITER.load(Ordering::Relaxed) == arch::processor() {
        // Whatever line was interrupted never ends, and others need the console.
        Console.put(b'\n');
        WRITER.store(NOBODY, Ordering::Release);
    }
    if !is_first {
        arch::halt();
    }
    say!("failed ", why);
    arch::power::switch_off()
}

/// Characters that are kept for a while; what there is no room for is lost.
struct Late {
    bytes: [AtomicU8; 2048],
    len: AtomicUsize,
}

impl Late {
    const fn new() -> Self {
        Late { bytes: [const { AtomicU8::new(0) }; 2048], len: AtomicUsize::new(0) }
    }

    fn is_empty(&self) -> bool {
        self.len.load(Ordering::SeqCst) == 0
    }

    /// Prints and forgets them, also those that come meanwhile.
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

impl Sink for &Late {
    fn put(&mut self, byte: u8) {
        let len = self.len.load(Ordering::SeqCst);
        if let Some(slot) = self.bytes.get(len) {
            slot.store(byte, Ordering::Relaxed);
            self.len.store(len + 1, Ordering::SeqCst);
        }
    }
}
