//! The data of the boot protocol: a devicetree, which may refer to EFI data (Linux,
//! Documentation/arch/arm64/booting.rst, and Documentation/arch/arm/uefi.rst).

use core::ops::Range;

use super::devicetree::Devicetree;
use super::efi::{self, Pointers};
use super::fdt::Fdt;
use super::paging::BOOT_MEMORY;
use crate::Boot;
use crate::failure::Failure;
use crate::format::Hex;
use crate::memory_map::MemoryMap;
use crate::physical::bytes_at;
use crate::report::say;

/// The firmware tables.
pub(crate) struct HandedOver {
    /// Address range of the devicetree.
    pub(crate) at: Range<u64>,
    pub(crate) devicetree: Devicetree<'static>,
    pub(crate) efi: Option<Efi>,
}

/// The EFI data.
pub(crate) struct Efi {
    pub(crate) address: u64,
    pub(crate) system: efi::System,
    /// Mask of supported runtime services; `None` without an RT properties table.
    pub(crate) runtime_services: Option<u32>,
    /// Address of the RSDP; `None` without one.
    pub(crate) rsdp: Option<u64>,
}

impl Efi {
    pub(crate) fn report(&self) {
        let system = &self.system;
        let (major, minor) = (system.revision >> 16, (system.revision & 0xffff) / 10);
        let at = Hex(self.address);
        say!("efi ", at, " version ", major, ".", minor, " checksum ok runtime ", Hex(system.runtime));
        match self.runtime_services {
            Some(mask) => say!("efi-runtime-services ", Hex(u64::from(mask))),
            None => say!("efi-runtime-services unknown"),
        }
    }
}

/// The only defined version of memory descriptors.
const DESCRIPTOR_VERSION: u32 = 1;

/// Reads the devicetree at `address` and the EFI data.
pub(crate) fn read(address: u64) -> Result<Boot, Failure> {
    let len = Fdt::total_len(memory_at(address, Fdt::HEADER_LEN as u64)?)?;
    let bytes = memory_at(address, u64::from(len))?;
    let mut devicetree = Devicetree::read(&Fdt::read(bytes)?)?;
    let mut memory = core::mem::replace(&mut devicetree.memory, MemoryMap::new());
    let efi = match devicetree.efi {
        Some(pointers) => {
            memory = read_memory_map(&pointers)?;
            Some(read_efi(&pointers)?)
        }
        None => None,
    };
    Ok(Boot {
        entry: "image",
        cmdline: devicetree.bootargs,
        memory,
        firmware: HandedOver { at: address..address + u64::from(len), devicetree, efi },
    })
}

fn read_memory_map(pointers: &Pointers) -> Result<MemoryMap, Failure> {
    if pointers.descriptor_version != DESCRIPTOR_VERSION {
        return Err(Failure::with("EFI memory map: version", u64::from(pointers.descriptor_version)));
    }
    let bytes = memory_at(pointers.map, u64::from(pointers.map_len))?;
    efi::read_memory_map(bytes, pointers.descriptor_len)
}

fn read_efi(pointers: &Pointers) -> Result<Efi, Failure> {
    let system = efi::read_system_table(memory_at(pointers.system_table, efi::SYSTEM_TABLE_LEN)?)?;
    let tables = memory_at(system.tables, system.tables_len)?;
    let runtime_services = match efi::find_table(tables, &efi::RT_PROPERTIES) {
        Some(address) => Some(efi::read_runtime_properties(memory_at(address, efi::RT_PROPERTIES_LEN)?)?),
        None => None,
    };
    Ok(Efi {
        address: pointers.system_table,
        system,
        runtime_services,
        rsdp: efi::find_table(tables, &efi::ACPI_20),
    })
}

/// Memory at an address that is used before the memory map is known.
fn memory_at(address: u64, len: u64) -> Result<&'static [u8], Failure> {
    match address.checked_add(len) {
        // SAFETY: mapped. Reading where there is no memory raises an exception, which is reported. The guest writes there only in
        // `touch`, which restores the contents.
        Some(end) if BOOT_MEMORY.start <= address && end <= BOOT_MEMORY.end => {
            Ok(unsafe { bytes_at(address, len as usize) })
        }
        _ => Err(Failure::with("boot data outside of memory at", address)),
    }
}
