//! PVH (Xen's docs/misc/pvh.pandoc; xen/include/public/arch-x86/hvm/start_info.h, version 1).

use linux_loader::loader::start_info::{hvm_memmap_table_entry, hvm_modlist_entry, hvm_start_info};
use vcpu::x86_64::Entry;
use vm_memory::ByteValued;

use super::linux::{e820_type, put_gdt};
use super::{BootError, COMMAND_LINE, HandOver};

/// GPA of the start info.
const START_INFO: u64 = 0x6000;
/// GPA of the list of modules, of which the initrd is the only one.
const MODULES: u64 = 0x6040;
/// GPA of the memory map, up to the boot parameters' page.
const MEMORY_MAP: u64 = 0x6080;
/// Entries that fit there.
const MAX_MEMORY_MAP_ENTRIES: usize = (0x7000 - MEMORY_MAP as usize) / size_of::<hvm_memmap_table_entry>();
/// hvm_start_info.magic.
const MAGIC: u32 = 0x336e_c578;

pub(super) fn hand_over(to: &HandOver<'_>, eip: u32) -> Result<Entry, BootError> {
    let regions = &to.map.regions;
    if regions.len() > MAX_MEMORY_MAP_ENTRIES {
        return Err(BootError::MemoryMap(regions.len()));
    }
    for (region, index) in regions.iter().zip(0..) {
        let entry = hvm_memmap_table_entry {
            addr: region.range.start,
            size: region.range.len,
            type_: e820_type(region.kind),
            reserved: 0,
        };
        to.target.put(entry.as_slice(), MEMORY_MAP + index * size_of_val(&entry) as u64)?;
    }
    if let Some(initrd) = to.chosen.initrd {
        let module = hvm_modlist_entry { paddr: initrd.start, size: initrd.len, ..Default::default() };
        to.target.put(module.as_slice(), MODULES)?;
    }
    let info = hvm_start_info {
        magic: MAGIC,
        version: 1,
        nr_modules: to.chosen.initrd.is_some().into(),
        modlist_paddr: MODULES,
        cmdline_paddr: COMMAND_LINE,
        rsdp_paddr: to.rsdp.unwrap_or(0),
        memmap_paddr: MEMORY_MAP,
        memmap_entries: regions.len() as u32,
        ..Default::default()
    };
    to.target.put(info.as_slice(), START_INFO)?;
    put_gdt(to)?;
    Ok(Entry::Pvh { eip, start_info: START_INFO as u32 })
}
