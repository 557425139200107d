//! aarch64: the Image and its devicetree (Documentation/arch/arm64/booting.rst).
//!
//! [`platform::aarch64`] has the memory map. The hand-over is the same for both table sets: with ACPI, the devicetree has
//! only `/chosen`, which refers to the EFI tables.

mod image;

use firmware_tables::EntryPoint;
use platform::{Chosen, MemoryMap};
pub use vcpu::aarch64::Entry;

pub(super) use image::{Kind, load as load_kernel};

use super::{BootError, Target};

/// Code that is loaded into the guest's reserved memory, with its GPA: none.
pub(crate) const RESERVED_CODE: &[(u64, &[u8])] = &[];

/// Seeds from the host's random number generator.
pub(super) fn seeds() -> Result<Chosen, BootError> {
    let mut bytes = [0; 72];
    let got = rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty());
    // Requests of up to 256 bytes are never short.
    if let Err(error) = got {
        return Err(BootError::Seed(error.into()));
    }
    let (mut layout, mut generator) = ([0; 8], [0; 64]);
    layout.copy_from_slice(&bytes[..8]);
    generator.copy_from_slice(&bytes[8..]);
    Ok(Chosen {
        kaslr_seed: Some(u64::from_ne_bytes(layout)),
        rng_seed: Some(generator),
        ..Default::default()
    })
}

pub(super) fn hand_over(
    _: &Target<'_>,
    _: &MemoryMap,
    _: &Chosen,
    entry: EntryPoint,
    kind: Kind,
) -> Result<Entry, BootError> {
    Ok(Entry { pc: kind.pc, devicetree: entry.gpa() })
}
