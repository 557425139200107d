//! The registers of an x86_64 vCPU for a dump.

use kvm_bindings::{Msrs, kvm_dtable, kvm_msr_entry, kvm_segment};
use kvm_ioctls::VcpuFd;

use crate::core_registers::{CoreRegisters, SegmentRegister, X86_64Registers};
use crate::port::RunError;

/// IA32_KERNEL_GS_BASE.
const KERNEL_GS_BASE: u32 = 0xc000_0102;

pub(crate) fn core_registers(fd: &VcpuFd) -> Result<CoreRegisters, RunError> {
    let regs = fd.get_regs().map_err(RunError::of("KVM_GET_REGS"))?;
    let sregs = fd.get_sregs().map_err(RunError::of("KVM_GET_SREGS"))?;
    Ok(CoreRegisters::X86_64(X86_64Registers {
        rax: regs.rax,
        rbx: regs.rbx,
        rcx: regs.rcx,
        rdx: regs.rdx,
        rsi: regs.rsi,
        rdi: regs.rdi,
        rsp: regs.rsp,
        rbp: regs.rbp,
        r8: [regs.r8, regs.r9, regs.r10, regs.r11, regs.r12, regs.r13, regs.r14, regs.r15],
        rip: regs.rip,
        rflags: regs.rflags,
        cs: segment(&sregs.cs),
        ds: segment(&sregs.ds),
        es: segment(&sregs.es),
        fs: segment(&sregs.fs),
        gs: segment(&sregs.gs),
        ss: segment(&sregs.ss),
        ldtr: segment(&sregs.ldt),
        tr: segment(&sregs.tr),
        gdtr: table(&sregs.gdt),
        idtr: table(&sregs.idt),
        cr0: sregs.cr0,
        cr2: sregs.cr2,
        cr3: sregs.cr3,
        cr4: sregs.cr4,
        kernel_gs_base: kernel_gs_base(fd)?,
    }))
}

fn table(table: &kvm_dtable) -> (u64, u16) {
    (table.base, table.limit)
}

fn segment(segment: &kvm_segment) -> SegmentRegister {
    let bit = |value: u8, bit: u32| u32::from(value & 1) << bit;
    SegmentRegister {
        selector: segment.selector,
        base: segment.base,
        limit: segment.limit,
        attributes: u32::from(segment.type_ & 0xf) << 8
            | bit(segment.s, 12)
            | u32::from(segment.dpl & 3) << 13
            | bit(segment.present, 15)
            | bit(segment.avl, 20)
            | bit(segment.l, 21)
            | bit(segment.db, 22)
            | bit(segment.g, 23),
    }
}

fn kernel_gs_base(fd: &VcpuFd) -> Result<u64, RunError> {
    let failed = RunError::of("KVM_GET_MSRS (IA32_KERNEL_GS_BASE)");
    let entry = kvm_msr_entry { index: KERNEL_GS_BASE, ..Default::default() };
    // Fails only beyond KVM_MAX_MSR_ENTRIES.
    let mut msrs =
        Msrs::from_entries(&[entry]).map_err(|_| failed(vmm_sys_util::errno::Error::new(libc::E2BIG)))?;
    match fd.get_msrs(&mut msrs).map_err(&failed)? {
        0 => Err(failed(vmm_sys_util::errno::Error::new(libc::EINVAL))),
        _ => Ok(msrs.as_slice().first().map_or(0, |entry| entry.data)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_those_of_a_descriptor() {
        // The 64-bit code segment of a kernel: 0x00af9b000000ffff.
        let code = kvm_segment { type_: 0xb, s: 1, present: 1, l: 1, g: 1, ..Default::default() };
        assert_eq!(segment(&code).attributes, 0x00a0_9b00);
        let data = kvm_segment { type_: 3, s: 1, dpl: 3, present: 1, db: 1, avl: 1, ..Default::default() };
        assert_eq!(segment(&data).attributes, 0x0050_f300);
    }
}
