//! Prints the memory maps of machines of both architectures, with an area for error records.
//!
//! ```text
//! cargo run -p ghest-platform --example memory_maps
//! ```

use platform::{Platform, aarch64, x86_64};
use ras_core::{ErrorSource, Notification};

fn main() {
    const RAM: u64 = 6 << 30;
    let machines = [
        x86_64::platform(&x86_64::Layout::REFERENCE, 2, RAM, vec![], None),
        aarch64::platform(&aarch64::Layout::REFERENCE, 2, RAM, aarch64::Features::default(), vec![], None),
    ];
    for machine in machines {
        let source = ErrorSource { id: 0, notification: Notification::Gsiv };
        print(&machine.with_error_sources(vec![source]));
    }
}

fn print(machine: &Platform) {
    println!("{}: {} MiB of RAM", machine.arch, machine.memory.ram_size() >> 20);
    for region in &machine.memory.regions {
        println!("  {:#012x}..{:#012x} {:?}", region.range.start, region.range.end(), region.kind);
    }
    println!("  tables at {:#x}", machine.memory.tables.start);
    if let Some(records) = machine.memory.records {
        println!("  error records at {:#x}, {} KiB", records.start, records.len >> 10);
    }
}
