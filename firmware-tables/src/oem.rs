//! The identification strings of a machine's vendor.

/// The vendor's identification in every kind of table. The caller chooses all of it; this crate has no values of its own.
///
/// ```
/// use firmware_tables::OemInfo;
///
/// const OEM: OemInfo<'static> = OemInfo {
///     oem_id: *b"ACME  ",
///     oem_table_id: *b"ACMEVM  ",
///     oem_revision: 1,
///     creator_id: *b"ACME",
///     creator_revision: 1,
///     hypervisor_vendor: *b"ACMEVMM\0",
///     firmware_vendor: "Acme",
///     firmware_revision: 1,
///     model: "acme,vm",
///     compatible: &["linux,dummy-virt"],
///     mp_oem_id: *b"ACME    ",
///     mp_product_id: *b"ACME VM     ",
/// };
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OemInfo<'a> {
    /// OEMID of the ACPI tables (ACPI 6.5, 5.2.6, table 5.4).
    pub oem_id: [u8; 6],
    /// OEM Table ID. The same in all tables, because FADT and XSDT must agree on it.
    pub oem_table_id: [u8; 8],
    /// OEM Revision.
    pub oem_revision: u32,
    /// Creator ID.
    pub creator_id: [u8; 4],
    /// Creator Revision.
    pub creator_revision: u32,
    /// Hypervisor Vendor Identity of the FADT (ACPI 6.5, 5.2.9, table 5.9).
    pub hypervisor_vendor: [u8; 8],
    /// FirmwareVendor of the EFI system table (UEFI 2.10, 4.3.1), without NUL.
    pub firmware_vendor: &'a str,
    /// FirmwareRevision of the EFI system table.
    pub firmware_revision: u32,
    /// `model` of the devicetree's root (Devicetree Specification 0.4, 2.3.2), without NUL.
    pub model: &'a str,
    /// `compatible` of the devicetree's root (Devicetree Specification 0.4, 2.3.1), most specific first, without NUL.
    /// Linux handles `linux,dummy-virt` as a machine without board code.
    pub compatible: &'a [&'a str],
    /// OEM ID of the MP configuration table (MultiProcessor Specification 1.4, 4.2), padded with spaces.
    pub mp_oem_id: [u8; 8],
    /// Product ID of the MP configuration table, padded with spaces.
    pub mp_product_id: [u8; 12],
}
