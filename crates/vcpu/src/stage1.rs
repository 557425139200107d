//! Stage 1 translation of an Arm guest's virtual addresses by its own tables (Arm ARM DDI 0487, D8.2: translation table walks of
//! the EL1&0 regime, VMSAv8-64). Arithmetic over a reader of guest memory, tested on every architecture.
//!
//! Permissions, the access flag and attributes are ignored: the address is that of the vCPU's instruction, which it has fetched. Not
//! supported are 52-bit descriptors of 4 KiB and 16 KiB granules (LPA2, TCR_EL1.DS) and 128-bit descriptors: such addresses do not
//! translate.

/// The registers that control the translation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Translation {
    /// SCTLR_EL1.
    pub(crate) system_control: u64,
    /// TCR_EL1.
    pub(crate) control: u64,
    /// TTBR0_EL1.
    pub(crate) lower: u64,
    /// TTBR1_EL1.
    pub(crate) upper: u64,
}

impl Translation {
    /// The GPA of `va`. `read` returns the eight bytes at a GPA. `None` if the address does not translate, or a table cannot be read.
    pub(crate) fn gpa(&self, va: u64, read: impl Fn(u64) -> Option<u64>) -> Option<u64> {
        if self.system_control & MMU_ON == 0 {
            return Some(va);
        }
        let region = self.region(va)?;
        let Region { granule, size_bits, table, wide } = region;
        let stride = granule.log2_len - LOG2_ENTRY;
        let levels = (size_bits - granule.log2_len).div_ceil(stride);
        let mut level = LAST_LEVEL + 1 - levels;
        let mut table = table;
        let mut index_bits = size_bits - granule.log2_len - (levels - 1) * stride;
        loop {
            let shift = granule.log2_len + stride * (LAST_LEVEL - level);
            let index = va >> shift & low_bits(index_bits);
            let descriptor = read(table + (index << LOG2_ENTRY))?;
            match (descriptor & 0b11, level) {
                (0b11, LAST_LEVEL) => return self.within(output(descriptor, shift, wide), va, shift),
                (0b11, _) => table = output(descriptor, granule.log2_len, wide),
                (0b01, _) if granule.blocks.contains(&level) => {
                    return self.within(output(descriptor, shift, wide), va, shift);
                }
                _ => return None,
            }
            level += 1;
            index_bits = stride;
        }
    }

    /// The half of the address space of an address. `None` if it is in neither, or table walks are disabled for it.
    fn region(&self, va: u64) -> Option<Region> {
        let control = self.control;
        let upper = va >> 55 & 1 != 0;
        let (size, walks_off, granule, ignores_top, base) = if upper {
            (control >> 16, 1 << 23, Granule::of_upper(control >> 30), 1 << 38, self.upper)
        } else {
            (control, 1 << 7, Granule::of_lower(control >> 14), 1 << 37, self.lower)
        };
        let (granule, size_bits) = (granule?, 64 - (size & 0x3f) as u32);
        let max_size = if granule.log2_len == 16 { 52 } else { 48 };
        if control & (walks_off | LPA2) != 0 || !(granule.log2_len + 1..=max_size).contains(&size_bits) {
            return None;
        }
        // All bits above the region's are the same, including the top byte unless it is ignored (TBI).
        let top = if control & ignores_top != 0 { 56 } else { 64 };
        let above = va >> size_bits & low_bits(top - size_bits);
        if above != if upper { low_bits(top - size_bits) } else { 0 } {
            return None;
        }
        // With 64 KiB granules and 52-bit addresses, bits 51:48 of an address are in bits that are otherwise zero.
        let wide = granule.log2_len == 16 && control >> 32 & 0b111 == IPS_52_BITS;
        let stride = granule.log2_len - LOG2_ENTRY;
        let levels = (size_bits - granule.log2_len).div_ceil(stride);
        let log2_table = size_bits - granule.log2_len - (levels - 1) * stride + LOG2_ENTRY;
        let mut table = base & low_bits(48) & !low_bits(log2_table.max(if wide { 6 } else { 1 }));
        if wide {
            table |= (base >> 2 & 0xf) << 48;
        }
        Some(Region { granule, size_bits, table, wide })
    }

