//! Where error records go, in whichever language the guest is told of it.

use platform::Platform;
use ras_core::RecordArea;

use crate::{BuildError, Table};

/// The records of all sources, in the platform's room for them.
pub(crate) fn lay_out(tables: &'static str, platform: &Platform) -> Result<RecordArea, BuildError> {
    // Without room there are no bytes, and the layout tells how many are missing.
    let (base, available) = platform.memory.records.map_or((0, 0), |room| (room.start, room.len));
    RecordArea::lay_out(base, available, &platform.error_sources)
        .map_err(|reason| BuildError::ErrorRecords { tables, reason })
}

/// The error records before the first error. Tables lead to them: they are no table of their own.
pub(crate) fn table(area: &RecordArea) -> Table {
    Table {
        name: "error-records",
        file_name: "error-records.bin",
        gpa: area.gpa(),
        bytes: area.initial_bytes(),
    }
}

/// Whether a device has that interrupt. Every device has its interrupts for itself alone, as its resources say.
pub(crate) fn is_taken(platform: &Platform, gsi: u32) -> bool {
    platform.devices.iter().flat_map(|device| &device.interrupts).any(|interrupt| interrupt.gsi == gsi)
}
