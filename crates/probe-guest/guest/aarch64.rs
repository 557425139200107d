//! The aarch64 part: entry, processors, interrupts, console and clock.

use core::arch::global_asm;
use core::ops::Range;

use crate::acpi::Fadt;
use crate::cmdline::Requests;
use crate::dsdt::{EventDevice, Interrupt};
use crate::errors::records;
use crate::failure::Failure;
use crate::format::Hex;
use crate::frames::Frames;
use crate::hest::Notification;
use crate::memory_map::MemoryMap;
use crate::report::{fail, say};
use crate::{Boot, errors, event_device, injection, tables, touch};

mod aborts;
mod boot;
mod counter;
mod cpu;
mod devicetree;
mod efi;
mod fdt;
mod gic;
mod interrupt_tables;
mod interrupts;
mod intids;
mod intrinsics;
mod madt;
mod paging;
pub(crate) mod power;
mod processors;
mod psci;
mod reserved_memory;
mod rtc;
mod serial;
mod timer;
mod topology;
mod unix_time;

pub(crate) use boot::HandedOver;
pub(crate) use counter::{wait_for, wait_until};
pub(crate) use cpu::{
    disable_interrupts, halt, load, mask_interrupts, store, unmask_interrupts,
    wait_and_enable_interrupts as wait_for_interrupt,
};
pub(crate) use paging::mapped_end;
pub(crate) use processors::{own_index as processor, wake};
pub(crate) use serial::Console;
pub(crate) use timer::wait_halted;

use devicetree::Devicetree;
use intids::Purpose;
use reserved_memory::{ErrorSource, ReservedMemory};
use topology::Topology;

global_asm!(include_str!("aarch64/entry.s"));

/// Empty: the memory map describes all memory.
pub(crate) const FIRMWARE_AREA: Range<u64> = 0..0;
/// End of the range with memory-mapped registers, which is mapped completely.
pub(crate) const DEVICES_END: u64 = 1 << 30;

unsafe extern "C" {
    static image_start: u8;
    static image_end: u8;
}

/// Entered from `entry.s` with a stack, the MMU and caches on, and a cleared `.bss`.
#[unsafe(no_mangle)]
extern "C" fn start(devicetree: u64) -> ! {
    serial::set_up();
    if cpu::exception_level() != 1 {
        fail(&Failure::with("not entered at EL1 but at EL", cpu::exception_level()));
    }
    match boot::read(devicetree).and_then(|boot| crate::run(&boot)) {
        Ok(requests) => {
            say!("ok");
            power::end(requests.exit)
        }
        Err(why) => fail(&why),
    }
}

/// Initialises and checks the whole machine. Returns the memory that the guest itself uses.
pub(crate) fn check(boot: &Boot, requests: &Requests) -> Result<Range<u64>, Failure> {
    let memory = &boot.memory;
    let (start, end) = ((&raw const image_start) as u64, (&raw const image_end) as u64);
    let mut frames = Frames::after_image(memory, start, end)?.up_to(boot.firmware.at.start);
    paging::map_all(memory, &mut frames)?;
    touch::touch(memory, &frames.in_use())?;
    say!("memory-touched ok");

    let firmware = Firmware::find(boot)?;
    errors::register_sources(memory, firmware.hest, firmware.reserved.into_iter().flat_map(sources))?;
    let (major, minor) = psci::version();
    say!("psci ", major, ".", minor, " hvc");
    gic::set_up(&firmware.topology)?;
    cpu::enable_interrupts();
    timer::check(firmware.timer)?;
    say!("timer ok");
    processors::start_all(&firmware.topology, &mut frames, requests.touch_on)?;

    gic::enable(firmware.serial)?;
    intids::assign(Purpose::Serial, firmware.serial.gsi);
    serial::enable_transmit_interrupt();
    if !wait_until(serial::transmit_interrupt_taken) {
        return Err(Failure::new("no interrupt from the serial port"));
    }
    say!("serial-interrupt ok");
    match &firmware.ged {
        Some(device) => {
            gic::enable(device.interrupt)?;
            intids::assign(Purpose::EventDevice, device.interrupt.gsi);
            event_device::check(device)?;
        }
        None => say!("ged none"),
    }
    match firmware.clock {
        Some(address) => rtc::report(address)?,
        None => say!("rtc none"),
    }
    for source in firmware.reserved.into_iter().flat_map(ReservedMemory::error_sources) {
        gic::enable(source?.interrupt)?;
    }
    // Vectors are installed, and SErrors were unmasked together with interrupts.
    errors::arm();
    Ok(frames.in_use())
}

