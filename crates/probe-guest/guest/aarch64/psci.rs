//! Power State Coordination Interface calls by HVC (Arm DEN 0022F, chapter 5; calling convention: Arm DEN 0028).

use core::arch::asm;

use super::cpu;

const VERSION: u32 = 0x8400_0000;
const SYSTEM_OFF: u32 = 0x8400_0008;
const SYSTEM_RESET: u32 = 0x8400_0009;
const CPU_ON: u32 = 0xc400_0003;

/// Major and minor version.
pub(crate) fn version() -> (u32, u32) {
    // SAFETY: a query without side effects.
    let version = unsafe { call(VERSION, 0, 0, 0) } as u32;
    (version >> 16, version & 0xffff)
}

/// Starts the processor `mpidr` at a physical address, with the MMU off and `context` in X0.
///
/// # Safety
/// The code at `entry` sets the processor up for Rust code with `context`.
pub(crate) unsafe fn start(mpidr: u64, entry: u64, context: u64) -> Result<(), i32> {
    cpu::publish();
    // SAFETY: by the contract of this function.
    match unsafe { call(CPU_ON, mpidr, entry, context) } as i32 {
        0 => Ok(()),
        error => Err(error),
    }
}

pub(crate) fn switch_off() {
    // SAFETY: ends the machine.
    unsafe { call(SYSTEM_OFF, 0, 0, 0) };
}

pub(crate) fn reset() {
    // SAFETY: ends the machine.
    unsafe { call(SYSTEM_RESET, 0, 0, 0) };
}

/// # Safety
/// The function does not break assumptions of Rust.
unsafe fn call(function: u32, first: u64, second: u64, third: u64) -> u64 {
    let result;
    // SAFETY: by the contract of this function. The callee may change X0 to X17.
    unsafe {
        asm!(
            "hvc #0",
            inout("x0") u64::from(function) => result, inout("x1") first => _, inout("x2") second => _,
            inout("x3") third => _, out("x4") _, out("x5") _, out("x6") _, out("x7") _, out("x8") _, out("x9") _,
            out("x10") _, out("x11") _, out("x12") _, out("x13") _, out("x14") _, out("x15") _, out("x16") _,
            out("x17") _, options(nostack),
        );
    }
    result
}
