//! Parsers of ACPI tables.

use crate::failure::Failure;
use crate::wire::{Field, read_at, sum, wire};

const RSDP_SIGNATURE: [u8; 8] = *b"RSD PTR ";

/// Maximum length of a table in bytes.
pub(crate) const MAX_TABLE_LEN: u32 = 1 << 20;

wire! {
    /// Root System Description Pointer (ACPI 6.5, 5.2.5.3, table 5.3).
    struct Rsdp: 36 {
        signature: [u8; 8],
        _checksum: u8,
        _oem: [u8; 6],
        revision: u8,
        rsdt: u32,
        length: u32,
        xsdt: u64,
        _extended_checksum: u8,
        _reserved: [u8; 3],
    }
}

wire! {
    /// System description table header (ACPI 6.5, 5.2.6, table 5.4).
    struct Header: 36 {
        signature: [u8; 4],
        length: u32,
        _revision: u8,
        _checksum: u8,
        _oem: [u8; 6],
        _oem_table: [u8; 8],
        _oem_revision: u32,
        _creator: [u8; 4],
        _creator_revision: u32,
    }
}

wire! {
    /// Generic Address Structure (ACPI 6.5, 5.2.3.2, table 5.1).
    struct GenericAddress: 12 {
        space: u8,
        width: u8,
        offset: u8,
        access: u8,
        address: u64,
    }
}

wire! {
    /// Fixed ACPI Description Table up to X_DSDT (ACPI 6.5, 5.2.9, table 5.9).
    struct Fadt: 148 {
        _header: Header,
        _firmware_control: u32,
        dsdt: u32,
        _power_management: [u8; 64],
        century: u8,
        _boot_arch: u16,
        _reserved: u8,
        flags: u32,
        reset_register: GenericAddress,
        reset_value: u8,
        arm_boot_arch: u16,
        _minor: u8,
        _x_firmware_control: u64,
        x_dsdt: u64,
    }
}

impl Fadt {
    /// RESET_REG_SUP (ACPI 6.5, 5.2.9.2, table 5.10).
    pub(crate) const RESET_SUPPORTED: u32 = 1 << 10;
    /// PSCI_COMPLIANT and PSCI_USE_HVC (ACPI 6.5, 5.2.9.4, table 5.12).
    pub(crate) const PSCI_BY_HVC: u16 = 1 << 1 | 1 << 0;
    /// Offset of SLEEP_CONTROL_REG: after X_DSDT and eight address structures.
    pub(crate) const SLEEP_CONTROL: usize = Self::SIZE + 8 * GenericAddress::SIZE;

    /// Address of the DSDT.
    pub(crate) fn dsdt_address(&self) -> u64 {
        if self.x_dsdt != 0 { self.x_dsdt } else { u64::from(self.dsdt) }
    }
}

wire! {
    /// Start of each structure of a MADT (ACPI 6.5, 5.2.12, table 5.21).
    struct Lead: 2 {
        kind: u8,
        len: u8,
    }
}

/// The structures of a MADT after `fixed` bytes: their kinds and all their bytes.
pub(crate) fn structures(table: &[u8], fixed: usize) -> impl Iterator<Item = Result<(u8, &[u8]), Failure>> {
    let mut rest = table.get(fixed..).unwrap_or_default();
    core::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let broken = broken_structure(table, rest);
        let next = read_at::<Lead>(rest, 0)
            .filter(|lead| usize::from(lead.len) >= Lead::SIZE)
            .and_then(|lead| Some((lead.kind, rest.split_at_checked(usize::from(lead.len))?)));
        let Some((kind, (structure, after))) = next else {
            rest = &[];
            return Some(Err(broken));
        };
        rest = after;
        Some(Ok((kind, structure)))
    })
}

/// The failure for a malformed `structure`, which is a part of `table`.
pub(crate) fn broken_structure(table: &[u8], structure: &[u8]) -> Failure {
    let offset = (structure.as_ptr() as usize).wrapping_sub(table.as_ptr() as usize);
    Failure::with("MADT: broken structure at offset", offset as u64)
}

/// Offset of the RSDP in `area`, on a 16-byte boundary (ACPI 6.5, 5.2.5.1).
pub(crate) fn find_rsdp(area: &[u8]) -> Option<usize> {
    let index =
        area.chunks_exact(16).position(|paragraph| paragraph.first_chunk() == Some(&RSDP_SIGNATURE))?;
    Some(16 * index)
}

/// The root table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Root {
    pub(crate) address: u64,
    /// Bytes of an entry: 8 in an XSDT, 4 in an RSDT.
    pub(crate) width: usize,
}

/// Checks both checksums of the RSDP at the start of `bytes`.
pub(crate) fn read_rsdp(bytes: &[u8]) -> Result<Root, Failure> {
    let rsdp = read_at::<Rsdp>(bytes, 0).ok_or(Failure::new("RSDP: too short"))?;
    if rsdp.signature != RSDP_SIGNATURE {
        return Err(Failure::new("RSDP: wrong signature"));
    }
    // The first checksum covers the fields of revision 0.
    if bytes.get(..20).map(sum) != Some(0) {
        return Err(Failure::new("RSDP: checksum bad"));
    }
    if rsdp.revision < 2 {
        return Ok(Root { address: u64::from(rsdp.rsdt), width: 4 });
    }
    match usize::try_from(rsdp.length).ok().and_then(|len| bytes.get(..len)).map(sum) {
        Some(0) => Ok(Root { address: rsdp.xsdt, width: 8 }),
        Some(_) => Err(Failure::new("RSDP: extended checksum bad")),
        None => Err(Failure::with("RSDP: length", u64::from(rsdp.length))),
    }
}

/// The addresses in an XSDT or RSDT.
pub(crate) fn root_entries(table: &[u8], width: usize) -> impl Iterator<Item = u64> {
    let entries = table.get(Header::SIZE..).unwrap_or_default();
    entries
        .chunks_exact(width.max(1))
        .map(|entry| entry.iter().rev().fold(0, |address, byte| address << 8 | u64::from(*byte)))
}