/// The error sources of a devicetree, numbered in its order. A record is acknowledged by setting bit 0.
fn sources(reserved: &ReservedMemory) -> impl Iterator<Item = Result<records::ErrorSource, Failure>> {
    reserved.error_sources().zip(0..).map(|(source, id)| {
        let ErrorSource { block, register, interrupt } = source?;
        let too_long = Failure::with("devicetree: record region too long at", block.start);
        Ok(records::ErrorSource {
            id,
            name: "cper",
            notification: Notification::External { gsi: interrupt.gsi },
            block: block.start,
            block_len: u32::try_from(block.end - block.start).map_err(|_| too_long)?,
            ack: register.start,
            ack_is_wide: register.end - register.start == 8,
            preserve: !1,
            write: 1,
        })
    })
}

/// All errors raise exceptions or interrupts: nothing to poll.
pub(crate) fn poll_errors() {}

/// Waits for the next byte from the console, by interrupt, without a timeout.
pub(crate) fn wait_for_input() -> u8 {
    loop {
        cpu::disable_interrupts();
        match serial::input() {
            Some(byte) => {
                cpu::enable_interrupts();
                return byte;
            }
            None => cpu::wait_and_enable_interrupts(),
        }
    }
}

/// The contents of the firmware tables, ACPI or devicetree.
struct Firmware<'a> {
    topology: Topology,
    timer: Interrupt,
    serial: Interrupt,
    ged: Option<EventDevice>,
    /// Address of a PL031.
    clock: Option<u64>,
    hest: Option<&'static [u8]>,
    /// Reserved memory with the error sources of a devicetree.
    reserved: Option<&'a ReservedMemory>,
}

impl<'a> Firmware<'a> {
    /// Reads ACPI tables if the devicetree has only `/chosen` with EFI properties, else the devicetree.
    fn find(boot: &'a Boot) -> Result<Self, Failure> {
        let HandedOver { at, devicetree, efi } = &boot.firmware;
        let acpi = efi.as_ref().filter(|_| devicetree.has_only_chosen);
        say!("firmware ", if acpi.is_some() { "acpi" } else { "devicetree" });
        say!("devicetree at ", Hex(at.start), " ", at.end - at.start, " bytes nodes ", devicetree.nodes);
        if let Some(efi) = efi {
            efi.report();
        }
        match acpi {
            Some(efi) => Self::from_acpi(&boot.memory, efi),
            None => Self::from_devicetree(devicetree),
        }
    }

    fn from_acpi(memory: &MemoryMap, efi: &boot::Efi) -> Result<Self, Failure> {
        let rsdp = efi.rsdp.ok_or(Failure::new("EFI names no RSDP"))?;
        say!("rsdp ", Hex(rsdp), " from efi");
        let tables = tables::walk(memory, rsdp)?;
        if tables.fadt.arm_boot_arch & Fadt::PSCI_BY_HVC != Fadt::PSCI_BY_HVC {
            return Err(Failure::with("FADT: no PSCI by HVC:", u64::from(tables.fadt.arm_boot_arch)));
        }
        injection::register(tables.einj);
        let gtdt = tables.gtdt.ok_or(Failure::new("no GTDT"))?;
        let serial = tables.spcr.map(interrupt_tables::console).transpose()?;
        Ok(Firmware {
            topology: madt::read(tables.madt)?,
            timer: interrupt_tables::virtual_timer(gtdt)?,
            serial: console_interrupt(serial)?,
            ged: tables.dsdt.ged,
            clock: None,
            hest: tables.hest,
            reserved: None,
        })
    }

    fn from_devicetree(devicetree: &'a Devicetree<'_>) -> Result<Self, Failure> {
        if devicetree.psci_by_hvc != Some(true) {
            return Err(Failure::new("devicetree: no PSCI by HVC"));
        }
        Ok(Firmware {
            topology: devicetree.topology.clone(),
            timer: devicetree.timer.ok_or(Failure::new("devicetree: no virtual timer"))?,
            serial: console_interrupt(devicetree.serial)?,
            ged: None,
            clock: devicetree.clock,
            hest: None,
            reserved: Some(&devicetree.reserved),
        })
    }
}

/// The interrupt of the console in the tables, or the default. Fails if the tables list another console.
fn console_interrupt(listed: Option<(u64, Interrupt)>) -> Result<Interrupt, Failure> {
    match listed {
        None => Ok(serial::INTERRUPT),
        Some((serial::BASE, interrupt)) => Ok(interrupt),
        Some((base, _)) => Err(Failure::with("the tables list another console, at", base)),
    }
}
