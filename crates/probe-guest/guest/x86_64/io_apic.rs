//! I/O APICs (Intel 82093AA, 3.0).

use super::topology::{IoApic, Topology};
use crate::dsdt::Interrupt;
use crate::failure::Failure;
use crate::physical::Register;

/// Registers in memory.
const SELECT: u64 = 0x00;
const WINDOW: u64 = 0x10;
/// Indirect registers.
const VERSION: u32 = 0x01;
const REDIRECTION: u32 = 0x10;

const ACTIVE_LOW: u32 = 1 << 13;
const LEVEL: u32 = 1 << 15;

/// Routes an interrupt to `vector` of the processor with APIC id `to`, and unmasks it.
pub(crate) fn route(topology: &Topology, interrupt: Interrupt, vector: u8, to: u32) -> Result<(), Failure> {
    let gsi = interrupt.gsi;
    let (io_apic, pin) = topology
        .io_apics()
        .find_map(|io_apic| {
            let pin = gsi.checked_sub(io_apic.gsi_base)?;
            (pin < pins(io_apic)).then_some((io_apic, pin))
        })
        .ok_or(Failure::with("no I/O APIC has interrupt", u64::from(gsi)))?;
    let to =
        u8::try_from(to).map_err(|_| Failure::with("an I/O APIC cannot reach APIC id", u64::from(to)))?;
    let mut entry = u32::from(vector);
    if interrupt.active_low {
        entry |= ACTIVE_LOW;
    }
    if interrupt.level {
        entry |= LEVEL;
    }
    write(io_apic, REDIRECTION + 2 * pin + 1, u32::from(to) << 24);
    write(io_apic, REDIRECTION + 2 * pin, entry);
    Ok(())
}

fn pins(io_apic: &IoApic) -> u32 {
    (read(io_apic, VERSION) >> 16 & 0xff) + 1
}

fn read(io_apic: &IoApic, index: u32) -> u32 {
    register(io_apic, SELECT).write(index);
    register(io_apic, WINDOW).read()
}

fn write(io_apic: &IoApic, index: u32, value: u32) {
    register(io_apic, SELECT).write(index);
    register(io_apic, WINDOW).write(value);
}

fn register(io_apic: &IoApic, offset: u64) -> Register {
    // SAFETY: the base is from the firmware tables; the low 4 GiB are mapped.
    unsafe { Register::at(u64::from(io_apic.base) + offset) }
}
