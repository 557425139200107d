//! Finds every ACPI table, reports it and checks its checksum.

#[cfg(target_arch = "x86_64")]
use crate::acpi::GenericAddress;
use crate::acpi::{self, Fadt, Header, MAX_TABLE_LEN, Root};
use crate::dsdt::Dsdt;
use crate::failure::Failure;
use crate::format::{Hex, Text};
use crate::memory_map::MemoryMap;
use crate::physical::table_bytes;
use crate::report::say;
use crate::wire::{Field, read_at, sum};

/// The tables and fields that the guest uses.
pub(crate) struct Tables {
    /// The MADT with its header.
    pub(crate) madt: &'static [u8],
    /// The GTDT with its header.
    #[cfg(target_arch = "aarch64")]
    pub(crate) gtdt: Option<&'static [u8]>,
    /// The SPCR with its header.
    #[cfg(target_arch = "aarch64")]
    pub(crate) spcr: Option<&'static [u8]>,
    pub(crate) fadt: Fadt,
    /// SLEEP_CONTROL_REG; `None` if the FADT has none.
    #[cfg(target_arch = "x86_64")]
    pub(crate) sleep_control: Option<GenericAddress>,
    pub(crate) dsdt: Dsdt,
    /// The HEST with its header.
    pub(crate) hest: Option<&'static [u8]>,
    /// The EINJ with its header.
    pub(crate) einj: Option<&'static [u8]>,
}

/// Reads all tables, starting at the RSDP at `rsdp`.
pub(crate) fn walk(memory: &MemoryMap, rsdp: u64) -> Result<Tables, Failure> {
    let root = root(memory, rsdp)?;
    let root_signature = if root.width == 8 { b"XSDT" } else { b"RSDT" };
    let root_table = table(memory, root.address)?;
    if root_table.get(..4) != Some(root_signature) {
        return Err(Failure::with("no XSDT or RSDT at", root.address));
    }
    let (mut madt, mut fadt, mut hest, mut einj) = (None, None, None, None);
    #[cfg(target_arch = "aarch64")]
    let (mut gtdt, mut spcr) = (None, None);
    for address in acpi::root_entries(root_table, root.width) {
        let table = table(memory, address)?;
        match table.get(..4) {
            Some(b"APIC") => madt = Some(table),
            Some(b"FACP") => fadt = Some(table),
            Some(b"HEST") => hest = Some(table),
            Some(b"EINJ") => einj = Some(table),
            #[cfg(target_arch = "aarch64")]
            Some(b"GTDT") => gtdt = Some(table),
            #[cfg(target_arch = "aarch64")]
            Some(b"SPCR") => spcr = Some(table),
            _ => {}
        }
    }
    let fadt_table = fadt.ok_or(Failure::new("no FADT"))?;
    let fadt = read_at::<Fadt>(fadt_table, 0).ok_or(Failure::new("FADT: too short"))?;
    let dsdt = table(memory, fadt.dsdt_address())?;
    Ok(Tables {
        madt: madt.ok_or(Failure::new("no MADT"))?,
        #[cfg(target_arch = "aarch64")]
        gtdt,
        #[cfg(target_arch = "aarch64")]
        spcr,
        fadt,
        #[cfg(target_arch = "x86_64")]
        sleep_control: read_at::<GenericAddress>(fadt_table, Fadt::SLEEP_CONTROL)
            .filter(|register| register.address != 0),
        dsdt: Dsdt::read(dsdt.get(Header::SIZE..).unwrap_or_default())?,
        hest,
        einj,
    })
}

fn root(memory: &MemoryMap, rsdp: u64) -> Result<Root, Failure> {
    // Only revision 2 has a length field, and no revision is longer.
    let bytes = table_bytes(memory, rsdp, acpi::Rsdp::SIZE as u32)?;
    let root = acpi::read_rsdp(bytes);
    let state = if root.is_ok() { "ok" } else { "bad" };
    say!("table RSDP at ", Hex(rsdp), " ", bytes.len(), " bytes checksum ", state);
    root
}

/// Reports the table at `address`.
fn table(memory: &MemoryMap, address: u64) -> Result<&'static [u8], Failure> {
    let header = read_at::<Header>(table_bytes(memory, address, Header::SIZE as u32)?, 0)
        .ok_or(Failure::with("no table at", address))?;
    if header.length < Header::SIZE as u32 || header.length > MAX_TABLE_LEN {
        return Err(Failure::with("length out of range of the table at", address));
    }
    let table = table_bytes(memory, address, header.length)?;
    report(&header.signature, address, table)?;
    Ok(table)
}

/// Prints a table's line. Fails if its checksum is wrong.
pub(crate) fn report(signature: &[u8], address: u64, table: &[u8]) -> Result<(), Failure> {
    let is_right = sum(table) == 0;
    let state = if is_right { "ok" } else { "bad" };
    say!("table ", Text(signature), " at ", Hex(address), " ", table.len(), " bytes checksum ", state);
    if is_right { Ok(()) } else { Err(Failure::with("checksum bad of the table at", address)) }
}
