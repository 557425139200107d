//! Writes the record of poisoned pages, as a VMM writes it for its guest, and decodes it.
//!
//! `cargo run -p ras-core --example record`

use ras_core::acceptance::linux_accepts;
use ras_core::{
    Description, ErrorSource, Kind, MemoryBlocks, MemoryReport, Notification, RecordArea, Span, StatusBlock,
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Before the guest starts, its records are laid out.
    let sources = [
        ErrorSource { id: 0, notification: Notification::Sea },
        ErrorSource { id: 1, notification: Notification::Gsiv },
    ];
    let area = RecordArea::lay_out(0x4010_0000, 1 << 20, &sources)?;
    let slot = area.slot(0).ok_or("the first source has a slot")?;

    // A vCPU consumed poisoned memory: the host reports its address and size (here 8 KiB).
    let poisoned = Span::around(0x5234_5678, 13);
    let report = MemoryReport::uncorrected(Kind::ActionRequired, 1_786_270_272, 17);
    let mut bytes = vec![0; slot.block_len as usize];
    let len = MemoryBlocks::new(poisoned, report).write_next(&mut bytes)?;
    println!("{len} bytes for the block at {:#x}:\n", slot.block_gpa);

    print!("{}", Description::of_block(&StatusBlock::read(&bytes)?));

    let outcome = linux_accepts(&bytes, slot.block_len, slot.source.notification)?;
    println!("\nA Linux guest {outcome}.");
    Ok(())
}
