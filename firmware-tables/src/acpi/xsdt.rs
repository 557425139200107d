//! XSDT: where the other tables are.

use super::header;

/// Extended System Description Table (ACPI 6.5, 5.2.8, table 5.8): the addresses of the tables, FADT first by custom.
pub(super) fn bytes(tables: impl Iterator<Item = u64>) -> Vec<u8> {
    let entries: Vec<u8> = tables.flat_map(u64::to_le_bytes).collect();
    header::table(*b"XSDT", 1, &entries)
}
