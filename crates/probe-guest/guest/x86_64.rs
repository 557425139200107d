//! The x86_64 part: entry, processors, interrupts, console and clock.

use core::arch::global_asm;
use core::ops::Range;

use crate::cmdline::Requests;
use crate::dsdt::{Dsdt, Interrupt};
use crate::failure::Failure;
use crate::format::Hex;
use crate::frames::Frames;
use crate::memory_map::MemoryMap;
use crate::physical::{bytes_at, table_bytes};
use crate::report::{fail, say};
use crate::{Boot, acpi, errors, event_device, injection, tables, touch};

mod boot;
mod cpu;
mod frame;
mod identity;
mod idt;
mod interrupts;
mod intrinsics;
mod io_apic;
mod local_apic;
mod machine_check;
mod madt;
mod mptable;
mod paging;
pub(crate) mod power;
mod processors;
mod rtc;
mod serial;
mod topology;
mod vectors;

pub(crate) use boot::HandedOver;
pub(crate) use cpu::{
    disable_interrupts, enable_interrupts_and_wait as wait_for_interrupt, halt, load, mask_interrupts, store,
    unmask_interrupts,
};
pub(crate) use identity::own_index as processor;
pub(crate) use local_apic::{wait_for, wait_halted, wait_until};
pub(crate) use machine_check::poll as poll_errors;
pub(crate) use paging::mapped_end;
pub(crate) use processors::wake;
pub(crate) use serial::Console;

global_asm!(include_str!("x86_64/entry.s"), options(att_syntax));

/// Search range for an RSDP (ACPI 6.5, 5.2.5.1) and an MP floating pointer (MultiProcessor Specification 1.4, 4). It is memory,
/// even if the memory map does not contain it.
pub(crate) const FIRMWARE_AREA: Range<u64> = 0xe_0000..0x10_0000;
/// End of the range with memory-mapped registers, which is mapped completely.
pub(crate) const DEVICES_END: u64 = 4 << 30;
/// The last KiB of base memory, which is searched first for an MP floating pointer.
const END_OF_BASE_MEMORY: Range<u64> = 0x9_fc00..0xa_0000;

unsafe extern "C" {
    static image_start: u8;
    static image_end: u8;
}

/// Entered from `entry.s` with a stack, segments and a cleared `.bss`.
#[unsafe(no_mangle)]
extern "C" fn start(protocol: u64, handed_over: u64) -> ! {
    serial::set_up();
    idt::fill();
    idt::load();
    let boot = match protocol {
        // SAFETY: the boot loader's RSI.
        0 => unsafe { boot::linux(handed_over) },
        // SAFETY: the boot loader's EBX.
        _ => unsafe { boot::pvh(handed_over) },
    };
    match boot.and_then(|boot| crate::run(&boot)) {
        Ok(requests) => {
            say!("ok");
            power::end(requests.exit)
        }
        Err(why) => fail(&why),
    }
}

/// Initialises and checks the whole machine. Returns the memory that the guest itself uses.
pub(crate) fn check(boot: &Boot, _: &Requests) -> Result<Range<u64>, Failure> {
    let memory = &boot.memory;
    let mut frames =
        Frames::after_image(memory, (&raw const image_start) as u64, (&raw const image_end) as u64)?;
    paging::map_all(memory, &mut frames)?;
    touch::touch(memory, &frames.in_use())?;
    say!("memory-touched ok");

    let firmware = Firmware::find(boot)?;
    errors::register_sources(memory, firmware.hest, core::iter::empty())?;
    let topology = &firmware.topology;
    local_apic::set_up(topology.local_apic, topology.needs_x2apic());
    mask_legacy_interrupts();
    cpu::enable_interrupts();
    local_apic::check_timer()?;
    say!("timer ok");
    processors::start_all(topology, memory, &mut frames)?;

    let boot_processor = local_apic::id();
    let serial = Interrupt { gsi: serial::GSI, level: false, active_low: false };
    io_apic::route(topology, serial, vectors::SERIAL, boot_processor)?;
    serial::enable_transmit_interrupt();
    if !wait_until(serial::transmit_interrupt_taken) {
        return Err(Failure::new("no interrupt from the serial port"));
    }
    say!("serial-interrupt ok");
    match &firmware.devices.ged {
        Some(device) => {
            io_apic::route(topology, device.interrupt, vectors::EVENT_DEVICE, boot_processor)?;
            event_device::check(device)?;
        }
        None => say!("ged none"),
    }
    if firmware.devices.has_rtc {
        rtc::report(firmware.century)?;
    }
    arm(topology)?;
    Ok(frames.in_use())
}

