//! Values of sections of each type: bytes by hand, from the tables of the specifications.

use ras_core::Guid;

use crate::cper_bytes::{OneSection, put};
use crate::printed::values;
use crate::section_bytes::guid;

/// Little-endian fields: length in bytes, value.
pub(crate) fn bytes(fields: &[(usize, u64)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    put(&mut bytes, fields);
    bytes
}

/// Asserts the printed values of names in a record with that section.
pub(crate) fn assert_values(kind: Guid, body: Vec<u8>, expected: &[(&str, &[&str])]) {
    let record = OneSection::new(kind, body).bytes();
    for (name, values_of_name) in expected {
        assert_eq!(values(&record, name), *values_of_name, "{name}");
    }
    assert_eq!(values(&record, "broken"), [""; 0]);
    assert_eq!(values(&record, "bytes_behind"), [""; 0]);
}

#[test]
fn memory_error_2() {
    let mut body = bytes(&[(8, (1 << 22) - 1), (8, 0x400), (8, 0x1234_5000), (8, !0xfff)]);
    put(&mut body, &[(2, 1), (2, 2), (2, 3), (2, 0x0405), (4, 6), (4, 70_000), (4, 8), (4, 9), (4, 10)]);
    put(&mut body, &[(1, 11), (1, 3), (1, 1), (1, 0), (8, 12), (8, 13), (8, 14), (4, 15), (4, 16)]);
    assert_values(
        guid("61ec04fc-48e6-d813-25c9-8daa44750b12"),
        body,
        &[
            ("error_status_type", &["storage error in memory"]),
            ("physical_address", &["0x12345000"]),
            ("module", &["3"]),
            ("bank", &["1029"]),
            ("bank_group", &["4"]),
            ("bank_address", &["5"]),
            ("row", &["70000"]),
            ("rank", &["9"]),
            ("bit_position", &["10"]),
            ("chip", &["11"]),
            ("error_type", &["multi-bit ECC"]),
            ("status", &["not-corrected"]),
            ("target_id", &["0xe"]),
            ("card_handle", &["15"]),
            ("module_handle", &["16"]),
        ],
    );
}

#[test]
fn pcie_error() {
    let mut body = bytes(&[(8, 0xff), (4, 4), (4, 0x0301), (4, 0x0010_0547), (4, 0)]);
    // Vendor, device, class, function, device, segment, buses, slot, reserved.
    put(&mut body, &[(2, 0x8086), (2, 0x2030), (3, 0x06_0400), (1, 1), (1, 0x1f), (2, 2), (1, 0x3a)]);
    put(&mut body, &[(1, 0x3b), (2, 5 << 3), (1, 0), (8, 0x1122), (4, 0x0002_0004)]);
    let mut capability = bytes(&[(1, 0x10), (1, 0x90), (2, 0x42), (4, 0x8001), (2, 0x2f), (2, 0x5)]);
    capability.resize(60, 0);
    body.extend(capability);
    let aer =
        bytes(&[(4, 0x1402_0001), (4, 1 << 12 | 1 << 18), (4, 0), (4, 0x46_2030), (4, 1 << 6), (4, 0x2000)]);
    body.extend(aer);
    put(&mut body, &[(4, 0xb2), (8, 0x0102_0304), (8, 0), (4, 7), (4, 0x7f), (2, 0x3a00), (2, 0x3b00)]);
    body.resize(208, 0);
    assert_values(
        guid("d995e954-bbc1-430f-ad91-b44dcb3c6f35"),
        body,
        &[
            ("port_type", &["root port"]),
            ("version", &["0x301"]),
            ("command", &["0x547"]),
            ("status", &["0x10"]),
            ("vendor_id", &["0x8086"]),
            ("device_id", &["0x2030"]),
            ("class_code", &["0x60400"]),
            ("function", &["1"]),
            ("device", &["31"]),
            ("segment", &["2"]),
            ("bus", &["58"]),
            ("secondary_bus", &["59"]),
            ("slot", &["5"]),
            ("serial_number", &["0x1122"]),
            ("bridge_secondary_status", &["0x4"]),
            ("bridge_control", &["0x2"]),
            ("device_status_flags", &["correctable-error, fatal-error"]),
            ("uncorrectable_status", &["0x41000"]),
            ("uncorrectable_errors", &["poisoned-tlp, malformed-tlp"]),
            ("uncorrectable_severity", &["0x462030"]),
            ("correctable_errors", &["bad-tlp"]),
            ("header_log", &["04030201000000000000000000000000"]),
            ("correctable_source", &["0x3a00"]),
        ],
    );
}

#[test]
fn pci_bus_and_device_errors() {
    let mut body = bytes(&[(8, 0x1ff), (8, 0x16 << 8), (2, 3), (2, 0x0207), (4, 0)]);
    put(&mut body, &[(8, 0x1000), (8, 0x2000), (8, 1 << 56), (8, 4), (8, 5), (8, 6)]);
    assert_values(
        guid("c5753963-3b84-4095-bf78-eddad3f9c9dd"),
        body,
        &[
            ("error_status_type", &["bus parity error"]),
            ("error_type", &["master abort"]),
            ("bus", &["7"]),
            ("segment", &["2"]),
            ("bus_address", &["0x1000"]),
            ("bus_command", &["0x100000000000000"]),
            ("target_id", &["0x6"]),
        ],
    );

    let mut body =
        bytes(&[(8, 0x1f), (8, 0), (2, 0x10ec), (2, 0x8168), (3, 0x02_0000), (1, 1), (1, 2), (1, 3)]);
    put(&mut body, &[(1, 4), (5, 0), (4, 1), (4, 2)]);
    put(&mut body, &[(8, 0xfe00), (8, 0xdead), (8, 0xcf8), (8, 1), (8, 0xcfc), (8, 2)]);
    assert_values(
        guid("eb5e4685-ca66-4769-b6a2-26068b001326"),
        body,
        &[
            ("vendor_id", &["0x10ec"]),
            ("bus", &["3"]),
            ("segment", &["4"]),
            ("memory_number", &["1"]),
            ("io_number", &["2"]),
            ("address", &["0xfe00", "0xcf8", "0xcfc"]),
            ("value", &["0xdead", "0x1", "0x2"]),
        ],
    );
}

#[test]
fn dma_remapping_errors() {
    let body = bytes(&[(2, 0x00a0), (2, 1), (1, 5), (1, 1), (1, 0), (1, 1), (8, 0x7000), (8, 0), (8, 0)]);
    assert_values(
        guid("5b51fef7-c79d-4434-8f1b-aa62de3e2c64"),
        body,
        &[
            ("requester_id", &["0xa0"]),
            ("fault_reason", &["address beyond the device address width"]),
            ("access_type", &["DMA read"]),
            ("address_type", &["untranslated request"]),
            ("architecture_type", &["IOMMU"]),
            ("device_address", &["0x7000"]),
            ("reserved", &[]),
        ],
    );

    let mut body =
        bytes(&[(1, 0x10), (1, 0), (6, 0), (8, 0xc0), (8, 0xf0), (4, 1), (4, 2), (4, 3), (8, 0), (4, 0)]);
    // Fault record: page 0x12345, source 0x10a8, with a PASID, a read.
    put(&mut body, &[(8, 0x12345 << 12), (8, 0x10a8 | 1 << 31 | 6 << 32 | 0x77 << 40 | 1 << 62)]);
    put(&mut body, &[(8, 1), (8, 2), (8, 3), (8, 4), (8, 6), (8, 5), (8, 4), (8, 3), (8, 2), (8, 0xabc1)]);
    assert_values(
        guid("71761d37-32b2-45cd-a7d0-b0fedd93e8cf"),
        body,
        &[
            ("capability", &["0xc0"]),
            ("fault_status", &["0x3"]),
            ("fault_page", &["0x12345"]),
            ("source_id", &["0x10a8"]),
            ("pasid_present", &["yes"]),
            ("fault_reason", &["0x6"]),
            ("pasid", &["0x77"]),
            ("request", &["read or AtomicOp"]),
            ("level_1_entry", &["0xabc1"]),
        ],
    );

    let mut body = bytes(&[(1, 1), (7, 0), (8, 0x11), (8, 0x22), (8, 0), (8, 3), (8, 4), (8, 0), (8, 0)]);
    put(&mut body, &[(8, 5), (8, 6), (8, 7), (8, 8), (8, 6), (8, 5), (8, 4), (8, 3), (8, 2), (8, 1)]);
    assert_values(
        guid("036f84e1-7f37-428c-a79e-575fdfaa84ec"),
        body,
        &[
            ("control", &["0x11"]),
            ("status", &["0x22"]),
            ("event_log_entry", &["03000000000000000400000000000000"]),
            ("level_6_entry", &["0x6"]),
        ],
    );
}

#[test]
fn firmware_records() {
    let kind = guid("81212a96-09ed-4996-9471-8d729c8e69ed");
    let body = |revision| {
        let mut body = bytes(&[(1, 1), (1, revision), (6, 0), (8, 0x1234)]);
        body.extend(Guid::from_bytes([7; 16]).bytes());
        body.extend(*b"log");
        body
    };
    assert_values(
        kind,
        body(2),
        &[
            ("kind", &["system on chip, type 1"]),
            ("id", &["0x1234"]),
            ("guid", &["07070707-0707-0707-0707-070707070707"]),
            ("record", &["6c6f67"]),
        ],
    );
    assert_values(kind, body(0), &[("id", &["0x1234"]), ("guid", &[])]);
    assert_values(kind, body(1), &[("id", &[]), ("guid", &[])]);
}

#[test]
fn processor_errors() {
    // A cache check: a data read at level 2, uncorrected, with a restartable instruction pointer.
    let check = 0b101_0111 | 1 << 16 | 3 << 18 | 2 << 22 | 1 << 26 | 1 << 28;
    let mut body = bytes(&[(8, 1 | 1 << 2 | 1 << 8), (8, 3)]);
    body.resize(64, 0);
    body.extend(guid("a55701f5-e3ef-43de-ac72-249b573fad2c").bytes());
    put(&mut body, &[(8, 1), (8, check), (8, 0), (8, 0), (8, 0), (8, 0), (2, 1), (2, 8), (4, 0x17a), (8, 0)]);
    put(&mut body, &[(8, 7)]);
    assert_values(
        guid("dc3ea0b0-a144-4797-b95b-53fa242b6e1d"),
        body,
        &[
            ("apic_id", &["3"]),
            ("kind", &["cache", "1"]),
            ("transaction", &["data access"]),
            ("operation", &["data read"]),
            ("level", &["2"]),
            ("context_corrupt", &[]),
            ("uncorrected", &["yes"]),
            ("restartable_ip", &["yes"]),
            ("msr", &["0x17a"]),
            ("registers", &["0700000000000000"]),
        ],
    );

    // The registers of 64-bit code: RIP, CR2.
    let mut body = bytes(&[(8, 1 << 8), (8, 0)]);
    body.resize(64, 0);
    put(&mut body, &[(2, 3), (2, 244), (4, 0), (8, 0)]);
    body.resize(80 + 244, 0);
    body[80 + 152..80 + 160].copy_from_slice(&0xffff_ffff_8100_0000_u64.to_le_bytes());
    body[80 + 176..80 + 184].copy_from_slice(&0x1234_u64.to_le_bytes());
    assert_values(
        guid("dc3ea0b0-a144-4797-b95b-53fa242b6e1d"),
        body,
        &[("rip", &["0xffffffff81000000"]), ("cr2", &["0x1234"]), ("registers", &[])],
    );

    // An Arm bus error: a device read, timed out, non-secure.
    let info = 0b1011_0000_0011 | 1 << 16 | 1 << 18 | 1 << 31 | 3 << 32 | 1 << 43;
    let mut body =
        bytes(&[(4, 5), (2, 1), (2, 0), (4, 72), (4, 0), (8, 0x8100), (8, 0x410f_d0c0), (4, 1), (4, 0)]);
    put(&mut body, &[(1, 0), (1, 32), (2, 4), (1, 8), (2, 0), (1, 0), (8, info), (8, 0), (8, 0)]);
    assert_values(
        guid("e19e3d16-bc11-11e4-9caa-c2051d5d46b0"),
        body,
        &[
            ("mpidr", &["0x8100"]),
            ("midr", &["0x410fd0c0"]),
            ("running", &["yes"]),
            ("kind", &["bus"]),
            ("operation", &["generic read"]),
            ("timeout", &["yes"]),
            ("address_space", &["device memory"]),
            ("access_mode", &["normal"]),
        ],
    );
}

#[test]
fn arm_registers() {
    let mut body = bytes(&[(4, 0), (2, 1), (2, 2), (4, 0), (4, 0), (8, 0), (8, 0), (4, 0), (4, 0)]);
    put(&mut body, &[(1, 0), (1, 32), (2, 0), (1, 2), (2, 0), (1, 0), (8, 0), (8, 0), (8, 0)]);
    // The EL1 registers; one system register.
    put(&mut body, &[(2, 0), (2, 5), (4, 136), (8, 0x1000), (8, 0x9600_0410), (8, 0x2000)]);
    body.resize(72 + 8 + 136, 0);
    put(&mut body, &[(2, 0), (2, 8), (4, 10), (2, 0x4242), (8, 7)]);
    let len = body.len() as u8;
    body[8] = len;
    assert_values(
        guid("e19e3d16-bc11-11e4-9caa-c2051d5d46b0"),
        body,
        &[
            ("elr_el1", &["0x1000"]),
            ("esr_el1", &["0x96000410"]),
            ("far_el1", &["0x2000"]),
            ("encoding", &["0x4242"]),
            ("value", &["0x7"]),
            ("registers", &[]),
        ],
    );
}

#[test]
fn arm_ras_error() {
    let mut body = bytes(&[(4, 1), (1, 1), (3, 0), (4, 1), (2, 80), (2, 152), (1, 1), (1, 2), (6, 0)]);
    put(&mut body, &[(8, 0x8000_1000), (8, 0), (4, 0x43b), (4, 1), (8, 0), (8, 0)]);
    body.extend(*b"socket 1\0\0\0\0\0\0\0\0");
    put(&mut body, &[(4, 3), (1, 0x11), (3, 0), (8, 0xa2), (8, 1), (8, 0xe400_0012), (8, 0x1000)]);
    put(&mut body, &[(8, 5), (8, 6), (8, 7), (8, 8)]);
    // Auxiliary data: one context with one register, one value.
    put(&mut body, &[(1, 1), (1, 0), (2, 1), (4, 72), (4, 48), (2, 1), (2, 0)]);
    put(&mut body, &[(4, 32), (1, 1), (1, 0), (2, 1), (2, 9), (6, 0), (8, 0xfe00), (8, 0xdead)]);
    body.extend(guid("ebb45182-fb03-4bf9-9aca-8613709fd789").bytes());
    put(&mut body, &[(8, 0x21)]);
    assert_values(
        guid("bf32d4d5-b427-4025-8495-8a9e5d4030e4"),
        body,
        &[
            ("component_type", &["memory"]),
            ("instance_format", &["system physical address"]),
            ("instance", &["0x80001000"]),
            ("type_format", &["GIC"]),
            ("iidr", &["0x43b"]),
            ("user_data", &["socket 1"]),
            ("index", &["3"]),
            ("err_status", &["0xe4000012"]),
            ("err_addr", &["0x1000"]),
            ("err_misc3", &["0x8"]),
            ("address_space", &["9"]),
            ("address", &["0xfe00"]),
            ("key", &["MPAM PARTID"]),
            ("value", &["0xdead", "0x21"]),
        ],
    );
}
