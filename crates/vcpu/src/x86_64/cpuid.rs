//! CPUID of a vCPU, derived from what KVM supports.
//!
//! Sources: Intel SDM volume 2A, CPUID (2023-12); AMD64 Architecture Programmer's Manual volume 3, appendix E.

use kvm_bindings::{KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2};

/// The topology of a vCPU: one package, one thread per core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Topology {
    /// x2APIC id of this vCPU; also its index.
    pub apic_id: u32,
    /// Number of vCPUs of the machine, at least 1.
    pub vcpus: u32,
}

impl Topology {
    /// Bits of an x2APIC id that distinguish the vCPUs of the package.
    fn package_shift(self) -> u32 {
        self.vcpus.max(1).next_power_of_two().trailing_zeros()
    }
}

/// Leaf 1 ECX: TSC-deadline timer of the local APIC.
const TSC_DEADLINE: u32 = 1 << 24;
/// Leaf 1 ECX: x2APIC.
const X2APIC: u32 = 1 << 21;
/// Leaf 1 ECX: a hypervisor is present.
const HYPERVISOR: u32 = 1 << 31;
/// Leaf 1 EDX: more than one logical processor in the package.
const HTT: u32 = 1 << 28;
/// Leaf 1 EDX: machine-check exception and architecture.
const MCE_MCA: u32 = 1 << 7 | 1 << 14;
/// Leaf 8000_0001 ECX, AMD: the logical processors are cores, not threads (CmpLegacy).
const CMP_LEGACY: u32 = 1 << 1;
/// Leaf 8000_0001 ECX, AMD: leaves 8000_001d and 8000_001e exist (TopologyExtensions).
const TOPOLOGY_EXTENSIONS: u32 = 1 << 22;

/// Leaf 8000_0007 EBX, AMD: McaOverflowRecov and SUCCOR: software can recover from an overflow of the machine-check banks, and from an
/// uncorrected error whose data is poisoned. Without both, Linux panics on such a machine check.
const OVERFLOW_RECOVERY_SUCCOR: u32 = 1 << 1 | 1 << 0;
/// Leaf 8000_0007 EBX, AMD: ScalableMca. The processor has the MSRs c000_2000 to c000_2fff (MCA_STATUS, MCA_CONFIG, MCA_DESTAT ... of each
/// bank), which KVM does not emulate.
const SCALABLE_MCA: u32 = 1 << 3;

/// The CPUID entries of a vCPU, from those that KVM supports (KVM_GET_SUPPORTED_CPUID).
#[must_use]
pub fn shape(
    supported: &[kvm_cpuid_entry2],
    topology: Topology,
    tsc_deadline: bool,
) -> Vec<kvm_cpuid_entry2> {
    let amd =
        supported.iter().any(|leaf| leaf.function == 0 && (leaf.ebx, leaf.edx, leaf.ecx) == AUTHENTIC_AMD);
    let mut entries: Vec<_> =
        supported.iter().filter(|leaf| !matches!(leaf.function, 0xb | 0x1f)).copied().collect();
    for leaf in &mut entries {
        match leaf.function {
            0 => leaf.eax = leaf.eax.max(0xb),
            1 => shape_features(leaf, topology, tsc_deadline),
            4 => share_caches(leaf, topology),
            0x8000_0001 if amd => {
                leaf.ecx |= TOPOLOGY_EXTENSIONS;
                if topology.vcpus > 1 {
                    leaf.ecx |= CMP_LEGACY;
                } else {
                    leaf.ecx &= !CMP_LEGACY;
                }
            }
            0x8000_0007 if amd => leaf.ebx = leaf.ebx & !SCALABLE_MCA | OVERFLOW_RECOVERY_SUCCOR,
            // Bits 7:0: threads of the package, minus 1. Bits 15:12: bits of the APIC id for them.
            0x8000_0008 if amd => {
                leaf.ecx =
                    leaf.ecx & !0xf0ff | (topology.vcpus - 1).min(0xff) | topology.package_shift() << 12;
            }
            // EAX: extended APIC id. EBX: core id, one thread per core. ECX: one node.
            0x8000_001e if amd => {
                leaf.eax = topology.apic_id;
                leaf.ebx = topology.apic_id & 0xff;
                leaf.ecx = 0;
            }
            _ => {}
        }
    }
    entries.extend(extended_topology(topology));
    entries
}