/// Enables handling of memory errors.
fn arm(topology: &topology::Topology) -> Result<(), Failure> {
    machine_check::set_up();
    local_apic::accept_nmis();
    for (source, gsi) in errors::records::external() {
        // Configured like an ISA interrupt, the only kind that Linux maps for external sources.
        let interrupt = Interrupt { gsi, level: false, active_low: false };
        let vector = vectors::FIRST_ERROR + source as u8;
        io_apic::route(topology, interrupt, vector, local_apic::id())?;
    }
    errors::arm();
    Ok(())
}

/// Waits for the next byte from the console, by interrupt, without a timeout.
pub(crate) fn wait_for_input() -> u8 {
    loop {
        cpu::disable_interrupts();
        match serial::input() {
            Some(byte) => {
                cpu::enable_interrupts();
                return byte;
            }
            None => cpu::enable_interrupts_and_wait(),
        }
    }
}

/// The contents of the firmware tables, ACPI or MP table.
struct Firmware {
    topology: topology::Topology,
    devices: Dsdt,
    hest: Option<&'static [u8]>,
    /// Index of the century in the real-time clock's memory; 0 if it has none.
    century: u8,
}

impl Firmware {
    /// Reads ACPI tables if there is an RSDP, else an MP table.
    fn find(boot: &Boot) -> Result<Self, Failure> {
        // SAFETY: base memory and the firmware area are memory on every PC, and mapped.
        let area = |range: Range<u64>| unsafe { bytes_at(range.start, (range.end - range.start) as usize) };
        let at = |range: Range<u64>, offset: usize| range.start + offset as u64;
        let boot::HandedOver { rsdp, rsdp_from } = boot.firmware;
        if rsdp != 0 {
            return Self::from_acpi(&boot.memory, rsdp, rsdp_from);
        }
        if let Some(offset) = acpi::find_rsdp(area(FIRMWARE_AREA)) {
            return Self::from_acpi(&boot.memory, at(FIRMWARE_AREA, offset), "scan");
        }
        for range in [END_OF_BASE_MEMORY, FIRMWARE_AREA] {
            if let Some(offset) = mptable::find_floating_pointer(area(range.clone())) {
                let pointer = area(range.clone()).get(offset..).unwrap_or_default();
                return Self::from_mp_table(&boot.memory, at(range, offset), pointer);
            }
        }
        Err(Failure::new("neither ACPI nor an MP table"))
    }

    fn from_acpi(memory: &MemoryMap, rsdp: u64, from: &str) -> Result<Self, Failure> {
        say!("firmware acpi");
        say!("rsdp ", Hex(rsdp), " from ", from);
        let tables = tables::walk(memory, rsdp)?;
        power::use_acpi(&tables);
        injection::register(tables.einj);
        Ok(Firmware {
            topology: madt::read(tables.madt)?,
            devices: tables.dsdt,
            hest: tables.hest,
            century: tables.fadt.century,
        })
    }

    fn from_mp_table(memory: &MemoryMap, at: u64, pointer: &'static [u8]) -> Result<Self, Failure> {
        say!("firmware mptable");
        let address = mptable::read_floating_pointer(pointer)?;
        tables::report(b"_MP_", at, pointer.get(..16).unwrap_or_default())?;
        let len = mptable::table_len(table_bytes(memory, address, mptable::HEADER_LEN)?)?;
        let table = table_bytes(memory, address, len)?;
        tables::report(b"PCMP", address, table)?;
        Ok(Firmware { topology: mptable::read(table)?, devices: Dsdt::default(), hest: None, century: 0 })
    }
}

/// Masks all interrupts of a PC's two 8259: the guest uses the I/O APIC.
fn mask_legacy_interrupts() {
    const DATA_OF_BOTH: [u16; 2] = [0x21, 0xa1];
    for port in DATA_OF_BOTH {
        cpu::port_out(port, 0xff);
    }
}
