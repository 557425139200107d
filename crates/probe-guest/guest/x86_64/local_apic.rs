//! The local APIC of the processor that runs the code (Intel SDM 3A, chapter 12).

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::{cpu, interrupts};
use crate::failure::Failure;
use crate::physical::Register;

/// Registers, by their offset in the page (table 12-1); the x2APIC MSR is 0x800 + offset / 16.
mod offset {
    pub(super) const ID: u32 = 0x20;
    pub(super) const TASK_PRIORITY: u32 = 0x80;
    pub(super) const END_OF_INTERRUPT: u32 = 0xb0;
    pub(super) const SPURIOUS: u32 = 0xf0;
    pub(super) const COMMAND: u32 = 0x300;
    pub(super) const COMMAND_HIGH: u32 = 0x310;
    pub(super) const TIMER: u32 = 0x320;
    pub(super) const LINT1: u32 = 0x360;
    pub(super) const INITIAL_COUNT: u32 = 0x380;
    pub(super) const CURRENT_COUNT: u32 = 0x390;
    pub(super) const DIVIDE: u32 = 0x3e0;
}

/// Until the tables were read (12.4.5).
const BASE_AFTER_RESET: u64 = 0xfee0_0000;

const MSR_BASE: u32 = 0x1b;
const BASE_ENABLE: u64 = 1 << 11;
const BASE_X2APIC: u64 = 1 << 10;
const SOFTWARE_ENABLE: u32 = 1 << 8;
const TIMER_MASKED: u32 = 1 << 16;
const DIVIDE_BY_1: u32 = 0b1011;
const DIVIDE_BY_128: u32 = 0b1010;
const COMMAND_PENDING: u32 = 1 << 12;
/// Delivery mode NMI.
const NMI: u32 = 4 << 8;
/// Level assert; delivery mode fixed.
const ASSERT: u32 = 1 << 14;
/// Level assert; delivery mode INIT.
const INIT: u32 = 1 << 14 | 5 << 8;
/// Level assert; delivery mode start-up.
const START_UP: u32 = 1 << 14 | 6 << 8;

/// Reads of the counter after which it should have moved, or its interrupt have come: seconds even on a fast machine.
const MANY_READS: u32 = 2_000_000;

/// Where the registers are in memory, and whether they are MSRs instead: the same for all processors.
static BASE: AtomicU64 = AtomicU64::new(BASE_AFTER_RESET);
static X2APIC: AtomicBool = AtomicBool::new(false);

/// Switches this processor's local APIC on; `x2apic` or an APIC that is in that mode already decides for all.
pub(crate) fn set_up(base: u64, x2apic: bool) {
    BASE.store(base, Ordering::Relaxed);
    X2APIC.store(x2apic || cpu::read_msr(MSR_BASE) & BASE_X2APIC != 0, Ordering::Relaxed);
    enable();
    accept_interrupts();
}

/// Has this processor's local APIC take interrupts.
pub(crate) fn accept_interrupts() {
    write(offset::TASK_PRIORITY, 0);
    write(offset::SPURIOUS, SOFTWARE_ENABLE | u32::from(interrupts::SPURIOUS));
}

/// Has this processor take NMIs, which the tables have on local input 1, as PCs do.
pub(crate) fn accept_nmis() {
    write(offset::LINT1, NMI);
}

/// Puts this processor's local APIC into the mode that `set_up` chose.
pub(crate) fn enable() {
    let mode = if X2APIC.load(Ordering::Relaxed) { BASE_X2APIC } else { 0 };
    // SAFETY: moves no register and changes no memory; the registers stay where `BASE` says.
    unsafe { cpu::write_msr(MSR_BASE, cpu::read_msr(MSR_BASE) | BASE_ENABLE | mode) };
}

/// This processor's id, as the hardware has it.
pub(crate) fn id() -> u32 {
    let id = read(offset::ID);
    if X2APIC.load(Ordering::Relaxed) { id } else { id >> 24 }
}

pub(crate) fn end_of_interrupt() {
    write(offset::END_OF_INTERRUPT, 0);
}

/// Puts a processor into its wait for a start-up interrupt.
pub(crate) fn send_init(to: u32) -> Result<(), Failure> {
    command(to, INIT)
}

/// Starts a processor at the page `page` (0 to 255) in real mode.
pub(crate) fn send_start_up(to: u32, page: u8) -> Result<(), Failure> {
    command(to, START_UP | u32::from(page))
}

/// Ends the wait of a processor that takes interrupts.
pub(crate) fn send_wake(to: u32) -> Result<(), Failure> {
    command(to, ASSERT | u32::from(interrupts::WAKE))
}

