//! The boot error record (ACPI 6.5, 18.3.1): what a boot finds of the error that ended the one before.

use std::time::{SystemTime, UNIX_EPOCH};

use ras_core::{Kind, MemoryBlocks, MemoryReport, Severity, Span};

use super::PART_NAME;

/// Bytes of a status block with as many entries as one has.
const MAX_LEN: usize = 4096;

/// The status block of an error of a boot that ends now. Of more pages than a block can report it has the first ones.
#[must_use]
pub fn boot_record(span: Span, kind: Kind, severity: Severity, number: u64) -> Vec<u8> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let report = MemoryReport::uncorrected(kind, now, number).with_severity(severity).with_part(PART_NAME);
    let mut block = vec![0; MAX_LEN];
    // Cannot fail: the block has space for one entry. It would be empty, which is no record.
    let len = MemoryBlocks::new(span, report).write_next(&mut block).unwrap_or_default();
    block.truncate(len);
    block
}
