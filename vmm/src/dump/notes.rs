//! The notes of a dump: registers in the forms of Linux's core files and of QEMU's dumps, and VMCOREINFO.

use vcpu::{Aarch64Registers, CoreRegisters, SegmentRegister, X86_64Registers};
use zerocopy::little_endian::{U32, U64};
use zerocopy::{Immutable, IntoBytes, Unaligned};

use super::vmcoreinfo;
use crate::elf::Note;

/// NT_PRSTATUS (Linux, include/uapi/linux/elf.h), with the name of notes of processes.
const PRSTATUS: u32 = 1;
const CORE: &[u8] = b"CORE\0";
/// The name of QEMU's note.
const QEMU: &[u8] = b"QEMU\0";

/// Notes, one after the other.
#[derive(Debug)]
pub(super) struct Notes(Vec<u8>);

impl Notes {
    /// Those of vCPUs.
    pub(super) fn of(registers: &[CoreRegisters]) -> Self {
        let mut notes = Notes(Vec::new());
        for (registers, pid) in registers.iter().zip(1..) {
            match registers {
                CoreRegisters::X86_64(of) => {
                    notes.add(CORE, PRSTATUS, status(pid, UserRegisters::from(of)).as_bytes())
                }
                CoreRegisters::Aarch64(of) => {
                    notes.add(CORE, PRSTATUS, status(pid, ArmRegisters::from(of)).as_bytes());
                }
                _ => {}
            }
        }
        for registers in registers {
            if let CoreRegisters::X86_64(of) = registers {
                notes.add(QEMU, 0, CpuState::from(of).as_bytes());
            }
        }
        notes
    }

    /// Adds that of the guest's kernel.
    pub(super) fn add_vmcoreinfo(&mut self, descriptor: &[u8]) {
        self.add(vmcoreinfo::NAME, 0, descriptor);
    }

    fn add(&mut self, name: &[u8], kind: u32, descriptor: &[u8]) {
        let header = Note {
            name_size: (name.len() as u32).into(),
            descriptor_size: (descriptor.len() as u32).into(),
            kind: kind.into(),
        };
        for part in [header.as_bytes(), name, descriptor] {
            self.0.extend_from_slice(part);
            self.0.resize(self.0.len().next_multiple_of(4), 0);
        }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

/// `struct elf_prstatus` of a 64-bit architecture with its registers (Linux, include/linux/elfcore.h). Of the rest a debugger needs the pid,
/// which distinguishes the vCPUs.
#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct Status<R> {
    signal_and_times: [u8; 32],
    pid: U32,
    parents_and_times: [u8; 76],
    registers: R,
    has_floating_point: U32,
    padding: U32,
}

fn status<R>(pid: u32, registers: R) -> Status<R> {
    Status {
        signal_and_times: [0; 32],
        pid: pid.into(),
        parents_and_times: [0; 76],
        registers,
        has_floating_point: 0.into(),
        padding: 0.into(),
    }
}

/// `struct user_regs_struct` (Linux, arch/x86/include/asm/user_64.h).
#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct UserRegisters {
    r15_to_r12: [U64; 4],
    rbp: U64,
    rbx: U64,
    r11_to_r8: [U64; 4],
    rax: U64,
    rcx: U64,
    rdx: U64,
    rsi: U64,
    rdi: U64,
    /// Of a system call.
    original_rax: U64,
    rip: U64,
    cs: U64,
    rflags: U64,
    rsp: U64,
    ss: U64,
    fs_base: U64,
    gs_base: U64,
    ds: U64,
    es: U64,
    fs: U64,
    gs: U64,
}

