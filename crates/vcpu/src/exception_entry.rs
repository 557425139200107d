//! The registers of an Arm processor after it takes a synchronous exception to EL1 in AArch64 state (Arm ARM DDI 0487,
//! AArch64.TakeException and D1.3.1, exception entry). Arithmetic only, tested on every architecture.

/// The registers of a vCPU before it takes an exception.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Taken {
    /// PC: the instruction that causes it.
    pub(crate) pc: u64,
    /// PSTATE, in the form of SPSR_EL1.
    pub(crate) pstate: u64,
    /// VBAR_EL1.
    pub(crate) vector_base: u64,
    /// SCTLR_EL1.
    pub(crate) system_control: u64,
}

/// Its registers afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entered {
    pub(crate) pc: u64,
    pub(crate) pstate: u64,
}

impl Taken {
    /// The PC of the vector for the exception level and state that the exception is taken from, and the new PSTATE.
    pub(crate) const fn to_el1(self) -> Entered {
        let mode = self.pstate & MODE;
        let offset = if mode & AARCH32 != 0 {
            0x600
        } else if mode == EL0T {
            0x400
        } else if mode == EL1T {
            0x000
        } else {
            0x200
        };
        let mut pstate = self.pstate & PRESERVED | MASKED | EL1H;
        if self.system_control & SPAN == 0 {
            pstate |= PAN;
        }
        if self.system_control & DSSBS != 0 {
            pstate |= SSBS;
        }
        if mode & AARCH32 == 0 {
            // AArch32 has DIT in another bit.
            pstate |= self.pstate & DIT;
        }
        Entered { pc: (self.vector_base & !0x7ff) + offset, pstate }
    }
}

/// PSTATE.M.
const MODE: u64 = 0x1f;
/// PSTATE.M\[4\]: AArch32.
const AARCH32: u64 = 0x10;
const EL0T: u64 = 0b0000;
const EL1T: u64 = 0b0100;
const EL1H: u64 = 0b0101;
/// PSTATE.DAIF.
const MASKED: u64 = 0xf << 6;
/// PSTATE.PAN.
const PAN: u64 = 1 << 22;
/// PSTATE.SSBS.
const SSBS: u64 = 1 << 12;
/// PSTATE.DIT.
const DIT: u64 = 1 << 24;
/// What exception entry preserves: NZCV and PAN. BTYPE, SS, IL and UAO become zero.
const PRESERVED: u64 = 0xf << 28 | PAN;
/// SCTLR_EL1.SPAN: exception entry preserves PAN.
const SPAN: u64 = 1 << 23;
/// SCTLR_EL1.DSSBS: the value of SSBS on exception entry.
const DSSBS: u64 = 1 << 44;

#[cfg(test)]
mod tests {
    use super::*;

    fn from(pstate: u64, system_control: u64) -> Entered {
        Taken { pc: 0x1000, pstate, vector_base: 0xffff_8000_0801_0800, system_control }.to_el1()
    }

    #[test]
    fn each_exception_level_has_its_vector() {
        let offset = |pstate| from(pstate, SPAN).pc - 0xffff_8000_0801_0800;
        assert_eq!([offset(EL1T), offset(0x3c5), offset(0x0), offset(0x10)], [0, 0x200, 0x400, 0x600]);
    }

    #[test]
    fn exception_entry_masks_and_clears_as_specified() {
        // NZCV, SS, IL, SSBS and BTYPE are set.
        let program = 0xf << 28 | 1 << 21 | 1 << 20 | 1 << 12 | 0b11 << 10;
        assert_eq!(from(program, SPAN).pstate, 0xf << 28 | 0x3c5);
        assert_eq!(from(program, 0).pstate, 0xf << 28 | PAN | 0x3c5);
        assert_eq!(from(PAN | DIT, SPAN | DSSBS).pstate, PAN | DIT | SSBS | 0x3c5);
        assert_eq!(from(0x10 | DIT, SPAN).pstate, 0x3c5, "bit 24 is not DIT in AArch32");
    }
}
