//! MADT: the interrupt controllers and the processors behind them.

mod apic;
mod gic;

use platform::{InterruptController, Platform};
use zerocopy::little_endian::U32;
use zerocopy::{Immutable, IntoBytes, Unaligned};

use super::header;
use crate::BuildError;

/// Multiple APIC Description Table (ACPI 6.5, 5.2.12).
pub(super) fn bytes(platform: &Platform) -> Result<Vec<u8>, BuildError> {
    let (revision, body) = match platform.interrupts {
        InterruptController::Apic { local_base, io_apic } => (6, apic::body(platform, local_base, io_apic)?),
        InterruptController::Gicv3 { distributor, redistributors, its } => {
            (gic::REVISION, gic::version_3(platform, distributor, redistributors, its)?)
        }
        InterruptController::Gicv2 { distributor, cpu_interface } => {
            (gic::REVISION, gic::version_2(platform, distributor, cpu_interface)?)
        }
    };
    Ok(header::table(*b"APIC", revision, &body))
}

/// The type and length bytes that every interrupt controller structure starts with.
const PREFIX: usize = 2;

/// What follows an interrupt controller structure's type and length.
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
