//! Registers of Arm processors: the contexts of their errors (UEFI 2.10, N.2.4.4.2).

use zerocopy::little_endian::{U16, U32, U64};

use crate::layout::{Kind, Layout, Selector, wire};

/// By the kind of the context.
pub(super) const OF_KINDS: &[(Selector, &Layout)] = &[
    (Selector::Number(0), GeneralRegisters32::LAYOUT),
    (Selector::Number(1), El1Registers32::LAYOUT),
    (Selector::Number(2), El2Registers32::LAYOUT),
    (Selector::Number(3), SecureRegisters32::LAYOUT),
    (Selector::Number(4), GeneralRegisters::LAYOUT),
    (Selector::Number(5), El1Registers::LAYOUT),
    (Selector::Number(6), El2Registers::LAYOUT),
    (Selector::Number(7), El3Registers::LAYOUT),
    (Selector::Number(8), OtherRegister::LAYOUT),
];

wire! {
    /// AArch32 general purpose registers (UEFI 2.10, N.2.4.4.2, context type 0).
    struct GeneralRegisters32: 64, "length of registers" {
        r0: U32 = Kind::Hex;
        r1: U32 = Kind::Hex;
        r2: U32 = Kind::Hex;
        r3: U32 = Kind::Hex;
        r4: U32 = Kind::Hex;
        r5: U32 = Kind::Hex;
        r6: U32 = Kind::Hex;
        r7: U32 = Kind::Hex;
        r8: U32 = Kind::Hex;
        r9: U32 = Kind::Hex;
        r10: U32 = Kind::Hex;
        r11: U32 = Kind::Hex;
        r12: U32 = Kind::Hex;
        sp: U32 = Kind::Hex;
        lr: U32 = Kind::Hex;
        pc: U32 = Kind::Hex;
    }
}

wire! {
    /// AArch32 EL1 context (UEFI 2.10, N.2.4.4.2, context type 1).
    struct El1Registers32: 96, "length of registers" {
        dfar: U32 = Kind::Hex;
        dfsr: U32 = Kind::Hex;
        ifar: U32 = Kind::Hex;
        isr: U32 = Kind::Hex;
        mair0: U32 = Kind::Hex;
        mair1: U32 = Kind::Hex;
        midr: U32 = Kind::Hex;
        mpidr: U32 = Kind::Hex;
        nmrr: U32 = Kind::Hex;
        prrr: U32 = Kind::Hex;
        sctlr_ns: U32 = Kind::Hex;
        spsr: U32 = Kind::Hex;
        spsr_abt: U32 = Kind::Hex;
        spsr_fiq: U32 = Kind::Hex;
        spsr_irq: U32 = Kind::Hex;
        spsr_svc: U32 = Kind::Hex;
        spsr_und: U32 = Kind::Hex;
        tpidrprw: U32 = Kind::Hex;
        tpidruro: U32 = Kind::Hex;
        tpidrurw: U32 = Kind::Hex;
        ttbcr: U32 = Kind::Hex;
        ttbr0: U32 = Kind::Hex;
        ttbr1: U32 = Kind::Hex;
        dacr: U32 = Kind::Hex;
    }
}

wire! {
    /// AArch32 EL2 context (UEFI 2.10, N.2.4.4.2, context type 2).
    struct El2Registers32: 64, "length of registers" {
        elr_hyp: U32 = Kind::Hex;
        hamair0: U32 = Kind::Hex;
        hamair1: U32 = Kind::Hex;
        hcr: U32 = Kind::Hex;
        hcr2: U32 = Kind::Hex;
        hdfar: U32 = Kind::Hex;
        hifar: U32 = Kind::Hex;
        hpfar: U32 = Kind::Hex;
        hsr: U32 = Kind::Hex;
        htcr: U32 = Kind::Hex;
        htpidr: U32 = Kind::Hex;
        httbr: U32 = Kind::Hex;
        spsr_hyp: U32 = Kind::Hex;
        vtcr: U32 = Kind::Hex;
        vttbr: U32 = Kind::Hex;
        dacr32_el2: U32 = Kind::Hex;
    }
}

wire! {
    /// AArch32 secure context (UEFI 2.10, N.2.4.4.2, context type 3).
    struct SecureRegisters32: 8, "length of registers" {
        sctlr_s: U32 = Kind::Hex;
        spsr_mon: U32 = Kind::Hex;
    }
}

