//! Builds the record of a poisoned page, as a VMM would hand it to its guest, and reads it back.
//!
//! `cargo run -p ras-core --example record`

use ras_core::acceptance::linux_accepts;
use ras_core::{
    Description, ErrorSource, Kind, MemoryBlocks, MemoryReport, Notification, RecordArea, Span, StatusBlock,
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Before the guest starts: where its records will lie.
    let sources = [
        ErrorSource { id: 0, notification: Notification::Sea },
        ErrorSource { id: 1, notification: Notification::Gsiv },
    ];
    let area = RecordArea::lay_out(0x4010_0000, 1 << 20, &sources)?;
    let slot = area.slot(0).ok_or("the first source has a slot")?;

    // A vCPU touched memory that the host lost: the host says where, and how much (here 8 KiB).
    let lost = Span::around(0x5234_5678, 13);
    let report = MemoryReport::uncorrected(Kind::ActionRequired, 1_786_270_272, 17);
    let mut bytes = vec![0; slot.block_len as usize];
    let len = MemoryBlocks::new(lost, report).write_next(&mut bytes)?;
    println!("{len} bytes for the block at {:#x}:\n", slot.block_gpa);

    print!("{}", Description::of_block(&StatusBlock::read(&bytes)?));

    let verdict = linux_accepts(&bytes, slot.block_len, slot.source.notification)?;
    println!("\nA Linux guest {verdict}.");
    Ok(())
}
