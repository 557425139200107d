//! Values of sections of CCIX and CXL components: bytes by hand, from the tables of the specifications.

use crate::cper_bytes::put;
use crate::every_section::{assert_values, bytes};
use crate::section_bytes::guid;

#[test]
fn ccix_and_cxl_protocol_errors() {
    let mut body = bytes(&[(4, 20), (8, 7), (1, 9), (1, 3), (2, 0), (4, 0xaabb_ccdd)]);
    assert_values(
        guid("91335ef6-ebfb-4478-a6a6-88b728cf75d7"),
        body.clone(),
        &[("source_id", &["9"]), ("port_id", &["3"]), ("per_log", &["ddccbbaa"])],
    );
    // Without its bit, the log is not shown.
    body[4] = 3;
    assert_values(
        guid("91335ef6-ebfb-4478-a6a6-88b728cf75d7"),
        body,
        &[("per_log", &[]), ("invalid_per_log_bytes", &["4"])],
    );

    // A CXL device at 0002:3a:1f.1; its log is a RAS capability.
    let mut body = bytes(&[(8, 0x7f), (1, 2), (7, 0), (1, 1), (1, 0x1f), (1, 0x3a), (2, 2), (3, 0)]);
    put(&mut body, &[(2, 0x1e98), (2, 0x20), (2, 1), (2, 2), (2, 0x0502), (2, 4 << 3), (4, 0), (8, 0x55)]);
    body.resize(108, 0);
    put(&mut body, &[(2, 2), (2, 88), (4, 0), (2, 0xbeef), (4, 1 << 10), (4, 0), (4, 0), (4, 1 << 2)]);
    body.resize(116 + 2 + 88, 0);
    assert_values(
        guid("80b9efb4-52b5-4de3-a777-68784b771048"),
        body,
        &[
            ("agent_type", &["CXL device"]),
            ("segment", &["2"]),
            ("bus", &["58"]),
            ("subsystem_id", &["0x2"]),
            ("class_code", &["0x502"]),
            ("slot", &["4"]),
            ("serial_number", &["0x55"]),
            ("dvsec", &["efbe"]),
            ("uncorrectable_errors", &["poison-received"]),
            ("correctable_errors", &["crc-threshold"]),
        ],
    );
}

/// The header of a CXL event section, and that of its event.
fn event() -> Vec<u8> {
    let mut body = bytes(&[(4, 144), (8, 7), (2, 0x1e98), (2, 0x20), (1, 0), (1, 1), (1, 0x3a), (2, 0)]);
    put(&mut body, &[(2, 6 << 3), (1, 0), (8, 0x77)]);
    // Failure, maintenance needed.
    put(&mut body, &[(1, 128), (3, 2 | 1 << 3), (2, 5), (2, 4), (8, 1_700_000_000), (1, 1), (1, 0)]);
    body.resize(64, 0);
    body
}

#[test]
fn cxl_events() {
    let mut body = event();
    put(&mut body, &[(8, 0x10_0000_0001), (1, 1), (1, 4), (1, 5), (2, 0b1_0111), (1, 2), (1, 3), (3, 4)]);
    body.resize(144, 0);
    assert_values(
        guid("fbcd0a77-c260-417f-85a9-088b1621eba6"),
        body,
        &[
            ("slot", &["6"]),
            ("serial_number", &["0x77"]),
            ("event_length", &["128"]),
            ("handle", &["0x5"]),
            ("timestamp_ns", &["1700000000"]),
            ("device_physical_address", &["0x1000000001"]),
            ("address_flags", &["volatile"]),
            ("descriptor", &["uncorrectable"]),
            ("error_type", &["scrub media ECC error"]),
            ("transaction", &["internal media scrub"]),
            ("component_id_is_pldm", &["yes"]),
            ("channel", &["2"]),
            ("rank", &["3"]),
            ("device", &["1", "040000"]),
            ("component_id", &[]),
        ],
    );

    let mut body = event();
    put(&mut body, &[(8, 0x2000), (1, 1), (1, 0), (1, 1), (2, 0x7f), (1, 2), (1, 3), (3, 7), (1, 4), (1, 5)]);
    put(&mut body, &[(3, 70_000), (2, 9)]);
    body.resize(144, 0);
    assert_values(
        guid("601dcbb3-9c06-4eab-b8af-4e9bfb5c9624"),
        body,
        &[
            ("error_type", &["media ECC error"]),
            ("transaction", &["host read"]),
            ("nibble_mask", &["070000"]),
            ("bank_group", &["4"]),
            ("bank", &["5"]),
            ("row", &["70000"]),
            ("column", &["9"]),
            ("correction_mask", &[]),
        ],
    );

    let mut body = event();
    put(&mut body, &[(1, 3), (1, 0b11), (1, 3), (1, 0), (1, 42), (2, 0xfff6), (4, 1), (4, 2), (4, 3)]);
    body.resize(144, 0);
    assert_values(
        guid("fe927475-dd59-4339-a586-79bab113b774"),
        body,
        &[
            ("event_type", &["temperature change"]),
            ("health_status", &["maintenance-needed, performance-degraded"]),
            ("media_status", &["all data lost"]),
            ("life_used_percent", &["42"]),
            ("temperature", &["0xfff6"]),
            ("dirty_shutdowns", &["1"]),
            ("corrected_persistent_errors", &["3"]),
        ],
    );

    let mut body = event();
    put(
        &mut body,
        &[(1, 2), (1, 1), (1, 2), (1, 0), (2, 0x3f), (6, 0), (2, 3), (1, 1), (1, 2), (3, 0), (1, 4)],
    );
    body.resize(144, 0);
    assert_values(
        guid("e71f3a40-2d29-4092-8a39-4d1c966c7c65"),
        body,
        &[("resources_available", &["3"]), ("channel", &["1"]), ("bank_group", &["4"])],
    );

    // Of a switch: its body is not decoded.
    let mut body = event();
    body.resize(144, 0x11);
    assert_values(
        guid("77cf9271-9c02-470b-9fe4-bc7b75f2da97"),
        body,
        &[("data", &["11".repeat(80).as_str()])],
    );
    // Another length than that of an event record.
    let mut body = event();
    body.truncate(40);
    body[0] = 40;
    assert_values(
        guid("77cf9271-9c02-470b-9fe4-bc7b75f2da97"),
        body,
        &[("event_log", &["800a000005000400"])],
    );
}
