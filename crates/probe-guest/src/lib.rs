//! The built-in guest: the kernel of a profile that names none.
//!
//! A `no_std` program of some 50 KiB that takes a whole machine over, compares what it was told with what it finds, says
//! so on the serial console, and switches the machine off. It uses none of the code that describes or emulates the
//! machine, so both sides have to be right for a report to be good.
//!
//! # On x86_64
//! [`IMAGE`] is an ELF64 file, linked at 1 MiB, with two ways in: the ELF entry point takes the 64-bit Linux boot
//! protocol (Linux, Documentation/arch/x86/boot.rst, "64-bit Boot Protocol"), and a note of type 18
//! (`XEN_ELFNOTE_PHYS32_ENTRY`) names the entry for PVH (Xen, docs/misc/pvh.pandoc). It needs no SSE, no interrupt
//! controller beyond local and I/O APICs, and 2 MiB of memory for one processor. It expects:
//! - a 16550 at port 0x3f8 on interrupt 4, rising edge, for the console;
//! - either ACPI (the RSDP handed over by the boot protocol, or in 0xe0000 to 0xfffff) or an MP table (in the last KiB
//!   of base memory, or in 0xe0000 to 0xfffff); with both, ACPI;
//! - with ACPI, SLEEP_CONTROL_REG and `\_S5`; with an MP table, the reset command (0xfe) of a keyboard controller at
//!   port 0x64.
//!
//! # On aarch64
//! [`IMAGE`] is an Image (Linux, Documentation/arch/arm64/booting.rst, 4): a flat binary to be loaded at any multiple of
//! 2 MiB from 1 GiB up, in usable memory that goes on for 2 MiB and 4 KiB for each processor, and entered at EL1 with the MMU off and the address of a devicetree in X0. It
//! switches floating-point registers, MMU and caches on before all else, and maps all below 1 GiB as devices. It
//! expects:
//! - a PL011 at 0x900_0000 for the console, on INTID 33 (level) where no table says another;
//! - no memory below 1 GiB; GIC, event device and clock there;
//! - a devicetree of `/chosen` alone, with the properties `linux,uefi-*` that lead to EFI's system table, and by that to
//!   ACPI; or a devicetree of the whole machine;
//! - a GICv3, or a GICv2; the virtual timer; PSCI 0.2 or later by HVC.
//!
//! # On both
//! In the Generic Event Device's scope, where the DSDT has one, it expects an operation region in memory that begins
//! with the 32-bit selector; the 32 bits after the selector are a loopback register: bits written there are raised as
//! events.
//!
//! # The report
//! Each line is `probe: KEY VALUE...` and ends with CR LF. Numbers are decimal, or hexadecimal with `0x`. Text that
//! comes from outside has all bytes but printable ASCII, and `"` and `\`, as `\xNN`. Lines come in this order; the last
//! is `ok` or `failed`.
//!
//! | line | meaning |
//! |---|---|
//! | `entry linux64`, `pvh` or `image` | how it was entered |
//! | `cmdline "TEXT"` | the command line; at most 2047 bytes on x86_64 |
//! | `memory START-END KIND` | a region of the memory map, `END` excluded; `KIND` is `usable`, `reserved`, `acpi` or `nvs`. One line each, in the order of the map: of e820, EFI (conventional memory is `usable`) or the devicetree |
//! | `memory-total BYTES` | sum of all usable regions |
//! | `memory-touched ok` | the first and last 4 KiB of each usable region above 1 MiB, without the guest's own memory, kept what was written to them |
//! | `firmware acpi`, `mptable` or `devicetree` | which tables it found |
//! | `devicetree at ADDRESS LENGTH bytes nodes N` | aarch64: what was handed over; of `/chosen` alone there are 2 nodes |
//! | `efi ADDRESS version VERSION checksum ok runtime ADDRESS` | aarch64, with EFI: the system table |
//! | `efi-runtime-services MASK` or `unknown` | the same: what the RT properties table says that works |
//! | `rsdp ADDRESS from SOURCE` | ACPI: `SOURCE` is `boot-params`, `start-info`, `scan` or `efi` |
//! | `table SIGNATURE at ADDRESS LENGTH bytes checksum ok` or `bad` | each table: `RSDP` (both sums), `XSDT` (or `RSDT`), all in it, `DSDT`; or `_MP_` and `PCMP` |
//! | `psci MAJOR.MINOR hvc` | aarch64: the version that PSCI gives |
//! | `timer ok` | an interrupt of the local APIC's timer, or of the virtual timer, came |
//! | `cpu INDEX apic-id ID STATE` | x86_64: each processor that the tables list as enabled: `boot` (this one), `online` (it was started and read its own id from its APIC) or `silent` |
//! | `cpu INDEX mpidr AFFINITY STATE` | aarch64: the same; it read its own MPIDR |
//! | `cpus N listed, M online` | |
//! | `serial-interrupt ok` | the serial port's transmit interrupt came |
//! | `ged ok gsi N events BITS` | an event written to the loopback register came back as interrupt `N`, and the selector said `BITS` |
//! | `ged none` | there is no Generic Event Device, as with an MP table or a devicetree |
//! | `rtc YYYY-MM-DDTHH:MM:SS` | the time, where the DSDT has a PNP0B00, or the devicetree a PL031 |
//! | `rtc none` | aarch64: there is no clock that the tables tell of, as with ACPI |
//! | `listening` | with `probe.echo`: it reads the console |
//! | `echo TEXT` | a line that was read, up to 256 bytes |
//! | `ok` | all of the above was as it should be |
//! | `failed WHY` | what was not; where the guest itself stumbled, `exception N at RIP ADDRESS error CODE`, or on aarch64 `exception ESR SYNDROME ELR ADDRESS FAR ADDRESS` |
//!
//! All waits but those for room in the console and for its input end after some seconds.
//!
//! # The command line
//! Words it does not know are ignored; of several `probe.exit` the last counts.
//!
//! | word | effect |
//! |---|---|
//! | `probe.exit=reset` | ends by the ACPI reset register, or PSCI's SYSTEM_RESET, rather than by switching off |
//! | `probe.exit=triple-fault` | ends by a triple fault (x86_64) |
//! | `probe.exit=i8042` | ends by the keyboard controller's reset command (x86_64) |
//! | `probe.exit=hang` | halts for ever, with interrupts off, after `ok` |
//! | `probe.exit=loop` | stays busy for ever after `ok` |
//! | `probe.echo` | before `ok`, repeats lines from the console until one says `quit` |
//!
//! After `failed` it always switches off, or, where nothing names a way to, halts.

/// The guest, an ELF64 executable for x86_64.
#[cfg(target_arch = "x86_64")]
pub static IMAGE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/probe.elf"));

/// The guest, an Image for arm64.
#[cfg(target_arch = "aarch64")]
pub static IMAGE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/probe.img"));
