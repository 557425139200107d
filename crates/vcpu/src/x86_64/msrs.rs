//! Model-specific registers that a PC's firmware sets before it starts a kernel, and that a vCPU does not have after its reset.
//!
//! docs/entry-state.md lists them beside what other VMMs and firmware leave.

use std::ops::Range;

use kvm_bindings::{Msrs, kvm_cpuid_entry2, kvm_msr_entry};
use kvm_ioctls::VcpuFd;
use vmm_sys_util::errno::Error;

use super::cpuid::processor_address_bits;

/// IA32_MISC_ENABLE (Intel SDM volume 4, table 2-2).
const MISC_ENABLE: u32 = 0x1a0;
/// IA32_MISC_ENABLE: fast strings.
const FAST_STRINGS: u64 = 1;

/// IA32_MTRRCAP (Intel SDM volume 3A, 12.11.1; AMD64 APM volume 2, 7.7.2).
const MTRR_CAP: u32 = 0xfe;
/// IA32_MTRRCAP: the number of variable ranges.
const VARIABLE_COUNT: u64 = 0xff;
/// IA32_MTRRCAP: fixed ranges are supported.
const FIXED_SUPPORTED: u64 = 1 << 8;
/// IA32_MTRR_DEF_TYPE.
const MTRR_DEF_TYPE: u32 = 0x2ff;
/// IA32_MTRR_DEF_TYPE: MTRRs are enabled.
const ENABLE: u64 = 1 << 11;
/// IA32_MTRR_DEF_TYPE: fixed ranges are enabled.
const FIXED_ENABLE: u64 = 1 << 10;
/// IA32_MTRR_PHYSMASKn: the range is valid.
const VALID: u64 = 1 << 11;
/// The memory type uncacheable.
const UNCACHEABLE: u64 = 0;
/// The memory type write-back.
const WRITE_BACK: u64 = 6;
/// Write-back in each of the eight ranges of a fixed-range register.
const ALL_WRITE_BACK: u64 = 0x0606_0606_0606_0606;
/// IA32_MTRR_FIX16K_A0000: the memory of a VGA adapter on a PC.
const FIXED_VGA: u32 = 0x259;
/// The other fixed-range registers: FIX64K_00000, FIX16K_80000, FIX4K_C0000 to FIX4K_F8000.
const FIXED_MEMORY: [u32; 10] = [0x250, 0x258, 0x268, 0x269, 0x26a, 0x26b, 0x26c, 0x26d, 0x26e, 0x26f];

/// Leaf 1 EDX: MTRRs.
const CPUID_MTRR: u32 = 1 << 12;

/// IA32_MTRR_PHYSBASEn and IA32_MTRR_PHYSMASKn.
const fn variable_range(index: u32) -> [u32; 2] {
    [0x200 + 2 * index, 0x201 + 2 * index]
}

/// Sets the registers of a vCPU with these CPUID entries. `registers` are addresses below 4 GiB that hold no memory.
///
/// # Errors
/// The name of the ioctl, the register if KVM refused one, and the error.
pub(super) fn set_up(
    fd: &VcpuFd,
    cpuid: &[kvm_cpuid_entry2],
    registers: &Range<u64>,
) -> Result<(), (&'static str, Error)> {
    // Bits that KVM sets in it say which features the vCPU lacks.
    let mut values = vec![(MISC_ENABLE, read(fd, MISC_ENABLE)? | FAST_STRINGS)];
    let has_mtrrs = cpuid.iter().any(|leaf| leaf.function == 1 && leaf.edx & CPUID_MTRR != 0);
    if has_mtrrs {
        let capabilities = read(fd, MTRR_CAP)?;
        values.extend(memory_types(capabilities, processor_address_bits(cpuid), registers));
    }
    write(fd, &values)
}

/// The MTRRs: memory is write-back, the addresses of registers and of a VGA adapter are uncacheable.
fn memory_types(capabilities: u64, address_bits: u8, registers: &Range<u64>) -> Vec<(u32, u64)> {
    let mut values = Vec::new();
    let mut default = ENABLE | WRITE_BACK;
    if capabilities & FIXED_SUPPORTED != 0 {
        values.extend(FIXED_MEMORY.map(|register| (register, ALL_WRITE_BACK)));
        values.push((FIXED_VGA, UNCACHEABLE));
        default |= FIXED_ENABLE;
    }
    let address_mask = (1_u64 << address_bits.min(52)) - 1;
    for (index, Block { start, len }) in
        (0..).zip(blocks(registers)).take((capabilities & VARIABLE_COUNT) as usize)
    {
        let [base, mask] = variable_range(index);
        values.push((base, start | UNCACHEABLE));
        values.push((mask, !(len - 1) & address_mask | VALID));
    }
    // Enables the ranges, when they are set.
    values.push((MTRR_DEF_TYPE, default));
    values
}

