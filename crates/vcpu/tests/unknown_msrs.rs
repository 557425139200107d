//! Writes to MSRs that KVM does not have, by a guest on real KVM: the one that a handler of machine checks makes is ignored, another raises
//! #GP.

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    libtest_mimic::run(&arguments, vec![Trial::ignorable_test(NAME, clearing_mca_destat)]).exit_code()
}

const NAME: &str = "clearing_mca_destat_raises_no_exception";

/// Reports what this machine lacks.
fn not_tested(missing: &str) -> Result<libtest_mimic::Completion, libtest_mimic::Failed> {
    eprintln!("\n*** NOT TESTED: {NAME}: {missing} ***");
    Ok(libtest_mimic::Completion::ignored_with(missing))
}

#[cfg(not(target_arch = "x86_64"))]
fn clearing_mca_destat() -> Result<libtest_mimic::Completion, libtest_mimic::Failed> {
    not_tested("its guest is x86_64 code")
}

#[cfg(target_arch = "x86_64")]
use x86_64::clearing_mca_destat;

#[cfg(target_arch = "x86_64")]
mod x86_64 {
    use guest_memory::{Backing, GuestRam};
    use kvm_bindings::kvm_userspace_memory_region;
    use kvm_ioctls::Cap;
    use libtest_mimic::{Completion, Failed};
    use vcpu::x86_64::machine_check;
    use vcpu::{Exit, KvmPort, VcpuPort};

    use super::not_tested;

    const CODE: u64 = 0x1000;
    const HANDLER: u64 = 0x2000;
    /// The vector of #GP in the table of real mode: offset and segment.
    const GENERAL_PROTECTION: u64 = 13 * 4;
    /// Real mode.
    const GUEST: [u8; 22] = [
        0x66, 0xb9, 0x98, 0x20, 0x00, 0xc0, // mov $0xc0002098, %ecx: MCA_DESTAT of bank 9
        0x66, 0x31, 0xc0, // xor %eax, %eax
        0x66, 0x31, 0xd2, // xor %edx, %edx
        0x0f, 0x30, // wrmsr
        0xe6, 0x10, // out %al, $0x10
        0xb0, 0x01, // mov $1, %al
        0x0f, 0x30, // wrmsr
        0xe6, 0x12, // out %al, $0x12
    ];
    /// `out %al, $0x11`.
    const ON_EXCEPTION: [u8; 2] = [0xe6, 0x11];

    #[expect(unsafe_code, reason = "KVM accesses host memory")]
    pub(super) fn clearing_mca_destat() -> Result<Completion, Failed> {
        let kvm = match vcpu::host::open() {
            Ok(kvm) => kvm,
            Err(error) => return not_tested(&error.to_string()),
        };
        if !kvm.check_extension(Cap::X86UserSpaceMsr) {
            return not_tested("KVM here lacks KVM_CAP_X86_USER_SPACE_MSR");
        }
        let ram = GuestRam::allocate(&[(0, 0x1_0000)], Backing::Anonymous)?;
        ram.write(CODE, &GUEST)?;
        ram.write(HANDLER, &ON_EXCEPTION)?;
        ram.write(GENERAL_PROTECTION, &(HANDLER as u32).to_le_bytes())?;
        let vm = kvm.create_vm()?;
        vm.set_tss_address(0xfffb_d000)?;
        machine_check::answer_unknown_msrs(&vm)?;
        for slot in ram.slots() {
            let region = kvm_userspace_memory_region {
                slot: slot.index,
                guest_phys_addr: slot.gpa,
                memory_size: slot.len,
                userspace_addr: slot.hva,
                flags: 0,
            };
            // SAFETY: the vCPU's port keeps a clone of `ram`, and no vCPU runs without one.
            unsafe { vm.set_user_memory_region(region) }?;
        }
        let fd = vm.create_vcpu(0)?;
        let mut sregs = fd.get_sregs()?;
        (sregs.cs.base, sregs.cs.selector) = (0, 0);
        fd.set_sregs(&sregs)?;
        let mut regs = fd.get_regs()?;
        (regs.rip, regs.rsp, regs.rflags) = (CODE, 0x8000, 2);
        fd.set_regs(&regs)?;
        let mut port = KvmPort::new(fd, ram);
        for expected in [0x10, 0x11] {
            let reached = loop {
                match port.run()? {
                    Exit::Interrupted => {}
                    Exit::PortOut { port, .. } => break port,
                    exit => return Err(format!("{exit:?}").into()),
                }
            };
            assert_eq!(reached, expected, "0x10: ignored; 0x11: #GP; 0x12: ignored");
        }
        Ok(Completion::Completed)
    }
}
