//! The built-in guest. The documentation of the crate `probe-guest` describes what it does and prints.
//!
//! It is built for the host's own target. On x86_64 the precompiled `core` uses SSE, which is not enabled here. So
//! precompiled code (panics, `core::fmt`) is avoided, and a test checks the result. On aarch64 `core` uses vector registers
//! too: the guest enables them first, and exception entry saves them.

#![no_std]
#![no_main]
#![expect(
    unsafe_code,
    reason = "it owns the whole machine: instructions, registers and raw memory are its subject"
)]

#[cfg(target_arch = "aarch64")]
mod aarch64;
#[expect(dead_code, reason = "parts are for one architecture only")]
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
mod injection;
#[cfg_attr(target_arch = "aarch64", expect(dead_code, reason = "parts are for a PC only"))]
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
    /// Where the firmware tables are.
    firmware: arch::HandedOver,
}

/// Runs all checks and prints the report. Returns the requests, which say how to end.
fn run(boot: &Boot) -> Result<Requests, Failure> {
    let Boot { memory, cmdline, .. } = boot;
    say!("entry ", boot.entry);
    say!("cmdline \"", Text(cmdline), "\"");
    for region in memory.iter() {
        say!("memory ", Hex(region.start), "-", Hex(region.end), " ", region.kind.name());
    }
    say!("memory-total ", memory.total_usable());
    let requests = Requests::parse(cmdline);
    errors::poisoned::watch(&requests);
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
