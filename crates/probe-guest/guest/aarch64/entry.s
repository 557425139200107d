# Entry points of the guest, for the boot processor and the others: at EL1, with the MMU off.
#
# Before the MMU is on, accesses bypass the caches: only one page table entry is written. The code is position-independent;
# data contains addresses only after `relocate`.

        # Normal memory, write-back (1), and Device-nGnRE (0).
        .set MAIR, 0xff04
        # 48 bits of TTBR0 in 4 KiB granules, walks write-back and inner shareable, no TTBR1.
        .set TCR, 16 | 1 << 8 | 1 << 10 | 3 << 12 | 1 << 23
        # RES1 bits, instruction cache, stack alignment check, data cache, MMU.
        .set SCTLR, 0x30d00800 | 1 << 12 | 1 << 3 | 1 << 2 | 1 << 0
        # Not global, accessed, inner shareable, a block.
        .set BLOCK, 1 << 11 | 1 << 10 | 3 << 8 | 1
        .set NORMAL, BLOCK | 1 << 2
        # Never executed.
        .set DEVICE, BLOCK | 1 << 54 | 1 << 53
        .set TABLE, 3
        .set R_AARCH64_RELATIVE, 1027

        .section .text.entry, "ax"

# X0 holds the address of the devicetree.
        .globl image_entry
image_entry:
        mov x19, x0
        # The first entry of the highest level. Caches must not hold an older copy.
        adrp x0, boot_top
        adrp x1, boot_gigabytes
        orr x1, x1, #TABLE
        str x1, [x0]
        dmb sy
        dc ivac, x0
        dsb sy
        bl set_up_processor
        adrp x0, boot_stack_end
        mov sp, x0

# The loader does not clear it when the machine is reset in place.
        adrp x0, bss_start
        add x0, x0, :lo12:bss_start
        adrp x1, bss_end
        add x1, x1, :lo12:bss_end
1:      cmp x0, x1
        b.hs relocate
        stp xzr, xzr, [x0], #16
        b 1b

# Each entry: offset, type, and addend relative to the image (ELF for the Arm 64-bit Architecture,
# 5.7.14).
relocate:
        adrp x0, relocations
        add x0, x0, :lo12:relocations
        adrp x1, relocations_end
        add x1, x1, :lo12:relocations_end
        adrp x2, image_start
2:      cmp x0, x1
        b.hs 3f
        ldp x3, x4, [x0], #16
        ldr x5, [x0], #8
        cmp x4, #R_AARCH64_RELATIVE
        b.ne stop
        add x5, x5, x2
        str x5, [x2, x3]
        b 2b

3:      mov x0, x19
        bl start
stop:   wfi
        b stop

# Entry of a started processor. X0: end of its stack.
        .globl processor_entry
processor_entry:
        mov x19, x0
        bl set_up_processor
        mov sp, x19
        bl processor_started
        b stop

# Floating-point registers, which the precompiled library uses; vectors; MMU and caches.
set_up_processor:
        msr daifset, #0xf
        mov x0, #(3 << 20)
        msr cpacr_el1, x0
        adrp x0, vectors
        add x0, x0, :lo12:vectors
        msr vbar_el1, x0
        ldr x0, =MAIR
        msr mair_el1, x0
        # Physical address bits of the processor, at most 48.
        mrs x1, id_aa64mmfr0_el1
        and x1, x1, #0xf
        cmp x1, #5
        mov x2, #5
        csel x1, x1, x2, lo
        ldr x0, =TCR
        orr x0, x0, x1, lsl #32
        msr tcr_el1, x0
        adrp x0, boot_top
        msr ttbr0_el1, x0
        tlbi vmalle1
        ic iallu
        dsb sy
        isb
        ldr x0, =SCTLR
        msr sctlr_el1, x0
        isb
        mov x29, xzr
        ret
        .ltorg

