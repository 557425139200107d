//! The vendor of the machines that the tests describe.

use firmware_tables::OemInfo;

pub(crate) const OEM: OemInfo<'static> = OemInfo {
    oem_id: *b"TEST  ",
    oem_table_id: *b"TESTVM  ",
    oem_revision: 1,
    creator_id: *b"TEST",
    creator_revision: 1,
    hypervisor_vendor: *b"TESTVMM\0",
    firmware_vendor: "Test",
    firmware_revision: 1,
    model: "test",
    compatible: &["linux,dummy-virt"],
    mp_oem_id: *b"TEST    ",
    mp_product_id: *b"TEST VM     ",
};