/// Bits of a guest physical address, from the CPUID entries of a vCPU.
///
/// Leaf 8000_0008 EAX, bits 7:0: those of the processor. Bits 23:16, if they are not 0: those that KVM can map for a guest, of
/// a processor that has more (AMD64 APM volume 3, E.4.7; Linux 6.10). Processors without the leaf have 36 (Intel SDM volume 3A,
/// 4.1.4).
#[must_use]
pub fn address_bits(entries: &[kvm_cpuid_entry2]) -> u8 {
    let [processor, _, mapped, _] = address_sizes(entries);
    if mapped == 0 { processor } else { mapped.min(processor) }
}

/// Bits of the processor's physical addresses (MAXPHYADDR), whatever part of them KVM can map: a mask of the MTRRs has all of them.
pub(super) fn processor_address_bits(entries: &[kvm_cpuid_entry2]) -> u8 {
    address_sizes(entries)[0]
}

/// The bytes of EAX of leaf 8000_0008: PhysAddrSize, LinAddrSize, GuestPhysAddrSize, reserved.
fn address_sizes(entries: &[kvm_cpuid_entry2]) -> [u8; 4] {
    let leaf = entries.iter().find(|leaf| leaf.function == 0x8000_0008);
    leaf.map_or([36, 32, 0, 0], |leaf| leaf.eax.to_le_bytes())
}

/// "AuthenticAMD" in EBX, EDX, ECX of leaf 0.
const AUTHENTIC_AMD: (u32, u32, u32) = (0x6874_7541, 0x6974_6e65, 0x444d_4163);

fn shape_features(leaf: &mut kvm_cpuid_entry2, topology: Topology, tsc_deadline: bool) {
    // EBX: initial APIC id, and the number of APIC ids of the package.
    let ids = topology.vcpus.next_power_of_two().min(0xff);
    leaf.ebx = leaf.ebx & 0xffff | ids << 16 | (topology.apic_id & 0xff) << 24;
    leaf.ecx |= HYPERVISOR | X2APIC;
    if tsc_deadline {
        leaf.ecx |= TSC_DEADLINE;
    }
    leaf.edx |= MCE_MCA;
    if topology.vcpus > 1 {
        leaf.edx |= HTT;
    } else {
        leaf.edx &= !HTT;
    }
}

/// Leaf 4: sharing of caches. Each core has its own first and second level; the package shares the third.
fn share_caches(leaf: &mut kvm_cpuid_entry2, topology: Topology) {
    if leaf.eax & 0x1f == 0 {
        return;
    }
    let level = leaf.eax >> 5 & 0x7;
    let ids = (1 << topology.package_shift()) - 1;
    let sharing = if level >= 3 { ids } else { 0 };
    // Bits 25:14: ids that share the cache, minus 1. Bits 31:26: ids that the package reserves for cores, minus 1.
    leaf.eax = leaf.eax & 0x3fff | (sharing & 0xfff) << 14 | (ids & 0x3f) << 26;
}

/// Leaf b: the levels of the x2APIC id. Level 0 is the threads of a core, level 1 the cores of the package.
fn extended_topology(topology: Topology) -> [kvm_cpuid_entry2; 3] {
    let leaf = |index: u32, shift: u32, logical: u32, kind: u32| kvm_cpuid_entry2 {
        function: 0xb,
        index,
        flags: KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
        eax: shift,
        ebx: logical,
        ecx: index | kind << 8,
        edx: topology.apic_id,
        ..Default::default()
    };
    [leaf(0, 0, 1, 1), leaf(1, topology.package_shift(), topology.vcpus, 2), leaf(2, 0, 0, 0)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn supported(vendor: (u32, u32, u32)) -> Vec<kvm_cpuid_entry2> {
        let entry = |function, eax, ebx, ecx, edx| kvm_cpuid_entry2 {
            function,
            eax,
            ebx,
            ecx,
            edx,
            ..Default::default()
        };
        vec![
            entry(0, 0xd, vendor.0, vendor.2, vendor.1),
            entry(1, 0x0080_0f12, 0x0300_0800, 0, 0),
            entry(4, 0x1c00_0143, 0, 0, 0),
            entry(0xb, 1, 2, 0x100, 7),
            entry(0x8000_0001, 0, 0, 0, 0),
            entry(0x8000_0007, 0, 0, 0, 0x100),
            entry(0x8000_0008, 0x3030, 0, 0x7001, 0),
            entry(0x8000_001e, 9, 9, 9, 0),
        ]
    }

    fn leaf(entries: &[kvm_cpuid_entry2], function: u32, index: u32) -> kvm_cpuid_entry2 {
        *entries.iter().find(|entry| (entry.function, entry.index) == (function, index)).expect("the leaf")
    }

    #[test]
    fn every_leaf_with_an_apic_id_has_that_of_the_vcpu() {
        for apic_id in 0..6 {
            let shaped = shape(&supported(AUTHENTIC_AMD), Topology { apic_id, vcpus: 6 }, true);
            assert_eq!(leaf(&shaped, 1, 0).ebx >> 24, apic_id);
            assert_eq!(leaf(&shaped, 0xb, 0).edx, apic_id);
            assert_eq!(leaf(&shaped, 0xb, 1).edx, apic_id);
            assert_eq!(leaf(&shaped, 0x8000_001e, 0).eax, apic_id);
        }
    }

    #[test]
    fn six_vcpus_need_three_bits_of_the_apic_id() {
        let shaped = shape(&supported(AUTHENTIC_AMD), Topology { apic_id: 0, vcpus: 6 }, true);
        assert_eq!((leaf(&shaped, 0xb, 1).eax, leaf(&shaped, 0xb, 1).ebx), (3, 6));
        assert_eq!(leaf(&shaped, 0x8000_0008, 0).ecx & 0xf0ff, 3 << 12 | 5);
        assert_eq!(leaf(&shaped, 1, 0).ebx >> 16 & 0xff, 8);
        assert_eq!(leaf(&shaped, 4, 0).eax >> 14 & 0xfff, 0, "each core has its own second-level cache");
    }

    #[test]
    fn addresses_have_the_bits_that_the_processor_has_and_kvm_maps() {
        let bits =
            |eax| address_bits(&[kvm_cpuid_entry2 { function: 0x8000_0008, eax, ..Default::default() }]);
        assert_eq!([0x3027, 0x0030_3034, 0x0034_3030].map(bits), [39, 48, 48]);
        assert_eq!(address_bits(&[]), 36);
        let wide = [kvm_cpuid_entry2 { function: 0x8000_0008, eax: 0x0030_3034, ..Default::default() }];
        assert_eq!(processor_address_bits(&wide), 52, "KVM maps 48 of them");
    }

    #[test]
    fn features_depend_on_vendor_topology_and_kvm() {
        let one = shape(&supported((0, 0, 0)), Topology { apic_id: 0, vcpus: 1 }, false);
        assert_eq!(leaf(&one, 1, 0).edx & HTT, 0);
        assert_eq!(leaf(&one, 1, 0).ecx & TSC_DEADLINE, 0);
        assert_eq!(leaf(&one, 1, 0).ecx & HYPERVISOR, HYPERVISOR);
        assert_eq!(leaf(&one, 0x8000_001e, 0).eax, 9, "not AMD: unchanged");
        assert_eq!(leaf(&one, 0x8000_0007, 0).ebx, 0, "not AMD: no such bits");
        let amd = shape(&supported(AUTHENTIC_AMD), Topology { apic_id: 0, vcpus: 1 }, false);
        assert_eq!(leaf(&amd, 0x8000_0007, 0).ebx, OVERFLOW_RECOVERY_SUCCOR);
        let mut scalable = supported(AUTHENTIC_AMD);
        scalable.iter_mut().filter(|leaf| leaf.function == 0x8000_0007).for_each(|leaf| leaf.ebx = u32::MAX);
        let amd = shape(&scalable, Topology { apic_id: 0, vcpus: 1 }, false);
        assert_eq!(leaf(&amd, 0x8000_0007, 0).ebx & 0b1011, 0b0011, "KVM emulates no MSR of ScalableMca");
        let many = shape(&supported((0, 0, 0)), Topology { apic_id: 300, vcpus: 512 }, true);
        assert_eq!(leaf(&many, 1, 0).edx & HTT, HTT);
        assert_eq!(leaf(&many, 1, 0).ecx & TSC_DEADLINE, TSC_DEADLINE);
        assert_eq!(leaf(&many, 0xb, 0).edx, 300);
    }
}