/// A range whose length is a power of two, at a multiple of its length: what a variable-range MTRR can describe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Block {
    start: u64,
    len: u64,
}

/// Divides a range of whole pages into blocks.
fn blocks(range: &Range<u64>) -> impl Iterator<Item = Block> {
    let (mut start, end) = (range.start, range.end);
    std::iter::from_fn(move || {
        let left = end.checked_sub(start).filter(|left| *left > 0)?;
        let aligned = if start == 0 { u64::MAX } else { 1 << start.trailing_zeros() };
        let len = aligned.min(1 << left.ilog2());
        let block = Block { start, len };
        start += len;
        Some(block)
    })
}

fn read(fd: &VcpuFd, index: u32) -> Result<u64, (&'static str, Error)> {
    let call = match index {
        MISC_ENABLE => "KVM_GET_MSRS (IA32_MISC_ENABLE)",
        _ => "KVM_GET_MSRS (IA32_MTRRCAP)",
    };
    let failed = |error| (call, error);
    let mut msrs = list(&[(index, 0)]).map_err(failed)?;
    match fd.get_msrs(&mut msrs).map_err(failed)? {
        0 => Err((call, Error::new(libc::EINVAL))),
        _ => Ok(msrs.as_slice().first().map_or(0, |entry| entry.data)),
    }
}

fn write(fd: &VcpuFd, values: &[(u32, u64)]) -> Result<(), (&'static str, Error)> {
    let msrs = list(values).map_err(|error| ("KVM_SET_MSRS", error))?;
    let written = fd.set_msrs(&msrs).map_err(|error| ("KVM_SET_MSRS", error))?;
    // KVM writes them in order, and stops at the first one that it refuses.
    match values.get(written) {
        None => Ok(()),
        Some(&(MISC_ENABLE, _)) => Err(("KVM_SET_MSRS (IA32_MISC_ENABLE)", Error::new(libc::EINVAL))),
        Some(&(MTRR_DEF_TYPE, _)) => Err(("KVM_SET_MSRS (IA32_MTRR_DEF_TYPE)", Error::new(libc::EINVAL))),
        Some(_) => Err(("KVM_SET_MSRS (a range of the MTRRs)", Error::new(libc::EINVAL))),
    }
}

fn list(values: &[(u32, u64)]) -> Result<Msrs, Error> {
    let entries: Vec<_> =
        values.iter().map(|&(index, data)| kvm_msr_entry { index, data, ..Default::default() }).collect();
    Msrs::from_entries(&entries).map_err(|_| Error::new(libc::E2BIG))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Eight variable ranges, fixed ranges, write-combining: as KVM has them.
    const KVM: u64 = 0x508;

    #[test]
    fn memory_is_write_back_and_registers_are_not() {
        let values = memory_types(KVM, 48, &(0xc000_0000..0x1_0000_0000));
        let value = |register| values.iter().find(|it| it.0 == register).map(|it| it.1);
        assert_eq!(
            [0x250, 0x258, 0x259, 0x268, 0x26f].map(value),
            [
                Some(0x0606_0606_0606_0606),
                Some(0x0606_0606_0606_0606),
                Some(0),
                Some(0x0606_0606_0606_0606),
                Some(0x0606_0606_0606_0606),
            ]
        );
        assert_eq!([0x200, 0x201].map(value), [Some(0xc000_0000), Some(0xffff_c000_0800)]);
        assert_eq!(value(0x202), None);
        assert_eq!(values.last(), Some(&(0x2ff, 0xc06)), "enabled after the ranges are set");
    }

    #[test]
    fn without_fixed_ranges_they_are_not_enabled() {
        let values = memory_types(1, 36, &(0xc000_0000..0x1_0000_0000));
        assert_eq!(values, [(0x200, 0xc000_0000), (0x201, 0xf_c000_0800), (0x2ff, 0x806)]);
        assert_eq!(memory_types(0, 36, &(0xc000_0000..0x1_0000_0000)), [(0x2ff, 0x806)]);
        assert_eq!(memory_types(1, 36, &(0..0)), [(0x2ff, 0x806)]);
    }

    #[test]
    fn a_range_is_divided_into_aligned_powers_of_two() {
        let divided = |range: Range<u64>| blocks(&range).map(|it| (it.start, it.len)).collect::<Vec<_>>();
        assert_eq!(divided(0xc000_0000..0x1_0000_0000), [(0xc000_0000, 0x4000_0000)]);
        assert_eq!(
            divided(0xb000_0000..0x1_0000_0000),
            [(0xb000_0000, 0x1000_0000), (0xc000_0000, 0x4000_0000)]
        );
        assert_eq!(divided(0..0x3000), [(0, 0x2000), (0x2000, 0x1000)]);
        assert_eq!(divided(5..5), []);
    }
}
