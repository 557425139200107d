//! A bare-metal guest for testing virtual machine monitors.
//!
//! A `no_std` program of less than 72 KiB. It initialises a whole machine, compares the firmware tables with the hardware, prints a
//! report on the serial console, and switches the machine off. It shares no code with the crates that describe or emulate the machine, so
//! that an error in either shows up in the report. It also handles memory errors, by records (GHES), machine checks, external aborts and SErrors.
//!
//! The crate has no functions: [`IMAGE`] is the guest for the architecture that the crate is built for.
//!
//! # x86_64
//! [`IMAGE`] is an ELF64 file, linked at 1 MiB, with two entry points: the ELF entry point for the 64-bit Linux boot
//! protocol (Linux, Documentation/arch/x86/boot.rst, "64-bit Boot Protocol"), and a note of type 18
//! (`XEN_ELFNOTE_PHYS32_ENTRY`) with the entry point for PVH (Xen, docs/misc/pvh.pandoc). It needs 2 MiB of memory for one processor, no SSE, and no interrupt
//! controllers except local and I/O APICs. It requires:
//! - a 16550 at port 0x3f8 with interrupt 4, rising edge, for the console;
//! - ACPI (RSDP passed by the boot protocol, or in 0xe0000 to 0xfffff) or an MP table (in the last KiB
//!   of base memory, or in 0xe0000 to 0xfffff); ACPI is preferred;
//! - NMIs on local input 1, as in a PC;
//! - with ACPI, SLEEP_CONTROL_REG and `\_S5`; with an MP table, the reset command (0xfe) of a keyboard controller at
//!   port 0x64.
//!
//! # aarch64
//! [`IMAGE`] is an Image (Linux, Documentation/arch/arm64/booting.rst, 4): a flat binary. Load address: any multiple of
//! 2 MiB from 1 GiB upwards, with 2 MiB and 4 KiB per processor of usable memory. Entry: at EL1, MMU off, address of a devicetree in X0. The
//! guest first enables floating-point registers, MMU and caches, and maps everything below 1 GiB as devices. It
//! requires:
//! - a PL011 at 0x900_0000 for the console, with INTID 33 (level) unless a table lists another one;
//! - no memory below 1 GiB; GIC, event device and clock there;
//! - a devicetree with only `/chosen`, whose `linux,uefi-*` properties refer to EFI's system table and thereby to
//!   ACPI; or a devicetree of the whole machine;
//! - a GICv3 or a GICv2; the virtual timer; PSCI 0.2 or later by HVC.
//!
//! # Event device
//! If the DSDT has a Generic Event Device, its scope must contain an operation region in memory. The region starts
//! with the 32-bit selector, followed by a 32-bit loopback register: bits written to it are raised as events.
//!
//! # The report
//! Each line is `probe: KEY VALUE...` and ends with CR LF. Numbers are decimal, or hexadecimal with `0x`. In external
//! text, bytes that are not printable ASCII, and `"` and `\`, are printed as `\xNN`. Lines are printed in this order; the last one
//! is `ok` or `failed`.
//!
//! | line | meaning |
//! |---|---|
//! | `entry linux64`, `pvh` or `image` | entry point |
//! | `cmdline "TEXT"` | command line; at most 2047 bytes on x86_64 |
//! | `memory START-END KIND` | a region of the memory map, `END` exclusive; `KIND` is `usable`, `reserved`, `acpi` or `nvs`. One line per region, in the order of the map: e820, EFI (conventional memory is `usable`) or devicetree |
//! | `memory-total BYTES` | sum of all usable regions |
//! | `memory-touched ok` | the first and last 4 KiB of each usable region above 1 MiB, except for the guest's own memory, hold what is written to them |
//! | `firmware acpi`, `mptable` or `devicetree` | the firmware tables that describe the machine |
//! | `devicetree at ADDRESS LENGTH bytes nodes N` | aarch64: the devicetree in X0; 2 nodes if it has only `/chosen` |
//! | `efi ADDRESS version VERSION checksum ok runtime ADDRESS` | aarch64, with EFI: the system table |
//! | `efi-runtime-services MASK` or `unknown` | aarch64, with EFI: the supported services in the RT properties table |
//! | `rsdp ADDRESS from SOURCE` | ACPI: `SOURCE` is `boot-params`, `start-info`, `scan` or `efi` |
//! | `table SIGNATURE at ADDRESS LENGTH bytes checksum ok` or `bad` | each table: `RSDP` (both checksums), `XSDT` (or `RSDT`), all tables in it, `DSDT`; or `_MP_` and `PCMP` |
//! | `error-source ID NOTIFICATION block ADDRESS ack ADDRESS` | each enabled GHESv2 of the HEST: addresses of its status block and its acknowledge register; `NOTIFICATION` is `polled`, `external`, `sci`, `nmi`, `gpio`, `sea`, `sei`, `gsiv`, or `other`. Each `arm,ras-cper` node of a devicetree: `NOTIFICATION` is `cper` |
//! | `error-sources none` | there are no error sources, as with an MP table |
//! | `psci MAJOR.MINOR hvc` | aarch64: PSCI_VERSION |
//! | `timer ok` | the interrupt of the local APIC's timer, or of the virtual timer, was taken |
//! | `cpu INDEX apic-id ID STATE` | x86_64: each processor that the tables list as enabled: `boot` (this one), `online` (started, and read its own id from its APIC) or `silent` |
//! | `cpu INDEX mpidr AFFINITY STATE` | aarch64: the same, with MPIDR_EL1 |
//! | `cpus N listed, M online` | number of processors |
//! | `serial-interrupt ok` | the serial port's transmit interrupt was taken |
//! | `ged ok gsi N events BITS` | an event written to the loopback register raised interrupt `N`, and the selector had these `BITS` |
//! | `ged none` | there is no Generic Event Device, as with an MP table or a devicetree |
//! | `rtc YYYY-MM-DDTHH:MM:SS` | the time of a PNP0B00 in the DSDT, or of a PL031 in the devicetree |
//! | `rtc none` | aarch64: the tables describe no clock, as with ACPI |
//! | `einj types BITS` | with `probe.inject` and similar requests: the error types that EINJ offers |
//! | `einj injected ADDRESS` or `einj refused ADDRESS status N` | the command status of the injection |
//! | `touching ADDRESS` | the guest starts to access a word (`probe.touch` and similar requests) |
//! | `touched ADDRESS fine` | it accessed the word until the timeout |
//! | `error offlined ADDRESS` | the page was reported as poisoned, or the access could not be made; it is not accessed again |
//! | `awaiting N errors` | with `probe.await-errors`: the guest waits |
//! | `error total N` | with `probe.await-errors`: number of reports of pages since the start |
//! | `listening` | with `probe.echo`: the guest reads the console |
//! | `echo TEXT` | a line that was read, up to 256 bytes |
//! | `ok` | all checks passed |
//! | `failed WHY` | the check that failed; after an unexpected exception, `exception N at RIP ADDRESS error CODE`, or on aarch64 `exception ESR SYNDROME ELR ADDRESS FAR ADDRESS` |
//!
//! # Memory errors
//! After the lines up to `rtc`, the guest handles memory errors until its end. Their lines are printed when errors occur,
//! also after `ok` with `probe.exit=hang` and `probe.exit=loop` (non-maskable ones only). Addresses and processors
//! are those that the handler reads; processors are numbered from 0 in table order.
//!
//! | line | meaning |
//! |---|---|
//! | `error machine-check vcpu N bank B status S addr A misc M mcg-status G` | x86_64: a valid bank, on #MC; during `probe.await-errors` also valid banks of the boot processor without #MC. The bank is cleared. `addr` and `misc` are 0 if not valid |
//! | `error nmi vcpu N` | x86_64: an NMI; the `nmi` sources are checked |
//! | `error interrupt ged` | a hardware error event of the event device (bit 5); the `gpio`, `gsiv` and `sci` sources are checked |
//! | `error interrupt gsi N` | the interrupt, a rising edge, of an `external` source or an `arm,ras-cper` node, which is checked |
//! | `error abort vcpu N esr E far F pc P` | aarch64: a synchronous external abort; `far` is `invalid` if ESR_EL1.FnV is set; the `sea` sources are checked |
//! | `error serror vcpu N esr E` | aarch64: an SError; the `sei` sources are checked |
//! | `error record source ID severity S entries N` | a status block that is not empty and has consistent lengths |
//! | `error page ADDRESS section-severity S` | each memory error section with a valid address: the page of 4 KiB |
//! | `error acknowledged source ID` | the block status was cleared, and the acknowledge register written |
//!
//! `S` is `recoverable`, `fatal`, `corrected` or `informational`. The first two mark the page as poisoned; the severity has no other
//! effect. Records from before are processed after the report. Polled sources are checked
//! then, and while the guest accesses memory or waits for errors. A malformed block ends the guest with `failed`, and so
//! does an error in memory that the guest itself needs.
//!
//! An access to a word by `probe.touch` and similar requests is abandoned by #MC with EIPV, by an external abort and by an SError. Any
//! other handler abandons it if the page was reported as poisoned. The instruction is not executed again.
//!
//! All waits end after some seconds, except for console output and console input, and for the power button.
//!
//! # The command line
//! Unknown words and invalid numbers are ignored. Of several words of one kind the last one counts. Numbers are
//! decimal, or hexadecimal with `0x`.
//!
//! | word | effect |
//! |---|---|
//! | `probe.exit=reset` | ends by the ACPI reset register, or PSCI's SYSTEM_RESET, instead of power-off |
//! | `probe.exit=triple-fault` | ends by a triple fault (x86_64) |
//! | `probe.exit=i8042` | ends by the keyboard controller's reset command (x86_64) |
//! | `probe.exit=hang` | halts with interrupts off after `ok` |
//! | `probe.exit=loop` | loops without end after `ok` |
//! | `probe.exit=power-button` | halts after `ok`, and switches off when its power button is pressed, or was pressed since its start (with ACPI) |
//! | `probe.inject=GPA` | after the report, injects an error at GPA by EINJ, and triggers it |
//! | `probe.inject-only=GPA` | the same, without triggering it |
//! | `probe.inject-type=BIT` | the error type; default 0x10, Memory Uncorrectable non-fatal |
//! | `probe.touch=GPA` | after the report, reads the 8 bytes at GPA repeatedly, until a record or a machine check reports their page, an abort ends the access, or the timeout expires. GPA is aligned, not in reserved memory, and not in the guest's own memory. Up to 8 words together with the next two, in the order of the command line |
//! | `probe.store=GPA` | the same, but writes |
//! | `probe.fetch=GPA` | writes a return instruction once, and executes it repeatedly |
//! | `probe.touch-on=N` | processor N makes the accesses; default 0 |
//! | `probe.await-errors=N` | afterwards, waits halted until N pages were reported since the start, by records and machine checks; repeated reports of a page count. Checks at interrupts, and every 50 ms |
//! | `probe.timeout=MS` | milliseconds after which an access loop ends with `fine`, and a wait for errors or for an injection with `failed`; default 3000 |
//! | `probe.echo` | before `ok`, repeats lines from the console until a line is `quit` |
//!
//! After `failed` the guest switches the machine off, or halts if the tables describe no power-off.
//!
//! # Example
//! ```
//! // An ELF file on x86_64, an Image on aarch64. A VMM loads it as it loads a kernel.
//! # if cfg!(any(target_arch = "x86_64", target_arch = "aarch64")) {
//! let image: &[u8] = probe_guest::IMAGE;
//! assert!(image.starts_with(b"\x7fELF") || image[56..].starts_with(b"ARM\x64"));
//! # }
//! ```

/// The guest, an ELF64 executable for x86_64.
#[cfg(target_arch = "x86_64")]
pub static IMAGE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/probe.elf"));

/// The guest, an Image for aarch64.
#[cfg(target_arch = "aarch64")]
pub static IMAGE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/probe.img"));
