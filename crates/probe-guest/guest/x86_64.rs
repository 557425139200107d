//! What is particular to x86_64: how the guest is entered, its processors, interrupts, console and clock.

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
use crate::{Boot, acpi, errors, event_device, tables, touch};

mod boot;
mod cpu;
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

pub(crate) use boot::HandedOver;
pub(crate) use cpu::{halt, load, mask_interrupts, store, unmask_interrupts};
pub(crate) use local_apic::{wait_for, wait_halted, wait_until};
pub(crate) use machine_check::look as look_for_errors;
pub(crate) use paging::mapped_end;
pub(crate) use processors::{own_index as processor, wake};
pub(crate) use serial::Console;

global_asm!(include_str!("x86_64/entry.s"), options(att_syntax));

/// Where an RSDP (ACPI 6.5, 5.2.5.1) and an MP floating pointer (MultiProcessor Specification 1.4, 4) are looked for.
/// Memory, whether the memory map says so or not.
pub(crate) const FIRMWARE_AREA: Range<u64> = 0xe_0000..0x10_0000;
/// Registers in memory lie below, where all is mapped.
pub(crate) const DEVICES_END: u64 = 4 << 30;
/// The last KiB of base memory, where an MP floating pointer is looked for first.
const END_OF_BASE_MEMORY: Range<u64> = 0x9_fc00..0xa_0000;

unsafe extern "C" {
    static image_start: u8;
    static image_end: u8;
}

/// Entered from `entry.s` with a stack, segments and a cleared `.bss`.
#[unsafe(no_mangle)]
extern "C" fn start(protocol: u64, handed_over: u64) -> ! {
    serial::set_up();
    interrupts::fill_table();
    interrupts::load_table();
    let boot = match protocol {
        // SAFETY: the address is what the boot loader put into RSI.
        0 => unsafe { boot::linux(handed_over) },
        // SAFETY: the address is what the boot loader put into EBX.
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

/// Takes the machine over and checks all of it: the memory that the guest needs itself.
pub(crate) fn check(boot: &Boot, _: &Requests) -> Result<Range<u64>, Failure> {
    let memory = &boot.memory;
    let mut frames =
        Frames::after_image(memory, (&raw const image_start) as u64, (&raw const image_end) as u64)?;
    paging::map_all(memory, &mut frames)?;
    touch::touch(memory, &frames.in_use())?;
    say!("memory-touched ok");

    let firmware = Firmware::find(boot)?;
    errors::learn(memory, firmware.hest, core::iter::empty())?;
    let topology = &firmware.topology;
    local_apic::set_up(topology.local_apic, topology.needs_x2apic());
    mask_legacy_interrupts();
    cpu::enable_interrupts();
    local_apic::check_timer()?;
    say!("timer ok");
    processors::start_all(topology, memory, &mut frames)?;

    let boot_processor = local_apic::id();
    let serial = Interrupt { gsi: serial::GSI, level: false, active_low: false };
    io_apic::route(topology, serial, interrupts::SERIAL, boot_processor)?;
    serial::ask_for_transmitter_empty();
    if !wait_until(serial::transmitter_empty_came) {
        return Err(Failure::new("the serial port's interrupt did not come"));
    }
    say!("serial-interrupt ok");
    match &firmware.devices.ged {
        Some(device) => {
            io_apic::route(topology, device.interrupt, interrupts::EVENT_DEVICE, boot_processor)?;
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

/// Takes memory errors from now on.
fn arm(topology: &topology::Topology) -> Result<(), Failure> {
    machine_check::set_up();
    local_apic::accept_nmis();
    for (place, gsi) in errors::records::external() {
        // As a line of an ISA bus, which are all that Linux takes too.
        let interrupt = Interrupt { gsi, level: false, active_low: false };
        let vector = interrupts::FIRST_ERROR + place as u8;
        io_apic::route(topology, interrupt, vector, local_apic::id())?;
    }
    errors::arm();
    Ok(())
}

/// The next byte from the console, by its interrupt, however long it takes.
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

/// What the firmware tables say, of whichever kind they are.
struct Firmware {
    topology: topology::Topology,
    devices: Dsdt,
    hest: Option<&'static [u8]>,
    /// Index of the century in the real-time clock's memory, 0 where it has none.
    century: u8,
}

impl Firmware {
    /// ACPI where there is an RSDP, else an MP table.
    fn find(boot: &Boot) -> Result<Self, Failure> {
        // SAFETY: base memory and the firmware area are memory on every PC, and mapped.
        let area = |range: Range<u64>| unsafe { bytes_at(range.start, (range.end - range.start) as usize) };
        let found = |range: Range<u64>, offset: usize| range.start + offset as u64;
        let boot::HandedOver { rsdp, rsdp_from } = boot.firmware;
        if rsdp != 0 {
            return Self::from_acpi(&boot.memory, rsdp, rsdp_from);
        }
        if let Some(offset) = acpi::find_rsdp(area(FIRMWARE_AREA)) {
            return Self::from_acpi(&boot.memory, found(FIRMWARE_AREA, offset), "scan");
        }
        for range in [END_OF_BASE_MEMORY, FIRMWARE_AREA] {
            if let Some(offset) = mptable::find_floating_pointer(area(range.clone())) {
                let pointer = area(range.clone()).get(offset..).unwrap_or_default();
                return Self::from_mp_table(&boot.memory, found(range, offset), pointer);
            }
        }
        Err(Failure::new("neither ACPI nor an MP table"))
    }

    fn from_acpi(memory: &MemoryMap, rsdp: u64, from: &str) -> Result<Self, Failure> {
        say!("firmware acpi");
        say!("rsdp ", Hex(rsdp), " from ", from);
        let tables = tables::walk(memory, rsdp)?;
        power::use_acpi(&tables);
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

/// Keeps a PC's pair of 8259 quiet: everything goes through the I/O APIC.
fn mask_legacy_interrupts() {
    const DATA_OF_BOTH: [u16; 2] = [0x21, 0xa1];
    for port in DATA_OF_BOTH {
        cpu::port_out(port, 0xff);
    }
}
