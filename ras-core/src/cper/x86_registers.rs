//! Registers of x86 processors: the contexts of their errors (UEFI 2.10, N.2.4.2.2).

use zerocopy::little_endian::{U16, U32, U64};

use crate::layout::{Kind, Layout, Selector, wire};

/// By the kind of the context.
pub(super) const OF_KINDS: &[(Selector, &Layout)] =
    &[(Selector::Number(2), Ia32Registers::LAYOUT), (Selector::Number(3), X64Registers::LAYOUT)];

wire! {
    /// 32-bit mode execution context (UEFI 2.10, N.2.4.2.2, context type 2).
    struct Ia32Registers: 92, "length of registers" {
        eax: U32 = Kind::Hex;
        ebx: U32 = Kind::Hex;
        ecx: U32 = Kind::Hex;
        edx: U32 = Kind::Hex;
        esi: U32 = Kind::Hex;
        edi: U32 = Kind::Hex;
        ebp: U32 = Kind::Hex;
        esp: U32 = Kind::Hex;
        cs: U16 = Kind::Hex;
        ds: U16 = Kind::Hex;
        ss: U16 = Kind::Hex;
        es: U16 = Kind::Hex;
        fs: U16 = Kind::Hex;
        gs: U16 = Kind::Hex;
        eflags: U32 = Kind::Hex;
        eip: U32 = Kind::Hex;
        cr0: U32 = Kind::Hex;
        cr1: U32 = Kind::Hex;
        cr2: U32 = Kind::Hex;
        cr3: U32 = Kind::Hex;
        cr4: U32 = Kind::Hex;
        gdtr: U64 = Kind::Hex;
        idtr: U64 = Kind::Hex;
        ldtr: U16 = Kind::Hex;
        tr: U16 = Kind::Hex;
    }
}

wire! {
    /// 64-bit mode execution context (UEFI 2.10, N.2.4.2.2, context type 3).
    struct X64Registers: 244, "length of registers" {
        rax: U64 = Kind::Hex;
        rbx: U64 = Kind::Hex;
        rcx: U64 = Kind::Hex;
        rdx: U64 = Kind::Hex;
        rsi: U64 = Kind::Hex;
        rdi: U64 = Kind::Hex;
        rbp: U64 = Kind::Hex;
        rsp: U64 = Kind::Hex;
        r8: U64 = Kind::Hex;
        r9: U64 = Kind::Hex;
        r10: U64 = Kind::Hex;
        r11: U64 = Kind::Hex;
        r12: U64 = Kind::Hex;
        r13: U64 = Kind::Hex;
        r14: U64 = Kind::Hex;
        r15: U64 = Kind::Hex;
        cs: U16 = Kind::Hex;
        ds: U16 = Kind::Hex;
        ss: U16 = Kind::Hex;
        es: U16 = Kind::Hex;
        fs: U16 = Kind::Hex;
        gs: U16 = Kind::Hex;
        reserved: U32 = Kind::Reserved;
        rflags: U64 = Kind::Hex;
        rip: U64 = Kind::Hex;
        cr0: U64 = Kind::Hex;
        cr1: U64 = Kind::Hex;
        cr2: U64 = Kind::Hex;
        cr3: U64 = Kind::Hex;
        cr4: U64 = Kind::Hex;
        cr8: U64 = Kind::Hex;
        gdtr: [u8; 16] = Kind::Bytes;
        idtr: [u8; 16] = Kind::Bytes;
        ldtr: U16 = Kind::Hex;
        tr: U16 = Kind::Hex;
    }
}
