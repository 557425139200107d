//! `\_SB._OSC`: negotiation of capabilities between operating system and platform.

use acpi_tables::Aml;
use acpi_tables::aml::{
    And, Arg, CreateDWordField, Equal, If, Local, Method, NotEqual, ONE, Or, Path, Return, Store, Uuid, ZERO,
};

use super::device::{Encoded, encode};

/// Its name under `\_SB`.
pub(super) const NAME: &str = "_OSC";

/// Interfaces, and the bits of their second doubleword that the platform grants.
const INTERFACES: [(&str, u32); 2] = [
    // Platform-wide OSPM capabilities (ACPI 6.5, 6.2.11.2).
    ("0811b06e-4a27-44f9-8d60-3cbbc22e7b48", APEI | GENERIC_EVENT_DEVICE),
    // Windows Hardware Error Architecture: its only bit enables firmware-first records. Linux requests it too.
    ("ed855e0c-6c90-47bf-a62a-26de0fc5ad5c", 1),
];
/// APEI Support.
const APEI: u32 = 1 << 4;
/// Generic Event Device Support.
const GENERIC_EVENT_DEVICE: u32 = 1 << 11;

/// The revision of both interfaces.
const REVISION: &dyn Aml = &ONE;

/// Bits of the first doubleword of the result (ACPI 6.5, 6.2.11).
mod status {
    /// Unrecognized UUID.
    pub(super) const UNKNOWN_UUID: u32 = 1 << 2;
    /// Unrecognized Revision.
    pub(super) const UNKNOWN_REVISION: u32 = 1 << 3;
    /// Capabilities Masked.
    pub(super) const MASKED: u32 = 1 << 4;
}

/// The method (ACPI 6.5, 6.2.11): its arguments are UUID, revision, count and a buffer of capabilities; the result is a
/// buffer of the same length with a status doubleword and the granted capabilities. The call has no side effects, so a
/// query gets the same result as a request.
pub(super) fn method() -> Vec<u8> {
    let (uuid, revision, requested) = (Arg(0), Arg(1), Arg(3));
    let (result, known, granted) = (Local(0), Local(1), Local(2));
    let (status, capabilities) = (Path::new("STAT"), Path::new("CAPS"));

    let mut body = Vec::new();
    // A copy: the caller's buffer is not modified.
    Store::new(&result, &requested).to_aml_bytes(&mut body);
    CreateDWordField::new(&status, &result, &ZERO).to_aml_bytes(&mut body);
    Store::new(&status, &ZERO).to_aml_bytes(&mut body);

    Store::new(&known, &ZERO).to_aml_bytes(&mut body);
    for (name, bits) in INTERFACES {
        If::new(&Equal::new(&uuid, &Uuid::new(name)), vec![&Store::new(&known, &bits)])
            .to_aml_bytes(&mut body);
    }
    // Capabilities of an unknown interface are returned unchanged.
    If::new(
        &Equal::new(&known, &ZERO),
        vec![&Store::new(&status, &status::UNKNOWN_UUID), &Return::new(&result)],
    )
    .to_aml_bytes(&mut body);
    If::new(&NotEqual::new(&revision, REVISION), vec![&Store::new(&status, &status::UNKNOWN_REVISION)])
        .to_aml_bytes(&mut body);

    CreateDWordField::new(&capabilities, &result, &4u8).to_aml_bytes(&mut body);
    And::new(&granted, &capabilities, &known).to_aml_bytes(&mut body);
    If::new(
        &NotEqual::new(&granted, &capabilities),
        vec![&Or::new(&status, &status, &status::MASKED), &Store::new(&capabilities, &granted)],
    )
    .to_aml_bytes(&mut body);
    Return::new(&result).to_aml_bytes(&mut body);
    // Serialized, because it creates names.
    encode(&Method::new(NAME.into(), 4, true, vec![&Encoded(body)]))
}
