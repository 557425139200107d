//! XSDT: the addresses of the other tables.

use super::{AcpiTable, Body, version};

/// Extended System Description Table (ACPI 6.5, 5.2.8, table 5.8). Its body is [`body`], as it depends on
/// the addresses of all other tables.
pub(super) const TABLE: AcpiTable =
    AcpiTable { signature: *b"XSDT", name: "xsdt", file_name: "xsdt.aml", body: |_| Ok(None) };

/// The addresses of the tables, in this order.
pub(super) fn body(tables: &[u64]) -> Body {
    Body { revision: version::XSDT, bytes: tables.iter().flat_map(|gpa| gpa.to_le_bytes()).collect() }
}
