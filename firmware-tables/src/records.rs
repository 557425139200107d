//! Placement of error records, for every table set that describes error sources.

use platform::Platform;
use ras_core::RecordArea;
use ras_core::request::TableSet;

use crate::{BuildError, Table};

/// The records of all sources, in the platform's area for them.
pub(crate) fn lay_out(set: TableSet, platform: &Platform) -> Result<RecordArea, BuildError> {
    // Without an area, the layout fails with the number of bytes that are needed.
    let (base, available) = platform.memory.records.map_or((0, 0), |area| (area.start, area.len));
    RecordArea::lay_out(base, available, &platform.error_sources)
        .map_err(|reason| BuildError::ErrorRecords { set, reason })
}

/// The initial contents of the record area. Other tables point at them; they have no header of their own.
pub(crate) fn table(area: &RecordArea) -> Table {
    Table {
        name: "error-records",
        file_name: "error-records.bin",
        gpa: area.gpa(),
        bytes: area.initial_bytes(),
    }
}

/// Whether a device uses that interrupt. Devices describe their interrupts as exclusive.
pub(crate) fn is_taken(platform: &Platform, gsi: u32) -> bool {
    platform.devices.iter().flat_map(|device| &device.interrupts).any(|interrupt| interrupt.gsi == gsi)
}
