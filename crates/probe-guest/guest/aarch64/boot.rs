//! What the boot protocol hands over: a devicetree, which may lead to what EFI left behind (Linux,
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

/// Where the firmware's tables are.
pub(crate) struct HandedOver {
    /// The bytes of the devicetree.
    pub(crate) at: Range<u64>,
    pub(crate) devicetree: Devicetree<'static>,
    pub(crate) efi: Option<Efi>,
}

/// What EFI left behind.
pub(crate) struct Efi {
    pub(crate) address: u64,
    pub(crate) system: efi::System,
    /// The mask of runtime services that work; none where nothing says it.
    pub(crate) runtime_services: Option<u32>,
    /// Address of the RSDP.
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

/// The version of memory descriptors that there is.
const DESCRIPTOR_VERSION: u32 = 1;

/// Reads what the devicetree at `address` leads to.
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

/// Memory of which nobody but its address has told yet.
fn memory_at(address: u64, len: u64) -> Result<&'static [u8], Failure> {
    match address.checked_add(len) {
        // SAFETY: mapped; where there is no memory, reading is an exception that is reported. The guest writes there
        // only where `touch` puts back what it found.
        Some(end) if BOOT_MEMORY.start <= address && end <= BOOT_MEMORY.end => {
            Ok(unsafe { bytes_at(address, len as usize) })
        }
        _ => Err(Failure::with("no memory for what is handed over at", address)),
    }
}
