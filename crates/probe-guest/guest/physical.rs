//! Physical memory, which is identity-mapped.

use crate::arch;
use crate::failure::Failure;
use crate::memory_map::MemoryMap;

/// A 32-bit register of a device.
pub(crate) struct Register(*mut u32);

impl Register {
    /// # Safety
    /// `address` is mapped, a multiple of 4, and not part of a Rust object.
    pub(crate) unsafe fn at(address: u64) -> Self {
        Register(address as *mut u32)
    }

    pub(crate) fn read(&self) -> u32 {
        // SAFETY: by the contract of `at`.
        unsafe { arch::load(self.0) }
    }

    pub(crate) fn write(&self, value: u32) {
        // SAFETY: by the contract of `at`.
        unsafe { arch::store(self.0, value) }
    }
}

/// 64 bits of memory that are read and written outside of the guest too.
pub(crate) struct Word(*mut u64);

impl Word {
    /// # Safety
    /// `address` is mapped, a multiple of 8, and not part of a Rust object.
    pub(crate) unsafe fn at(address: u64) -> Self {
        Word(address as *mut u64)
    }

    pub(crate) fn read(&self) -> u64 {
        // SAFETY: by the contract of `at`.
        unsafe { self.0.read_volatile() }
    }

    pub(crate) fn write(&self, value: u64) {
        // SAFETY: by the contract of `at`.
        unsafe { self.0.write_volatile(value) }
    }
}

/// Memory at an address given by a boot protocol or the architecture.
///
/// # Safety
/// The bytes are mapped, and not written to while the slice is in use.
pub(crate) unsafe fn bytes_at(address: u64, len: usize) -> &'static [u8] {
    // SAFETY: by the contract of this function; any byte is a valid `u8`.
    unsafe { core::slice::from_raw_parts(address as *const u8, len) }
}

/// Memory at an address given by a firmware table. It must be in the memory map or in `FIRMWARE_AREA`.
pub(crate) fn table_bytes(memory: &MemoryMap, address: u64, len: u32) -> Result<&'static [u8], Failure> {
    let unknown = Failure::with("no memory for a table at", address);
    let end = address.checked_add(u64::from(len)).ok_or(unknown)?;
    let area = arch::FIRMWARE_AREA;
    let is_memory = memory.knows(address, end) || (area.start <= address && end <= area.end);
    if address == 0 || !is_memory || end > arch::mapped_end(memory) {
        return Err(unknown);
    }
    // SAFETY: the range is memory and mapped; the guest writes to tables only in `touch`, which restores them.
    Ok(unsafe { bytes_at(address, len as usize) })
}
