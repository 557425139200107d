//! The cost of a record. Times depend on the machine: each is the minimum of many runs.

mod minimum;

use std::hint::black_box;

use minimum::minimum_ns;
use ras_core::{Decoded, Kind, MemoryBlocks, MemoryReport, Span};

fn main() {
    let mut bytes = [0; 0x1000];
    let report = MemoryReport::uncorrected(Kind::ActionRequired, 1_786_270_272, 17);
    for (name, log2_len) in [("one page", 12), ("sixteen pages", 16)] {
        let span = Span::around(0x4020_0000, log2_len);
        let time = minimum_ns(|| MemoryBlocks::new(black_box(span), report).write_next(&mut bytes));
        println!("encode {name:16} {:>8.1} ns", time);
        let time = minimum_ns(|| Decoded::read(black_box(&bytes)).is_ok());
        println!("decode {name:16} {:>8.1} ns", time);
    }
}
