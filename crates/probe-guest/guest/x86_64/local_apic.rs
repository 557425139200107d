//! The local APIC of the processor that runs the code (Intel SDM 3A, chapter 12).

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::{cpu, vectors};
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

/// Default address, used until the tables are read (12.4.5).
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

/// Reads of the counter before the timer counts as broken: seconds even on a fast machine.
const MAX_COUNTER_READS: u32 = 2_000_000;

/// Address of the registers, and whether they are MSRs instead (x2APIC). The same for all processors.
static BASE: AtomicU64 = AtomicU64::new(BASE_AFTER_RESET);
static X2APIC: AtomicBool = AtomicBool::new(false);
/// Whether a timer interrupt was taken.
static TIMER_FIRED: AtomicBool = AtomicBool::new(false);

/// Enables this processor's local APIC. All processors use x2APIC mode if `x2apic` is set or this APIC is already in that mode.
pub(crate) fn set_up(base: u64, x2apic: bool) {
    BASE.store(base, Ordering::Relaxed);
    X2APIC.store(x2apic || cpu::read_msr(MSR_BASE) & BASE_X2APIC != 0, Ordering::Relaxed);
    enable();
    accept_interrupts();
}

/// Enables delivery of interrupts by this processor's local APIC.
pub(crate) fn accept_interrupts() {
    write(offset::TASK_PRIORITY, 0);
    write(offset::SPURIOUS, SOFTWARE_ENABLE | u32::from(vectors::SPURIOUS));
}

/// Enables NMIs on local input 1, where the tables and PCs have them.
pub(crate) fn accept_nmis() {
    write(offset::LINT1, NMI);
}

/// Enables this processor's local APIC in the mode that `set_up` chose.
pub(crate) fn enable() {
    let mode = if X2APIC.load(Ordering::Relaxed) { BASE_X2APIC } else { 0 };
    // SAFETY: changes no memory; the registers stay at `BASE`.
    unsafe { cpu::write_msr(MSR_BASE, cpu::read_msr(MSR_BASE) | BASE_ENABLE | mode) };
}

/// This processor's APIC id, from its local APIC.
pub(crate) fn id() -> u32 {
    let id = read(offset::ID);
    if X2APIC.load(Ordering::Relaxed) { id } else { id >> 24 }
}

/// Handles the timer's interrupt.
pub(crate) fn timer_interrupt() {
    TIMER_FIRED.store(true, Ordering::Relaxed);
}

pub(crate) fn end_of_interrupt() {
    write(offset::END_OF_INTERRUPT, 0);
}

/// Sends INIT: the processor waits for a start-up interrupt.
pub(crate) fn send_init(to: u32) -> Result<(), Failure> {
    command(to, INIT)
}

/// Sends a start-up interrupt: the processor starts in real mode at page `page` (0 to 255).
pub(crate) fn send_start_up(to: u32, page: u8) -> Result<(), Failure> {
    command(to, START_UP | u32::from(page))
}

/// Wakes a halted processor.
pub(crate) fn send_wake(to: u32) -> Result<(), Failure> {
    command(to, ASSERT | u32::from(vectors::WAKE))
}

/// Starts a one-shot timer and waits for its interrupt.
pub(crate) fn check_timer() -> Result<(), Failure> {
    write(offset::DIVIDE, DIVIDE_BY_1);
    write(offset::TIMER, u32::from(vectors::TIMER));
    // 0.1 ms with a bus clock of 1 GHz.
    const COUNT: u32 = 100_000;
    write(offset::INITIAL_COUNT, COUNT);
    let mut reads = 0;
    while !TIMER_FIRED.load(Ordering::Relaxed) {
        let count = read(offset::CURRENT_COUNT);
        reads += 1;
        if reads >= MAX_COUNTER_READS {
            return Err(match count {
                0 => Failure::new("no timer interrupt"),
                COUNT => Failure::new("the timer does not count"),
                _ => Failure::new("the timer is too slow"),
            });
        }
    }
    Ok(())
}

/// Busy-waits for a condition for up to ten seconds (with a bus clock of 1 GHz; longer with a slower one). Returns whether it
/// was met.
pub(crate) fn wait_until(mut condition: impl FnMut() -> bool) -> bool {
    wait(78_000_000, &mut condition)
}

/// Busy-waits for a condition for up to `milliseconds` (with a bus clock of 1 GHz). Returns whether it was met.
pub(crate) fn wait_for(milliseconds: u32, mut condition: impl FnMut() -> bool) -> bool {
    wait(ticks(milliseconds), &mut condition)
}

/// Like [`wait_for`], but halted: checks the condition at each interrupt and every 50 ms.
pub(crate) fn wait_halted(milliseconds: u32, mut condition: impl FnMut() -> bool) -> bool {
    let mut left = ticks(milliseconds);
    write(offset::DIVIDE, DIVIDE_BY_128);
    write(offset::TIMER, u32::from(vectors::TIMER));
    let is_met = loop {
        if condition() {
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
    write(offset::TIMER, TIMER_MASKED | u32::from(vectors::TIMER));
    is_met
}

/// Milliseconds in 128 bus clocks of 1 GHz.
fn ticks(milliseconds: u32) -> u32 {
    const TICKS: u32 = 7_813;
    milliseconds.saturating_mul(TICKS).min(u32::MAX - TICKS)
}

/// Waits for at least `microseconds`.
pub(crate) fn delay(microseconds: u32) {
    wait(8 * microseconds, &mut || false);
}

/// Busy-waits for a condition for up to `ticks` of 128 bus clocks, measured by the masked timer.
fn wait(ticks: u32, condition: &mut dyn FnMut() -> bool) -> bool {
    write(offset::DIVIDE, DIVIDE_BY_128);
    write(offset::TIMER, TIMER_MASKED | u32::from(vectors::TIMER));
    write(offset::INITIAL_COUNT, u32::MAX);
    loop {
        if condition() {
            return true;
        }
        if u32::MAX - read(offset::CURRENT_COUNT) >= ticks {
            return condition();
        }
        cpu::pause();
    }
}

fn command(to: u32, command: u32) -> Result<(), Failure> {
    if X2APIC.load(Ordering::Relaxed) {
        // SAFETY: an interrupt to another processor, which only runs `processor_started`.
        unsafe { cpu::write_msr(msr(offset::COMMAND), u64::from(to) << 32 | u64::from(command)) };
        return Ok(());
    }
    write(offset::COMMAND_HIGH, to << 24);
    write(offset::COMMAND, command);
    if wait_until(|| read(offset::COMMAND) & COMMAND_PENDING == 0) {
        Ok(())
    } else {
        Err(Failure::with("interrupt not delivered to the processor with APIC id", u64::from(to)))
    }
}

fn read(offset: u32) -> u32 {
    if X2APIC.load(Ordering::Relaxed) { cpu::read_msr(msr(offset)) as u32 } else { register(offset).read() }
}

fn write(offset: u32, value: u32) {
    if X2APIC.load(Ordering::Relaxed) {
        // SAFETY: a register of the local APIC, which only raises interrupts that have a handler.
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