    /// The address within a page or block. `None` if it exceeds the physical address size (TCR_EL1.IPS).
    fn within(&self, base: u64, va: u64, shift: u32) -> Option<u64> {
        let gpa = base | va & low_bits(shift);
        let bits = match self.control >> 32 & 0b111 {
            0 => 32,
            1 => 36,
            2 => 40,
            3 => 42,
            4 => 44,
            5 => 48,
            _ => 52,
        };
        (gpa >> bits == 0).then_some(gpa)
    }
}

/// One half of the address space.
struct Region {
    granule: Granule,
    /// Bits of an address that the tables translate.
    size_bits: u32,
    /// GPA of the first table.
    table: u64,
    /// Descriptors hold bits 51:48 of an address in bits 15:12.
    wide: bool,
}

#[derive(Clone, Copy)]
struct Granule {
    log2_len: u32,
    /// Levels at which an entry may be a block.
    blocks: &'static [u32],
}

impl Granule {
    /// TCR_EL1.TG0.
    const fn of_lower(field: u64) -> Option<Self> {
        match field & 0b11 {
            0b00 => Some(Self::SMALL),
            0b01 => Some(Self::LARGE),
            0b10 => Some(Self::MIDDLE),
            _ => None,
        }
    }

    /// TCR_EL1.TG1, which encodes the same sizes differently.
    const fn of_upper(field: u64) -> Option<Self> {
        match field & 0b11 {
            0b01 => Some(Self::MIDDLE),
            0b10 => Some(Self::SMALL),
            0b11 => Some(Self::LARGE),
            _ => None,
        }
    }

    const SMALL: Granule = Granule { log2_len: 12, blocks: &[1, 2] };
    const MIDDLE: Granule = Granule { log2_len: 14, blocks: &[2] };
    const LARGE: Granule = Granule { log2_len: 16, blocks: &[1, 2] };
}

/// SCTLR_EL1.M.
const MMU_ON: u64 = 1;
/// TCR_EL1.DS.
const LPA2: u64 = 1 << 59;
/// TCR_EL1.IPS.
const IPS_52_BITS: u64 = 0b110;
/// The last level of a walk; the longest walk begins at level 0.
const LAST_LEVEL: u32 = 3;
/// A descriptor is eight bytes.
const LOG2_ENTRY: u32 = 3;

const fn low_bits(count: u32) -> u64 {
    (1 << count) - 1
}

