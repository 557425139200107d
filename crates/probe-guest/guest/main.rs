//! The built-in guest. What it does and prints is on the page of the crate `probe-guest`.
//!
//! It is built for the host's own target, whose `core` uses SSE; here nothing may, so what comes precompiled (panics,
//! `core::fmt`) is kept out and a test looks at the result.

#![no_std]
#![no_main]
#![expect(
    unsafe_code,
    reason = "it owns the whole machine: instructions, registers and raw memory are its subject"
)]

mod acpi;
mod aml;
mod cmdline;
mod dsdt;
mod echo;
mod event_device;
mod failure;
mod format;
mod frames;
mod memory_map;
mod physical;
mod report;
mod tables;
mod touch;
mod wire;
#[cfg(target_arch = "x86_64")]
mod x86_64;

#[cfg(target_arch = "x86_64")]
use x86_64 as arch;

use cmdline::Wishes;
use failure::Failure;
use format::{Hex, Text};
use memory_map::MemoryMap;
use report::say;

/// What the boot protocol handed over.
struct Boot {
    /// `linux64` or `pvh`.
    entry: &'static str,
    cmdline: &'static [u8],
    memory: MemoryMap,
    /// Address of the RSDP, 0 where it was not handed over.
    rsdp: u64,
    /// What it was handed over in.
    rsdp_from: &'static str,
}

/// Reports everything; what it returns is how to end.
fn run(boot: &Boot) -> Result<Wishes, Failure> {
    let Boot { memory, cmdline, .. } = boot;
    say!("entry ", boot.entry);
    say!("cmdline \"", Text(cmdline), "\"");
    for region in memory.iter() {
        say!("memory ", Hex(region.start), "-", Hex(region.end), " ", region.kind.name());
    }
    say!("memory-total ", memory.total_usable());
    let wishes = Wishes::parse(cmdline);
    arch::check(boot)?;
    if wishes.echo {
        echo::run();
    }
    Ok(wishes)
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    report::fail(&"panic")
}
