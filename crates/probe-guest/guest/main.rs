//! The built-in guest. What it does and prints is on the page of the crate `probe-guest`.
//!
//! It is built for the host's own target. On x86_64 the `core` of that uses SSE; here nothing may, so what comes
//! precompiled (panics, `core::fmt`) is kept out and a test looks at the result. On aarch64 `core` uses the vector
//! registers too: the guest switches them on before all else, and exceptions save them.

#![no_std]
#![no_main]
#![expect(
    unsafe_code,
    reason = "it owns the whole machine: instructions, registers and raw memory are its subject"
)]

#[cfg(target_arch = "aarch64")]
mod aarch64;
#[expect(dead_code, reason = "some is for one architecture only")]
mod acpi;
mod aml;
mod cmdline;
mod date;
mod dsdt;
mod echo;
mod errors;
mod event_device;
mod failure;
mod format;
mod frames;
mod hest;
#[cfg_attr(target_arch = "aarch64", expect(dead_code, reason = "some is for a PC only"))]
mod memory_map;
mod memory_section;
mod physical;
mod queue;
mod report;
mod status_block;
mod tables;
mod touch;
mod wire;
#[cfg(target_arch = "x86_64")]
mod x86_64;

#[cfg(target_arch = "aarch64")]
use aarch64 as arch;
#[cfg(target_arch = "x86_64")]
use x86_64 as arch;

use cmdline::Requests;
use failure::Failure;
use format::{Hex, Text};
use memory_map::MemoryMap;
use report::say;

/// What the boot protocol handed over.
struct Boot {
    /// Its name in the report.
    entry: &'static str,
    cmdline: &'static [u8],
    memory: MemoryMap,
    /// What leads to the firmware tables.
    firmware: arch::HandedOver,
}

/// Reports everything; what it returns is how to end.
fn run(boot: &Boot) -> Result<Requests, Failure> {
    let Boot { memory, cmdline, .. } = boot;
    say!("entry ", boot.entry);
    say!("cmdline \"", Text(cmdline), "\"");
    for region in memory.iter() {
        say!("memory ", Hex(region.start), "-", Hex(region.end), " ", region.kind.name());
    }
    say!("memory-total ", memory.total_usable());
    let requests = Requests::parse(cmdline);
    errors::lost::watch(&requests);
    let in_use = arch::check(boot, &requests)?;
    errors::run(&requests, memory, &in_use)?;
    if requests.echo {
        echo::run();
    }
    Ok(requests)
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    report::fail(&"panic")
}