impl From<&X86_64Registers> for UserRegisters {
    fn from(of: &X86_64Registers) -> Self {
        let [r8, r9, r10, r11, r12, r13, r14, r15] = of.r8.map(U64::from);
        let selector = |segment: SegmentRegister| u64::from(segment.selector).into();
        UserRegisters {
            r15_to_r12: [r15, r14, r13, r12],
            rbp: of.rbp.into(),
            rbx: of.rbx.into(),
            r11_to_r8: [r11, r10, r9, r8],
            rax: of.rax.into(),
            rcx: of.rcx.into(),
            rdx: of.rdx.into(),
            rsi: of.rsi.into(),
            rdi: of.rdi.into(),
            original_rax: 0.into(),
            rip: of.rip.into(),
            cs: selector(of.cs),
            rflags: of.rflags.into(),
            rsp: of.rsp.into(),
            ss: selector(of.ss),
            fs_base: of.fs.base.into(),
            gs_base: of.gs.base.into(),
            ds: selector(of.ds),
            es: selector(of.es),
            fs: selector(of.fs),
            gs: selector(of.gs),
        }
    }
}

/// `struct user_pt_regs` (Linux, arch/arm64/include/uapi/asm/ptrace.h).
#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct ArmRegisters {
    x: [U64; 31],
    sp: U64,
    pc: U64,
    pstate: U64,
}

impl From<&Aarch64Registers> for ArmRegisters {
    fn from(of: &Aarch64Registers) -> Self {
        ArmRegisters { x: of.x.map(U64::from), sp: of.sp.into(), pc: of.pc.into(), pstate: of.pstate.into() }
    }
}

/// The descriptor of QEMU's note, `QEMUCPUState` version 1 (QEMU, target/i386/arch_dump.c): crash reads CR3 and IDTR there if there is no
/// VMCOREINFO, to find a kernel at a random address.
#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct CpuState {
    version: U32,
    size: U32,
    rax: U64,
    rbx: U64,
    rcx: U64,
    rdx: U64,
    rsi: U64,
    rdi: U64,
    rsp: U64,
    rbp: U64,
    r8: [U64; 8],
    rip: U64,
    rflags: U64,
    cs: Segment,
    ds: Segment,
    es: Segment,
    fs: Segment,
    gs: Segment,
    ss: Segment,
    ldtr: Segment,
    tr: Segment,
    gdtr: Segment,
    idtr: Segment,
    /// CR0 to CR4.
    cr: [U64; 5],
    kernel_gs_base: U64,
}

/// `QEMUCPUSegment`.
#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct Segment {
    selector: U32,
    limit: U32,
    flags: U32,
    padding: U32,
    base: U64,
}

impl From<SegmentRegister> for Segment {
    fn from(of: SegmentRegister) -> Self {
        Segment {
            selector: u32::from(of.selector).into(),
            limit: of.limit.into(),
            flags: of.attributes.into(),
            padding: 0.into(),
            base: of.base.into(),
        }
    }
}

impl From<&X86_64Registers> for CpuState {
    fn from(of: &X86_64Registers) -> Self {
        let table = |(base, limit): (u64, u16)| {
            Segment::from(SegmentRegister { base, limit: limit.into(), ..Default::default() })
        };
        CpuState {
            version: 1.into(),
            size: (size_of::<CpuState>() as u32).into(),
            rax: of.rax.into(),
            rbx: of.rbx.into(),
            rcx: of.rcx.into(),
            rdx: of.rdx.into(),
            rsi: of.rsi.into(),
            rdi: of.rdi.into(),
            rsp: of.rsp.into(),
            rbp: of.rbp.into(),
            r8: of.r8.map(U64::from),
            rip: of.rip.into(),
            rflags: of.rflags.into(),
            cs: of.cs.into(),
            ds: of.ds.into(),
            es: of.es.into(),
            fs: of.fs.into(),
            gs: of.gs.into(),
            ss: of.ss.into(),
            ldtr: of.ldtr.into(),
            tr: of.tr.into(),
            gdtr: table(of.gdtr),
            idtr: table(of.idtr),
            cr: [of.cr0, 0, of.cr2, of.cr3, of.cr4].map(U64::from),
            kernel_gs_base: of.kernel_gs_base.into(),
        }
    }
}

const _: () = {
    assert!(size_of::<Status<UserRegisters>>() == 336 && size_of::<Status<ArmRegisters>>() == 392);
    assert!(std::mem::offset_of!(Status<UserRegisters>, pid) == 32);
    assert!(std::mem::offset_of!(Status<UserRegisters>, registers) == 112);
    assert!(size_of::<CpuState>() == 440);
};
