//! The built-in guest: the kernel of a profile that names none.
//!
//! A `no_std` program of some 60 KiB that takes a whole machine over, compares what it was told with what it finds, says
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
//! - NMIs on local input 1, as a PC has them;
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
//! | `error-source ID NOTIFICATION block ADDRESS ack ADDRESS` | each enabled GHESv2 of the HEST: where its status block and its acknowledge register are; `NOTIFICATION` is `polled`, `external`, `sci`, `nmi`, `gpio`, `sea`, `sei`, `gsiv`, or `other` |
//! | `error-sources none` | there are none, as with an MP table or a devicetree |
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
//! | `touching ADDRESS` | it begins to touch that word (`probe.touch` and the like) |
//! | `touched ADDRESS fine` | it did so until its patience was over |
//! | `error offlined ADDRESS` | it was told that the page is lost, or could not make the access, and never touches it again |
//! | `awaiting N errors` | with `probe.await-errors`: it waits |
//! | `error total N` | with `probe.await-errors`: of how many pages it was told by then |
//! | `listening` | with `probe.echo`: it reads the console |
//! | `echo TEXT` | a line that was read, up to 256 bytes |
//! | `ok` | all of the above was as it should be |
//! | `failed WHY` | what was not; where the guest itself stumbled, `exception N at RIP ADDRESS error CODE`, or on aarch64 `exception ESR SYNDROME ELR ADDRESS FAR ADDRESS` |
//!
//! # Memory errors
//! Once all up to `rtc` is reported, the guest takes memory errors, until its end: their lines come whenever errors do,
//! also after `ok` with `probe.exit=hang` and `probe.exit=loop` (only what cannot be masked). Addresses and processors
//! are as the handler finds them; processors count from 0 in the order of the tables.
//!
//! | line | meaning |
//! |---|---|
//! | `error machine-check vcpu N bank B status S addr A misc M mcg-status G` | x86_64: a bank that held something, by #MC; while it waits with `probe.await-errors`, also banks of the boot processor that no #MC tells of. The bank is emptied. What has no valid address or miscellaneous value has 0 |
//! | `error nmi vcpu N` | x86_64: an NMI; the `nmi` sources are looked at |
//! | `error interrupt ged` | the event device tells of a hardware error (bit 5); the `gpio`, `gsiv` and `sci` sources are looked at |
//! | `error interrupt gsi N` | x86_64: the interrupt, a rising edge, of an `external` source, which is looked at |
//! | `error abort vcpu N esr E far F pc P` | aarch64: a synchronous external abort; `far` is `invalid` where the syndrome says so; the `sea` sources are looked at |
//! | `error serror vcpu N esr E` | aarch64: an SError; the `sei` sources are looked at |
//! | `error record source ID severity S entries N` | a status block with something in it, of which all lengths agree |
//! | `error page ADDRESS section-severity S` | each of its sections about memory with a valid address: the page of 4 KiB |
//! | `error acknowledged source ID` | its status is cleared, and the acknowledge register written |
//!
//! `S` is `recoverable`, `fatal`, `corrected` or `informational`; nothing is made of the severity but that the first two
//! mean that a page is lost. Records that came before are taken when the report is out. Polled sources are looked at
//! then, and while the guest touches memory and waits for errors. A malformed block ends the guest with `failed`, and so
//! does an error in what the guest itself needs.
//!
//! An access to a word that the guest touches is abandoned by #MC with EIPV, by an external abort and by an SError, and by
//! any other handler once it was told of the page: the instruction is not executed again.
//!
//! All waits but those for room in the console and for its input end after some seconds.
//!
//! # The command line
//! Words it does not know, and numbers that are none, are ignored; of several of the same kind the last counts. Numbers are
//! decimal, or hexadecimal after `0x`.
//!
//! | word | effect |
//! |---|---|
//! | `probe.exit=reset` | ends by the ACPI reset register, or PSCI's SYSTEM_RESET, rather than by switching off |
//! | `probe.exit=triple-fault` | ends by a triple fault (x86_64) |
//! | `probe.exit=i8042` | ends by the keyboard controller's reset command (x86_64) |
//! | `probe.exit=hang` | halts for ever, with interrupts off, after `ok` |
//! | `probe.exit=loop` | stays busy for ever after `ok` |
//! | `probe.touch=GPA` | after the report, reads the 8 bytes there over and over, until it is told that their page is lost, by a record or a machine check, or an abort ends the access. Memory that is not reserved, aligned, and not the guest's own. With the next two, up to 8 times; one after the other, in the order of the command line |
//! | `probe.store=GPA` | writes them instead |
//! | `probe.fetch=GPA` | writes a return instruction there once, and executes it |
//! | `probe.touch-on=N` | processor N does the touching; 0 where this is left out |
//! | `probe.await-errors=N` | after that, waits halted until it was told of N pages since the start, in records and machine checks, whether of the same page or not; looks at interrupts, and every 50 ms |
//! | `probe.timeout=MS` | milliseconds after which a touch is fine, and a wait for errors has `failed`; 3000 where this is left out |
//! | `probe.echo` | before `ok`, repeats lines from the console until one says `quit` |
//!
//! After `failed` it always switches off, or, where nothing names a way to, halts.

/// The guest, an ELF64 executable for x86_64.
#[cfg(target_arch = "x86_64")]
pub static IMAGE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/probe.elf"));

/// The guest, an Image for arm64.
#[cfg(target_arch = "aarch64")]
pub static IMAGE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/probe.img"));
