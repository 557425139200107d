//! A VMM can load the image.

#![cfg(target_arch = "x86_64")]

use std::io::Cursor;

use linux_loader::loader::KernelLoader;
use linux_loader::loader::elf::{Elf, PvhBootCapability};
use vm_memory::{Address, GuestAddress, GuestMemoryMmap};

#[test]
fn the_image_loads_at_1_mib_and_has_both_entry_points() -> Result<(), Box<dyn std::error::Error>> {
    let memory = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), 2 << 20)])?;
    let start = GuestAddress(1 << 20);
    let loaded = Elf::load(&memory, None, &mut Cursor::new(probe_guest::IMAGE), Some(start))?;
    assert!(loaded.kernel_load >= start && loaded.kernel_end < 2 << 20, "{loaded:x?}");
    let PvhBootCapability::PvhEntryPresent(pvh) = loaded.pvh_boot_cap else {
        panic!("no PVH entry: {loaded:?}");
    };
    assert!(pvh >= start && pvh.raw_value() < loaded.kernel_end, "{pvh:x?}");
    assert_ne!(pvh, loaded.kernel_load, "the 64-bit entry point is different");
    Ok(())
}

#[test]
fn the_image_is_smaller_than_72_kib() {
    let len = probe_guest::IMAGE.len();
    assert!(len < 72 << 10, "{len} bytes");
}