# Accesses that a handler may abandon (see errors/accessor.rs). X0: address; returns in X0 whether the access was made.
        .globl accessors_start, accessors_end, accessor_load, accessor_store, accessor_prepare
        .globl accessor_abandoned, accessor_fetch, accessor_fetch_abandoned
accessors_start:
accessor_load:
        ldr x1, [x0]
        b accessor_made
accessor_store:
        str x0, [x0]
        # Write the line back now, not on eviction.
        dsb sy
        b accessor_made
# Writes a return instruction and makes it visible to instruction fetches.
accessor_prepare:
        ldr w1, =0xd65f03c0
        str w1, [x0]
        dc cvau, x0
        dsb ish
        ic ivau, x0
        dsb ish
        isb
accessor_made:
        mov x0, #1
        ret
accessors_end:
accessor_abandoned:
        mov x0, xzr
        ret
accessor_fetch:
        stp x29, x30, [sp, #-16]!
        blr x0
        ldp x29, x30, [sp], #16
        mov x0, #1
        ret
# The called code has not returned.
accessor_fetch_abandoned:
        ldp x29, x30, [sp], #16
        mov x0, xzr
        ret
        .ltorg

        .macro all_vector_registers operation
        \operation q0, q1, [x1], #32
        \operation q2, q3, [x1], #32
        \operation q4, q5, [x1], #32
        \operation q6, q7, [x1], #32
        \operation q8, q9, [x1], #32
        \operation q10, q11, [x1], #32
        \operation q12, q13, [x1], #32
        \operation q14, q15, [x1], #32
        \operation q16, q17, [x1], #32
        \operation q18, q19, [x1], #32
        \operation q20, q21, [x1], #32
        \operation q22, q23, [x1], #32
        \operation q24, q25, [x1], #32
        \operation q26, q27, [x1], #32
        \operation q28, q29, [x1], #32
        \operation q30, q31, [x1], #32
        .endm

        .macro all_registers operation
        \operation x2, x3, [sp, #16]
        \operation x4, x5, [sp, #32]
        \operation x6, x7, [sp, #48]
        \operation x8, x9, [sp, #64]
        \operation x10, x11, [sp, #80]
        \operation x12, x13, [sp, #96]
        \operation x14, x15, [sp, #112]
        \operation x16, x17, [sp, #128]
        \operation x18, x29, [sp, #144]
        .endm

        .set FRAME, 176 + 32 * 16 + 16

# Sixteen vectors of 128 bytes (Arm ARM, D1.3.1.5, table D1-5). Handlers are compiled code, so that all caller-saved registers are saved.
        .globl vectors
        .balign 2048
vectors:
        .set vector, 0
        .rept 16
        .balign 128
        sub sp, sp, #FRAME
        stp x0, x1, [sp]
        mov x0, #vector
        b exception_common
        .set vector, vector + 1
        .endr

exception_common:
        all_registers stp
        mrs x2, fpsr
        mrs x3, fpcr
        str x30, [sp, #160]
        add x1, sp, #176
        all_vector_registers stp
        stp x2, x3, [x1]
        mov x29, xzr
        bl exception
        add x1, sp, #176
        all_vector_registers ldp
        ldp x2, x3, [x1]
        msr fpsr, x2
        msr fpcr, x3
        all_registers ldp
        ldr x30, [sp, #160]
        ldp x0, x1, [sp]
        add sp, sp, #FRAME
        eret

# Identity map: the first GiB for devices, memory from there to 512 GiB.
        .section .rodata.boot_gigabytes, "a"
        .balign 4096
boot_gigabytes:
        .quad DEVICE
        .set gigabyte, 1
        .rept 511
        .quad gigabyte << 30 | NORMAL
        .set gigabyte, gigabyte + 1
        .endr

        .section .data.boot_top, "aw"
        .balign 4096
boot_top:
        .skip 4096

        .section .noinit, "aw", @nobits
        .balign 4096
        .skip 131072
boot_stack_end:
