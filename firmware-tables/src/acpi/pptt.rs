//! PPTT: the processor topology.

use platform::Arch;
use zerocopy::little_endian::{U16, U32};
use zerocopy::{Immutable, IntoBytes, Unaligned};

use super::{AcpiTable, Body, Context, header, version};
use crate::BuildError;

/// The flags of a processor structure (ACPI 6.5, 5.2.30.1).
mod flags {
    /// Physical package.
    pub(super) const PACKAGE: u32 = 1 << 0;
    /// ACPI Processor ID valid.
    pub(super) const ID_VALID: u32 = 1 << 1;
    /// Node is a Leaf.
    pub(super) const LEAF: u32 = 1 << 3;
}

/// Processor Properties Topology Table (ACPI 6.5, 5.2.30), on aarch64: one package with the processors as
/// its cores.
///
/// Caches are not described: guests read the cache id registers.
pub(super) const TABLE: AcpiTable =
    AcpiTable { signature: *b"PPTT", name: "pptt", file_name: "pptt.aml", body };

fn body(context: &Context<'_>) -> Result<Option<Body>, BuildError> {
    if context.platform.arch != Arch::Aarch64 {
        return Ok(None);
    }
    let package = Processor::new(flags::PACKAGE, 0, 0);
    let mut bytes = package.as_bytes().to_vec();
    for cpu in &context.platform.cpus {
        let core = Processor::new(flags::ID_VALID | flags::LEAF, header::LEN, cpu.index);
        bytes.extend_from_slice(core.as_bytes());
    }
    Ok(Some(Body { revision: version::PPTT, bytes }))
}

/// Processor hierarchy node structure (ACPI 6.5, 5.2.30.1), without private resources.
#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct Processor {
    kind: u8,
    length: u8,
    reserved: U16,
    flags: U32,
    /// Offset from the table's start; 0 is none.
    parent: U32,
    /// ACPI processor UID, as in the MADT.
    uid: U32,
    resource_count: U32,
}

const _: () = assert!(size_of::<Processor>() == 20);

impl Processor {
    fn new(flags: u32, parent: u32, uid: u32) -> Self {
        Processor {
            kind: 0,
            length: size_of::<Processor>() as u8,
            reserved: U16::ZERO,
            flags: U32::new(flags),
            parent: U32::new(parent),
            uid: U32::new(uid),
            resource_count: U32::ZERO,
        }
    }
}