/// The output address of a descriptor, a multiple of two to the `shift`.
const fn output(descriptor: u64, shift: u32, wide: bool) -> u64 {
    let address = descriptor & low_bits(48) & !low_bits(shift);
    if wide { address | (descriptor >> 12 & 0xf) << 48 } else { address }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// Descriptors by their address.
    type Memory = BTreeMap<u64, u64>;

    /// 48-bit regions and 48-bit physical addresses.
    const T48: u64 = 16 | 16 << 16 | 5 << 32;
    const ALL_4K: u64 = T48 | 0b10 << 30;
    const ALL_16K: u64 = T48 | 0b10 << 14 | 0b01 << 30;
    const ALL_64K: u64 = T48 | 0b01 << 14 | 0b11 << 30;

    const TABLE: u64 = 0b11;
    const PAGE: u64 = 0b11;
    const BLOCK: u64 = 0b01;
    /// Upper and lower attributes: UXN, PXN, contiguous, nG, AF, SH, AP, AttrIndx.
    const ATTRIBUTES: u64 = 0x7f << 52 | 0xffc;

    fn walk(control: u64, memory: &Memory, va: u64) -> Option<u64> {
        let translation = Translation {
            system_control: MMU_ON,
            control,
            lower: 0x1_0000 | 0x5a << 48 | 1,
            upper: 0x2_0000,
        };
        translation.gpa(va, |gpa| memory.get(&gpa).copied())
    }

    /// Descriptors by table, index and value.
    fn memory(entries: &[(u64, u64, u64)]) -> Memory {
        entries.iter().map(|(table, index, descriptor)| (table + index * 8, *descriptor)).collect()
    }

    #[test]
    fn with_the_mmu_off_the_gpa_is_the_virtual_address() {
        let off = Translation { system_control: 0x30d0_0800, ..Translation::default() };
        assert_eq!(off.gpa(0x4020_1234, |_| panic!("no tables")), Some(0x4020_1234));
    }

    #[test]
    fn pages_and_blocks_translate_with_4_kib_granules() {
        // Levels 0 to 3 below TTBR0; a block of 1 GiB and one of 2 MiB beside the page.
        let memory = memory(&[
            (0x1_0000, 1, 0x4000_0000 | TABLE),
            (0x4000_0000, 2, 0x4000_1000 | TABLE),
            (0x4000_0000, 3, 0x8000_0000 | ATTRIBUTES | BLOCK),
            (0x4000_1000, 3, 0x4000_2000 | 0xf8 << 52 | TABLE),
            (0x4000_1000, 5, 0x4560_0000 | ATTRIBUTES | BLOCK),
            (0x4000_2000, 4, 0x1234_5000 | ATTRIBUTES | PAGE),
            (0x4000_2000, 6, 0x1234_7000 | BLOCK),
            (0x1_0000, 2, 0x8000_0000 | BLOCK),
        ]);
        let at = |level0: u64, level1: u64, level2: u64, level3: u64, offset: u64| {
            level0 << 39 | level1 << 30 | level2 << 21 | level3 << 12 | offset
        };
        let walk = |va| walk(ALL_4K, &memory, va);
        assert_eq!(walk(at(1, 2, 3, 4, 0xabc)), Some(0x1234_5abc));
        assert_eq!(walk(at(1, 2, 5, 0x1ff, 0xabc)), Some(0x457f_fabc));
        assert_eq!(walk(at(1, 3, 0x1ff, 0x1ff, 0xabc)), Some(0xbfff_fabc));
        assert_eq!(walk(at(1, 2, 3, 5, 0)), None, "an invalid descriptor");
        assert_eq!(walk(at(1, 2, 3, 6, 0)), None, "0b01 is not a page descriptor");
        assert_eq!(walk(at(2, 0, 0, 0, 0)), None, "no blocks of 512 GiB");
        assert_eq!(walk(at(1, 4, 0, 0, 0)), None, "memory that cannot be read");
    }

    #[test]
    fn the_upper_half_uses_ttbr1() {
        // 39 bits: the first table is at level 1, as in a Linux kernel.
        let control = 25 | 25 << 16 | 0b10 << 30 | 2 << 32;
        let memory =
            memory(&[(0x2_0000, 0x1ff, 0x5000_0000 | TABLE), (0x5000_0000, 0x1fe, 0x4060_0000 | BLOCK)]);
        assert_eq!(walk(control, &memory, 0xffff_ffff_ffc0_1234), Some(0x4060_1234));
        assert_eq!(walk(control, &memory, 0x00ff_ffff_ffc0_1234), None, "neither half");
        assert_eq!(walk(control | 1 << 38, &memory, 0x00ff_ffff_ffc0_1234), Some(0x4060_1234), "a tag");
        assert_eq!(walk(control | 1 << 23, &memory, 0xffff_ffff_ffc0_1234), None, "walks are disabled");
        assert_eq!(walk(control | 1 << 38, &memory, 0xff0f_ffff_ffc0_1234), None, "between the halves");
    }

    #[test]
    fn pages_and_blocks_translate_with_16_kib_granules() {
        // 48 bits: one bit at level 0, eleven at each other.
        let memory = memory(&[
            (0x1_0000, 1, 0x4000_0000 | TABLE),
            (0x4000_0000, 0x7ff, 0x4000_4000 | TABLE),
            (0x4000_4000, 0x400, 0x4000_8000 | TABLE),
            (0x4000_4000, 0x401, 0x4600_0000 | ATTRIBUTES | BLOCK),
            (0x4000_8000, 0x3ff, 0x1234_4000 | 0x7f << 52 | PAGE),
            (0x4000_0000, 0x7fe, 0x4600_0000 | BLOCK),
        ]);
        let at = |level1: u64, level2: u64, level3: u64, offset: u64| {
            1 << 47 | level1 << 36 | level2 << 25 | level3 << 14 | offset
        };
        let walk = |va| walk(ALL_16K, &memory, va);
        assert_eq!(walk(at(0x7ff, 0x400, 0x3ff, 0x2abc)), Some(0x1234_6abc));
        assert_eq!(walk(at(0x7ff, 0x401, 1, 0x2abc)), Some(0x4600_6abc));
        assert_eq!(walk(at(0x7fe, 0, 0, 0)), None, "no blocks of 64 GiB");
        assert_eq!(super::tests::walk(ALL_16K | LPA2, &memory, at(0x7ff, 0x401, 1, 0)), None, "LPA2");
    }

    #[test]
    fn pages_and_blocks_translate_with_64_kib_granules() {
        // 48 bits: six at level 1, thirteen at each other.
        let memory = memory(&[
            (0x1_0000, 0x3f, 0x4000_0000 | TABLE),
            (0x4000_0000, 0x1fff, 0x4001_0000 | TABLE),
            (0x4000_0000, 0x1ffe, 0x6000_0000 | ATTRIBUTES | BLOCK),
            (0x4001_0000, 1, 0x1234_0000 | 0x7f << 52 | PAGE),
        ]);
        let at = |level2: u64, level3: u64, offset: u64| 0x3f << 42 | level2 << 29 | level3 << 16 | offset;
        let walk = |control, va| super::tests::walk(control, &memory, va);
        assert_eq!(walk(ALL_64K, at(0x1fff, 1, 0xfabc)), Some(0x1234_fabc));
        assert_eq!(walk(ALL_64K, at(0x1ffe, 0x10, 0xfabc)), Some(0x6010_fabc));
        assert_eq!(walk(ALL_64K & !(7 << 32), at(0x1ffe, 0, 0)), Some(0x6000_0000), "below 4 GiB");
    }

    #[test]
    fn addresses_of_52_bits_translate_with_64_kib_granules() {
        // 52 bits of virtual address: ten at level 1. Bits 51 to 48 are in 5 to 2 of TTBR, and in 15 to 12 of descriptors.
        let control = 12 | 0b01 << 14 | 0b110 << 32;
        let translation = Translation {
            system_control: MMU_ON,
            control,
            lower: 0xa << 2 | 0x1_0000,
            ..Translation::default()
        };
        let memory = memory(&[
            (0xa_0000_0001_0000, 0x3ff, 0x4000_0000 | 0xb << 12 | TABLE),
            (0xb_0000_4000_0000, 2, 0x4001_0000 | TABLE),
            (0x4001_0000, 3, 0x1234_0000 | 0xc << 12 | PAGE),
        ]);
        let va = 0x3ff << 42 | 2 << 29 | 3 << 16 | 0x1234;
        assert_eq!(translation.gpa(va, |gpa| memory.get(&gpa).copied()), Some(0xc_0000_1234_1234));
    }

    #[test]
    fn addresses_beyond_the_physical_address_size_do_not_translate() {
        let memory = memory(&[(0x1_0000, 0, 0x10_8000_0000 | BLOCK)]);
        let control = |ips: u64| 25 | ips << 32;
        assert_eq!(walk(control(1), &memory, 0x1234), None, "36 bits");
        assert_eq!(walk(control(2), &memory, 0x1234), Some(0x10_8000_1234), "40 bits");
    }

    #[test]
    fn no_register_values_cause_a_panic() {
        // Every size and granule, with tables full of one descriptor.
        for size in 0..64 {
            for granules in 0..16 {
                for ips in 0..8 {
                    let control =
                        size | size << 16 | (granules & 3) << 14 | (granules >> 2) << 30 | ips << 32;
                    for va in [0, 1 << 47, u64::MAX, 0xffff_8000_0000_0000] {
                        for descriptor in [0, u64::MAX, !2, 0b11, 0b01] {
                            let translation = Translation {
                                system_control: MMU_ON,
                                control,
                                lower: u64::MAX,
                                upper: u64::MAX,
                            };
                            let _ = translation.gpa(va, |_| Some(descriptor));
                        }
                    }
                }
            }
        }
    }
}
