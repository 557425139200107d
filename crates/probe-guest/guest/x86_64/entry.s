# Entry points of the guest: boot processor and other processors.
#
# Selectors are those of the Linux 64-bit boot protocol: 0x10 code, 0x18 data.

        .set CODE, 0x10
        .set DATA, 0x18
        .set PRESENT_WRITABLE, 0x3
        .set PRESENT_WRITABLE_LARGE, 0x83
        .set CR0_PE_ET_NE_PG, 0x80000031
        .set CR4_PAE, 0x20
        .set MSR_EFER, 0xc0000080
        .set EFER_LME, 0x100

# PVH: the entry point in 32-bit protected mode (Xen: XEN_ELFNOTE_PHYS32_ENTRY, 18).
        .section .note.pvh, "a", @note
        .balign 4
        .long 4, 4, 18
        .asciz "Xen"
        .long pvh_entry

        .section .text.entry, "ax"

# PVH: EBX holds the address of hvm_start_info, paging is off.
        .code32
        .globl pvh_entry
pvh_entry:
        cli
        cld
        # Identity map of the low 4 GiB: one PML4, one PDPT, four directories of 2 MiB pages.
        xorl %eax, %eax
        movl $first_pml4, %edi
        movl $(2 * 4096 / 4), %ecx
        rep stosl
        movl $(first_pdpt + PRESENT_WRITABLE), first_pml4
        movl $(first_directories + PRESENT_WRITABLE), %eax
        movl $first_pdpt, %edi
        movl $4, %ecx
1:      movl %eax, (%edi)
        addl $4096, %eax
        addl $8, %edi
        loop 1b
        movl $PRESENT_WRITABLE_LARGE, %eax
        movl $first_directories, %edi
        movl $(4 * 512), %ecx
2:      movl %eax, (%edi)
        movl $0, 4(%edi)
        addl $0x200000, %eax
        addl $8, %edi
        loop 2b

        movl $CR4_PAE, %eax
        movl %eax, %cr4
        movl $first_pml4, %eax
        movl %eax, %cr3
        movl $MSR_EFER, %ecx
        rdmsr
        orl $EFER_LME, %eax
        wrmsr
        movl $CR0_PE_ET_NE_PG, %eax
        movl %eax, %cr0
        lgdt gdt_pointer
        movl %ebx, %esi
        movl $1, %edi
        ljmp $CODE, $own_segments

# Linux 64-bit: RSI holds the address of boot_params, the low 4 GiB are identity-mapped.
        .code64
        .globl linux64_entry
linux64_entry:
        cli
        cld
        lgdt gdt_pointer
        xorl %edi, %edi
        movl $boot_stack_end, %esp
        pushq $CODE
        pushq $own_segments
        lretq

# RDI: 0 Linux, 1 PVH; RSI: address of the boot protocol's structure.
own_segments:
        movl $DATA, %eax
        movl %eax, %ds
        movl %eax, %es
        movl %eax, %ss
        movl %eax, %fs
        movl %eax, %gs
        movl $boot_stack_end, %esp
        xorl %ebp, %ebp
        # The loader does not clear it when the machine is reset in place.
        movq %rdi, %r8
        movl $bss_start, %edi
        movl $bss_end, %ecx
        subl %edi, %ecx
        shrl $3, %ecx
        xorl %eax, %eax
        rep stosq
        movq %r8, %rdi
        movl %esi, %esi
        call start
        ud2

# Entry of a started processor: copied to a page below 1 MiB and entered in real mode at its first byte.
        .code16
        .globl trampoline, trampoline_cr3, trampoline_end
trampoline:
        cli
        cld
        movw %cs, %ax
        movw %ax, %ds
        movl $CR4_PAE, %eax
        movl %eax, %cr4
        movl trampoline_cr3 - trampoline, %eax
        movl %eax, %cr3
        movl $MSR_EFER, %ecx
        rdmsr
        orl $EFER_LME, %eax
        wrmsr
        lgdtl trampoline_gdt - trampoline
        movl $CR0_PE_ET_NE_PG, %eax
        movl %eax, %cr0
        ljmpl $CODE, $started
        .balign 4
trampoline_gdt:
        .word gdt_end - gdt - 1
        .long gdt
        .balign 4
trampoline_cr3:
        .long 0
trampoline_end:

        .code64
started:
        movl $DATA, %eax
        movl %eax, %ds
        movl %eax, %es
        movl %eax, %ss
        movl %eax, %fs
        movl %eax, %gs
        # Each processor takes the next stack.
        movl $4096, %eax
        lock xaddq %rax, next_stack
        leaq 4096(%rax), %rsp
        xorl %ebp, %ebp
        call processor_started
        ud2

# Accesses that a handler may abandon (see errors/accessor.rs). RDI: address; returns in RAX whether the access was made.
        .globl accessors_start, accessors_end, accessor_load, accessor_store, accessor_prepare
        .globl accessor_abandoned, accessor_fetch, accessor_fetch_abandoned
accessors_start:
accessor_load:
        movq (%rdi), %rcx
        movl $1, %eax
        ret
accessor_store:
        movq %rdi, (%rdi)
        movl $1, %eax
        ret
# A return instruction.
accessor_prepare:
        movb $0xc3, (%rdi)
        movl $1, %eax
        ret
accessors_end:
accessor_abandoned:
        xorl %eax, %eax
        ret
accessor_fetch:
        call *%rdi
        movl $1, %eax
        ret
# Removes the return address of the call.
accessor_fetch_abandoned:
        addq $8, %rsp
        xorl %eax, %eax
        ret

# One entry of 16 bytes for each vector. All leave the same frame on the stack, with an error code or 0.
        .globl interrupt_entries
        .balign 16
interrupt_entries:
        .set vector, 0
        .rept 256
        .balign 16
        .if vector >= 32 || !((0x60227d00 >> (vector & 31)) & 1)
        pushq $0
        .endif
        pushq $vector
        jmp interrupt_common
        .set vector, vector + 1
        .endr

        .balign 16
interrupt_common:
        pushq %rax
        pushq %rcx
        pushq %rdx
        pushq %rsi
        pushq %rdi
        pushq %r8
        pushq %r9
        pushq %r10
        pushq %r11
        cld
        movq %rsp, %rdi
        call interrupt
        popq %r11
        popq %r10
        popq %r9
        popq %r8
        popq %rdi
        popq %rsi
        popq %rdx
        popq %rcx
        popq %rax
        addq $16, %rsp
        iretq

# The accessed bits are set, so that no processor writes here.
        .section .data, "aw"
        .balign 8
gdt:
        .quad 0, 0
        .quad 0x00af9b000000ffff
        .quad 0x00cf93000000ffff
gdt_end:
        .balign 8
        .word 0
gdt_pointer:
        .word gdt_end - gdt - 1
        .quad gdt

        .globl next_stack
        .balign 8
next_stack:
        .quad 0

        .section .noinit, "aw", @nobits
        .balign 4096
first_pml4:
        .skip 4096
first_pdpt:
        .skip 4096
first_directories:
        .skip 4 * 4096
        .skip 32768
boot_stack_end:
