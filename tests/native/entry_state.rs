//! The registers that a kernel finds: as a PC's firmware leaves them, on every processor (docs/entry-state.md).

use kvm_bindings::{Msrs, kvm_msr_entry};
use kvm_ioctls::{Kvm, VcpuFd};
use libtest_mimic::Trial;
use vcpu::x86_64::{Entry, GuestCpu, Topology};

use crate::harness::{Checked, Ghest, Scratch, kernels, needs, trials};

pub(crate) fn trials() -> Vec<Trial> {
    trials![memory_types, every_processor_has_the_same]
}

/// IA32_MISC_ENABLE.
const MISC_ENABLE: u32 = 0x1a0;
/// IA32_MTRR_DEF_TYPE.
const DEF_TYPE: u32 = 0x2ff;
/// The MTRRs: a variable range, the fixed ranges, and the default.
const MTRRS: [u32; 14] =
    [0x200, 0x201, 0x250, 0x258, 0x259, 0x268, 0x269, 0x26a, 0x26b, 0x26c, 0x26d, 0x26e, 0x26f, DEF_TYPE];

/// Read by the guest.
fn memory_types() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    scratch.file("kernel", kernels::prints_msrs(&[&[MISC_ENABLE][..], &MTRRS].concat()));
    let outcome = Ghest::boot(&scratch.machine("kernel = \"kernel\"")).finish().expect(0);
    let (words, rest) = outcome.stdout.as_chunks::<8>();
    assert_eq!((words.len(), rest.len()), (1 + MTRRS.len(), 0), "{outcome}");
    let values: Vec<u64> = words.iter().map(|word| u64::from_le_bytes(*word)).collect();
    assert_eq!(values[0] & 1, 1, "fast strings");
    let value = |register| values[1 + MTRRS.iter().position(|it| *it == register).expect("listed")];
    assert_eq!(value(DEF_TYPE), 0xc06, "write-back; fixed and variable ranges are enabled");
    // From 3 to 4 GiB: uncacheable.
    assert_eq!((value(0x200), value(0x201) & 0xffff_ffff), (0xc000_0000, 0xc000_0800));
    assert_eq!(value(0x259), 0, "the memory of a VGA adapter: uncacheable");
    for register in [0x250, 0x258, 0x268, 0x269, 0x26a, 0x26b, 0x26c, 0x26d, 0x26e, 0x26f] {
        assert_eq!(value(register), 0x0606_0606_0606_0606, "{register:#x}: write-back");
    }
    Ok(())
}

/// Linux compares the MTRRs of its processors.
fn every_processor_has_the_same() -> Checked {
    needs::kvm()?;
    let kvm = Kvm::new().expect("/dev/kvm");
    let vm = kvm.create_vm().expect("a VM");
    vm.create_irq_chip().expect("interrupt controllers");
    let guest_cpu = GuestCpu::supported(&kvm).expect("CPUID").with_registers_at(0xc000_0000..0x1_0000_0000);
    let entry = Entry::Pvh { eip: 0, start_info: 0 };
    let values = [0, 1].map(|apic_id| {
        let fd = vm.create_vcpu(apic_id).expect("a vCPU");
        let topology = Topology { apic_id: apic_id as u32, vcpus: 2 };
        guest_cpu.set_up(&fd, topology, &entry).expect("registers");
        read(&fd, &[&[MISC_ENABLE][..], &MTRRS].concat())
    });
    assert_eq!(values[0].last(), Some(&0xc06));
    assert_eq!(values[0], values[1]);
    Ok(())
}

fn read(fd: &VcpuFd, registers: &[u32]) -> Vec<u64> {
    let entries: Vec<_> =
        registers.iter().map(|&index| kvm_msr_entry { index, ..Default::default() }).collect();
    let mut msrs = Msrs::from_entries(&entries).expect("a short list");
    assert_eq!(fd.get_msrs(&mut msrs).expect("KVM_GET_MSRS"), registers.len());
    msrs.as_slice().iter().map(|entry| entry.data).collect()
}
