//! Machine checks (Intel SDM 3B, chapter 17; AMD APM 2, chapter 9).

use core::arch::x86_64::__cpuid;
use core::sync::atomic::{AtomicBool, Ordering};

use super::cpu::{self, read_msr, write_msr};
use super::frame::Frame;
use super::identity;
use crate::errors::poisoned;
use crate::failure::Failure;
use crate::format::Hex;
use crate::report::{fail, say};

const MCG_CAP: u32 = 0x179;
const MCG_STATUS: u32 = 0x17a;
const MCG_CTL: u32 = 0x17b;
/// The first of four registers of the first bank: control, status, address, miscellaneous.
const MC0_CTL: u32 = 0x400;

/// MCG_CAP: number of banks; MCG_CTL is present.
const BANKS: u64 = 0xff;
const CTL_P: u64 = 1 << 8;
/// MCG_STATUS: the program can be restarted; the instruction at RIP is associated with the error.
const RIPV: u64 = 1 << 0;
const EIPV: u64 = 1 << 1;
/// MCi_STATUS: the bank is valid; so is its miscellaneous value; so is its address. The error is uncorrected; AMD: it is deferred,
/// that is, not consumed yet.
const VAL: u64 = 1 << 63;
const MISCV: u64 = 1 << 59;
const ADDRV: u64 = 1 << 58;
const UC: u64 = 1 << 61;
const DEFERRED: u64 = 1 << 44;

/// MCE of CR4.
const CR4_MCE: u64 = 1 << 6;
/// MCE and MCA (Intel SDM 2A, CPUID, leaf 1, EDX).
const CPUID_MCE_MCA: u32 = 1 << 7 | 1 << 14;

static IS_SET_UP: AtomicBool = AtomicBool::new(false);

/// Enables machine checks on the processor that runs this, if it supports them.
pub(crate) fn set_up() {
    if __cpuid(1).edx & CPUID_MCE_MCA != CPUID_MCE_MCA {
        return;
    }
    let capabilities = read_msr(MCG_CAP);
    // SAFETY: these registers enable error reporting and hold errors; the exception has a handler.
    unsafe {
        if capabilities & CTL_P != 0 {
            write_msr(MCG_CTL, u64::MAX);
        }
        for bank in banks() {
            write_msr(bank.control(), u64::MAX);
            write_msr(bank.status(), 0);
        }
        IS_SET_UP.store(true, Ordering::Relaxed);
        cpu::set_cr4(CR4_MCE);
    }
}

pub(crate) fn is_set_up() -> bool {
    IS_SET_UP.load(Ordering::Relaxed)
}

/// Reports errors in banks that raise no exception, such as AMD's deferred errors.
pub(crate) fn poll() {
    if is_set_up() {
        drain_banks(read_msr(MCG_STATUS));
    }
}

/// Handles the exception.
pub(crate) fn exception(frame: &mut Frame) {
    let status = read_msr(MCG_STATUS);
    drain_banks(status);
    // SAFETY: clears MCIP, so that the next machine check does not shut the processor down.
    unsafe { write_msr(MCG_STATUS, 0) };
    if !frame.abandon_access(status & EIPV != 0) && (status & EIPV != 0 || status & RIPV == 0) {
        fail(&Failure::with("machine check outside of a touched word, at RIP", frame.rip));
    }
}

/// Reports and clears the banks.
fn drain_banks(mcg_status: u64) {
    for bank in banks() {
        let status = read_msr(bank.status());
        if status & VAL == 0 {
            continue;
        }
        let read_if = |valid: u64, msr: u32| if status & valid != 0 { read_msr(msr) } else { 0 };
        let (addr, misc) = (read_if(ADDRV, bank.address()), read_if(MISCV, bank.miscellaneous()));
        say!(
            "error machine-check vcpu ",
            identity::own_index(),
            " bank ",
            bank.0,
            " status ",
            Hex(status),
            " addr ",
            Hex(addr),
            " misc ",
            Hex(misc),
            " mcg-status ",
            Hex(mcg_status),
        );
        if status & ADDRV != 0 {
            poisoned::record(addr, status & (UC | DEFERRED) != 0);
        }
        // SAFETY: clears a bank that was read.
        unsafe { write_msr(bank.status(), 0) };
    }
}

/// The banks of the processor that runs this.
fn banks() -> impl Iterator<Item = Bank> {
    (0..(read_msr(MCG_CAP) & BANKS) as u32).map(Bank)
}

struct Bank(u32);

impl Bank {
    fn control(&self) -> u32 {
        MC0_CTL + 4 * self.0
    }

    fn status(&self) -> u32 {
        self.control() + 1
    }

    fn address(&self) -> u32 {
        self.control() + 2
    }

    fn miscellaneous(&self) -> u32 {
        self.control() + 3
    }
}