wire! {
    /// AArch64 general purpose registers (UEFI 2.10, N.2.4.4.2, context type 4).
    struct GeneralRegisters: 256, "length of registers" {
        x0: U64 = Kind::Hex;
        x1: U64 = Kind::Hex;
        x2: U64 = Kind::Hex;
        x3: U64 = Kind::Hex;
        x4: U64 = Kind::Hex;
        x5: U64 = Kind::Hex;
        x6: U64 = Kind::Hex;
        x7: U64 = Kind::Hex;
        x8: U64 = Kind::Hex;
        x9: U64 = Kind::Hex;
        x10: U64 = Kind::Hex;
        x11: U64 = Kind::Hex;
        x12: U64 = Kind::Hex;
        x13: U64 = Kind::Hex;
        x14: U64 = Kind::Hex;
        x15: U64 = Kind::Hex;
        x16: U64 = Kind::Hex;
        x17: U64 = Kind::Hex;
        x18: U64 = Kind::Hex;
        x19: U64 = Kind::Hex;
        x20: U64 = Kind::Hex;
        x21: U64 = Kind::Hex;
        x22: U64 = Kind::Hex;
        x23: U64 = Kind::Hex;
        x24: U64 = Kind::Hex;
        x25: U64 = Kind::Hex;
        x26: U64 = Kind::Hex;
        x27: U64 = Kind::Hex;
        x28: U64 = Kind::Hex;
        x29: U64 = Kind::Hex;
        x30: U64 = Kind::Hex;
        sp: U64 = Kind::Hex;
    }
}

wire! {
    /// AArch64 EL1 context (UEFI 2.10, N.2.4.4.2, context type 5).
    struct El1Registers: 136, "length of registers" {
        elr_el1: U64 = Kind::Hex;
        esr_el1: U64 = Kind::Hex;
        far_el1: U64 = Kind::Hex;
        isr_el1: U64 = Kind::Hex;
        mair_el1: U64 = Kind::Hex;
        midr_el1: U64 = Kind::Hex;
        mpidr_el1: U64 = Kind::Hex;
        sctlr_el1: U64 = Kind::Hex;
        sp_el0: U64 = Kind::Hex;
        sp_el1: U64 = Kind::Hex;
        spsr_el1: U64 = Kind::Hex;
        tcr_el1: U64 = Kind::Hex;
        tpidr_el0: U64 = Kind::Hex;
        tpidr_el1: U64 = Kind::Hex;
        tpidrro_el0: U64 = Kind::Hex;
        ttbr0_el1: U64 = Kind::Hex;
        ttbr1_el1: U64 = Kind::Hex;
    }
}

wire! {
    /// AArch64 EL2 context (UEFI 2.10, N.2.4.4.2, context type 6).
    struct El2Registers: 120, "length of registers" {
        elr_el2: U64 = Kind::Hex;
        esr_el2: U64 = Kind::Hex;
        far_el2: U64 = Kind::Hex;
        hacr_el2: U64 = Kind::Hex;
        hcr_el2: U64 = Kind::Hex;
        hpfar_el2: U64 = Kind::Hex;
        mair_el2: U64 = Kind::Hex;
        sctlr_el2: U64 = Kind::Hex;
        sp_el2: U64 = Kind::Hex;
        spsr_el2: U64 = Kind::Hex;
        tcr_el2: U64 = Kind::Hex;
        tpidr_el2: U64 = Kind::Hex;
        ttbr0_el2: U64 = Kind::Hex;
        vtcr_el2: U64 = Kind::Hex;
        vttbr_el2: U64 = Kind::Hex;
    }
}

wire! {
    /// AArch64 EL3 context (UEFI 2.10, N.2.4.4.2, context type 7).
    struct El3Registers: 80, "length of registers" {
        elr_el3: U64 = Kind::Hex;
        esr_el3: U64 = Kind::Hex;
        far_el3: U64 = Kind::Hex;
        mair_el3: U64 = Kind::Hex;
        sctlr_el3: U64 = Kind::Hex;
        sp_el3: U64 = Kind::Hex;
        spsr_el3: U64 = Kind::Hex;
        tcr_el3: U64 = Kind::Hex;
        tpidr_el3: U64 = Kind::Hex;
        ttbr0_el3: U64 = Kind::Hex;
    }
}

wire! {
    /// Miscellaneous system register (UEFI 2.10, N.2.4.4.2, context type 8).
    struct OtherRegister: 10, "length of registers" {
        // As in the encoding of MRS: op2, CRm, CRn, op1, o0.
        encoding: U16 = Kind::Hex;
        value: U64 = Kind::Hex;
    }
}
