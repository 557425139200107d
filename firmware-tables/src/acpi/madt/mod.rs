//! MADT: the interrupt controllers and the processors behind them.

mod apic;
mod gic;

use platform::InterruptController;
use zerocopy::little_endian::U32;
use zerocopy::{Immutable, IntoBytes, Unaligned};

use super::{AcpiTable, Body, Context, version};
use crate::BuildError;

/// Multiple APIC Description Table (ACPI 6.5, 5.2.12).
pub(super) const TABLE: AcpiTable =
    AcpiTable { signature: *b"APIC", name: "apic", file_name: "apic.aml", body };

/// The name of the table in errors.
const MADT: &str = "MADT";

fn body(context: &Context<'_>) -> Result<Option<Body>, BuildError> {
    let platform = context.platform;
    let bytes = match platform.interrupts {
        InterruptController::Apic { local_base, io_apic } => apic::body(platform, local_base, io_apic)?,
        InterruptController::Gicv3 { distributor, redistributors, its } => {
            gic::version_3(platform, distributor, redistributors, its)?
        }
        InterruptController::Gicv2 { distributor, cpu_interface } => {
            gic::version_2(platform, distributor, cpu_interface)?
        }
    };
    Ok(Some(Body { revision: version::MADT, bytes }))
}

/// Length of the type and length bytes at the start of every interrupt controller structure.
const PREFIX: usize = 2;

/// An interrupt controller structure without its type and length bytes.
trait Structure: IntoBytes + Immutable {
    /// The type (table 5.21).
    const TYPE: u8;
}

fn push<S: Structure>(body: &mut Vec<u8>, structure: S) {
    body.extend_from_slice(&[S::TYPE, (PREFIX + size_of::<S>()) as u8]);
    body.extend_from_slice(structure.as_bytes());
}

/// The part between the header and the first structure (table 5.19).
#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct Fixed {
    local_apic: U32,
    flags: U32,
}

const _: () = assert!(size_of::<Fixed>() == 8);
