//! The vendor identification in the tables of the tests and in `tests/golden`.

use firmware_tables::OemInfo;

pub(crate) const OEM: OemInfo<'static> = OemInfo {
    oem_id: *b"GHEST ",
    oem_table_id: *b"GHESTVMM",
    oem_revision: 1,
    creator_id: *b"GHST",
    creator_revision: 1,
    hypervisor_vendor: *b"GHEST\0\0\0",
    firmware_vendor: "Ghesthouse",
    firmware_revision: 1,
    model: "ghest",
    compatible: &["linux,dummy-virt"],
    mp_oem_id: *b"GHEST   ",
    mp_product_id: *b"GHEST VMM   ",
};