/// Takes a one-shot timer interrupt.
pub(crate) fn check_timer() -> Result<(), Failure> {
    write(offset::DIVIDE, DIVIDE_BY_1);
    write(offset::TIMER, u32::from(interrupts::TIMER));
    // A tenth of a millisecond where the bus clock is a GHz.
    const COUNT: u32 = 100_000;
    write(offset::INITIAL_COUNT, COUNT);
    let mut reads = 0;
    while !interrupts::timer_came() {
        let count = read(offset::CURRENT_COUNT);
        reads += 1;
        if reads >= MANY_READS {
            return Err(match count {
                0 => Failure::new("the timer interrupt did not come"),
                COUNT => Failure::new("the timer does not count"),
                _ => Failure::new("the timer is too slow"),
            });
        }
    }
    Ok(())
}

/// Waits until something happens: false where it did not within ten seconds (of a bus clock of 1 GHz; longer with a
/// slower one).
pub(crate) fn wait_until(mut happened: impl FnMut() -> bool) -> bool {
    wait(78_000_000, &mut happened)
}

/// Waits until something happens, busily: false where it did not within so many milliseconds (of a bus clock of 1 GHz).
pub(crate) fn wait_for(milliseconds: u32, mut happened: impl FnMut() -> bool) -> bool {
    wait(ticks(milliseconds), &mut happened)
}

/// As [`wait_for`], halted: looks whether it happened at each interrupt, and every 50 ms.
pub(crate) fn wait_halted(milliseconds: u32, mut happened: impl FnMut() -> bool) -> bool {
    let mut left = ticks(milliseconds);
    write(offset::DIVIDE, DIVIDE_BY_128);
    write(offset::TIMER, u32::from(interrupts::TIMER));
    let came = loop {
        if happened() {
            break true;
        }
        if left == 0 {
            break false;
        }
        let period = left.min(ticks(50));
        cpu::disable_interrupts();
        write(offset::INITIAL_COUNT, period);
        cpu::enable_interrupts_and_wait();
        left -= period.saturating_sub(read(offset::CURRENT_COUNT)).min(left);
    };
    write(offset::TIMER, TIMER_MASKED | u32::from(interrupts::TIMER));
    came
}

/// Milliseconds in 128 bus clocks of 1 GHz.
fn ticks(milliseconds: u32) -> u32 {
    const TICKS: u32 = 7_813;
    milliseconds.saturating_mul(TICKS).min(u32::MAX - TICKS)
}

/// Lets at least `microseconds` go by.
pub(crate) fn delay(microseconds: u32) {
    wait(8 * microseconds, &mut || false);
}

/// Waits for at most `ticks` of 128 bus clocks. The timer serves as the clock, masked.
fn wait(ticks: u32, happened: &mut dyn FnMut() -> bool) -> bool {
    write(offset::DIVIDE, DIVIDE_BY_128);
    write(offset::TIMER, TIMER_MASKED | u32::from(interrupts::TIMER));
    write(offset::INITIAL_COUNT, u32::MAX);
    loop {
        if happened() {
            return true;
        }
        if u32::MAX - read(offset::CURRENT_COUNT) >= ticks {
            return happened();
        }
        cpu::pause();
    }
}

fn command(to: u32, command: u32) -> Result<(), Failure> {
    if X2APIC.load(Ordering::Relaxed) {
        // SAFETY: an interrupt to another processor, which runs nothing but `started`.
        unsafe { cpu::write_msr(msr(offset::COMMAND), u64::from(to) << 32 | u64::from(command)) };
        return Ok(());
    }
    write(offset::COMMAND_HIGH, to << 24);
    write(offset::COMMAND, command);
    if wait_until(|| read(offset::COMMAND) & COMMAND_PENDING == 0) {
        Ok(())
    } else {
        Err(Failure::with("an interrupt was not sent to the processor with APIC id", u64::from(to)))
    }
}

fn read(offset: u32) -> u32 {
    if X2APIC.load(Ordering::Relaxed) { cpu::read_msr(msr(offset)) as u32 } else { register(offset).read() }
}

fn write(offset: u32, value: u32) {
    if X2APIC.load(Ordering::Relaxed) {
        // SAFETY: of the local APIC, which raises only interrupts that have a handler.
        unsafe { cpu::write_msr(msr(offset), u64::from(value)) };
    } else {
        register(offset).write(value);
    }
}

fn register(offset: u32) -> Register {
    // SAFETY: the base is the one that the firmware tables give; the low 4 GiB are mapped.
    unsafe { Register::at(BASE.load(Ordering::Relaxed) + u64::from(offset)) }
}

fn msr(offset: u32) -> u32 {
    0x800 + offset / 16
}
