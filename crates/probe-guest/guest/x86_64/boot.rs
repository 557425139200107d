//! The data of the two boot protocols.

use crate::Boot;
use crate::failure::Failure;
use crate::memory_map::{Kind, MemoryMap};
use crate::physical::bytes_at;
use crate::wire::{Field, read_at, wire};

/// Where the boot protocol says that the ACPI tables are.
pub(crate) struct HandedOver {
    /// Address of the RSDP; 0 if the boot protocol does not give it.
    pub(crate) rsdp: u64,
    /// The structure that it is from.
    pub(crate) rsdp_from: &'static str,
}

wire! {
    /// The fields of boot_params, the zero page, that this guest uses (Linux, Documentation/arch/x86/zero-page.rst and
    /// boot.rst).
    struct BootParams: 0x2d0 {
        _screen_info: [u8; 0x70],
        acpi_rsdp_addr: u64,
        _before_entries: [u8; 0x1e8 - 0x78],
        e820_entries: u8,
        _before_header: [u8; 0x202 - 0x1e9],
        magic: [u8; 4],
        _before_cmd_line: [u8; 0x228 - 0x206],
        cmd_line_ptr: u32,
        _before_table: [u8; 0x2d0 - 0x22c],
    }
}

wire! {
    /// boot_e820_entry.
    struct E820Entry: 20 {
        start: u64,
        len: u64,
        kind: u32,
    }
}

wire! {
    /// hvm_start_info (Xen, xen/include/public/arch-x86/hvm/start_info.h), version 1.
    struct StartInfo: 56 {
        magic: u32,
        version: u32,
        _flags: u32,
        _modules: u32,
        _module_list: u64,
        cmdline: u64,
        rsdp: u64,
        memory_map: u64,
        memory_map_entries: u32,
        _reserved: u32,
    }
}

wire! {
    /// hvm_memmap_table_entry (as above).
    struct MemoryMapEntry: 24 {
        start: u64,
        len: u64,
        kind: u32,
        _reserved: u32,
    }
}

const START_INFO_MAGIC: u32 = 0x336e_c578;
const PAGE: usize = 4096;
/// Bytes of a command line, with its end, that a Linux kernel for x86 reads (COMMAND_LINE_SIZE).
const MAX_CMDLINE: usize = 2048;

/// # Safety
/// `address` is that of boot_params.
pub(crate) unsafe fn linux(address: u64) -> Result<Boot, Failure> {
    // SAFETY: by the contract of this function; boot_params is one page.
    let page = unsafe { bytes_at(address, PAGE) };
    let params = read_at::<BootParams>(page, 0)
        .filter(|params| params.magic == *b"HdrS")
        .ok_or(Failure::with("no boot_params at", address))?;
    let mut memory = MemoryMap::new();
    for index in 0..usize::from(params.e820_entries) {
        let entry = read_at::<E820Entry>(page, BootParams::SIZE + index * E820Entry::SIZE)
            .ok_or(Failure::new("boot_params: too many e820 entries"))?;
        memory.push(entry.start, entry.len, Kind::from_e820(entry.kind))?;
    }
    Ok(Boot {
        entry: "linux64",
        // SAFETY: the address is from boot_params.
        cmdline: unsafe { cmdline(u64::from(params.cmd_line_ptr)) }?,
        memory,
        firmware: HandedOver { rsdp: params.acpi_rsdp_addr, rsdp_from: "boot-params" },
    })
}

/// # Safety
/// `address` is that of hvm_start_info.
pub(crate) unsafe fn pvh(address: u64) -> Result<Boot, Failure> {
    // SAFETY: by the contract of this function.
    let info = read_at::<StartInfo>(unsafe { bytes_at(address, StartInfo::SIZE) }, 0)
        .filter(|info| info.magic == START_INFO_MAGIC)
        .ok_or(Failure::with("no hvm_start_info at", address))?;
    if info.version < 1 || info.memory_map == 0 {
        return Err(Failure::new("hvm_start_info: no memory map"));
    }
    let mut memory = MemoryMap::new();
    // SAFETY: address and length are from hvm_start_info.
    let map = unsafe { bytes_at(info.memory_map, info.memory_map_entries as usize * MemoryMapEntry::SIZE) };
    for entry in
        map.chunks_exact(MemoryMapEntry::SIZE).filter_map(|entry| read_at::<MemoryMapEntry>(entry, 0))
    {
        memory.push(entry.start, entry.len, Kind::from_e820(entry.kind))?;
    }
    Ok(Boot {
        entry: "pvh",
        // SAFETY: the address is from hvm_start_info.
        cmdline: unsafe { cmdline(info.cmdline) }?,
        memory,
        firmware: HandedOver { rsdp: info.rsdp, rsdp_from: "start-info" },
    })
}

/// The text at `address` up to its NUL; empty for address 0.
///
/// # Safety
/// `address` is the address of the command line in the boot protocol.
unsafe fn cmdline(address: u64) -> Result<&'static [u8], Failure> {
    if address == 0 {
        return Ok(&[]);
    }
    // SAFETY: by the contract of this function, and low memory extends beyond the longest command line.
    let text = unsafe { bytes_at(address, MAX_CMDLINE) };
    let len = text
        .iter()
        .position(|byte| *byte == 0)
        .ok_or(Failure::with("the command line is longer than", MAX_CMDLINE as u64))?;
    Ok(text.get(..len).unwrap_or_default())
}
