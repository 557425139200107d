//! The boot processor's registers, as the boot protocols require them.

use kvm_bindings::{kvm_regs, kvm_segment, kvm_sregs};

/// The entry of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// The 64-bit entry of the Linux/x86 boot protocol (Documentation/arch/x86/boot.rst, "64-bit boot protocol"):
    /// long mode, memory identity-mapped, RSI at the boot parameters.
    Linux64 {
        /// First instruction.
        rip: u64,
        /// GPA of `struct boot_params`.
        boot_params: u64,
        /// GPA of the root page table.
        page_tables: u64,
    },
    /// PVH (Xen's docs/misc/pvh.pandoc): 32-bit protected mode without paging, EBX at the start info.
    Pvh {
        /// First instruction.
        eip: u32,
        /// GPA of `struct hvm_start_info`.
        start_info: u32,
    },
}

/// GPA of the boot processor's first GDT.
pub const BOOT_GDT_GPA: u64 = 0x500;

/// The GDT: null, unused, code at 0x10 and data at 0x18 as the Linux boot protocol requires, and a TSS at 0x20.
pub const BOOT_GDT: [u64; 5] = [0, 0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff, 0x0000_8b00_0000_0067];

/// Page tables that map the first 4 GiB to themselves in 2 MiB pages, for the 64-bit entry.
#[derive(Clone, Copy, Debug)]
pub struct PageTables {
    /// GPA of the root table. The other five tables follow it.
    pub root: u64,
}

impl PageTables {
    /// Bytes: the PML4, one page-directory-pointer table, four page directories.
    pub const LEN: u64 = 6 * PAGE;

    /// The entries of the tables, in ascending order of address.
    pub fn entries(self) -> impl Iterator<Item = u64> {
        let pointers = self.root + PAGE;
        let directories = pointers + PAGE;
        let table = |entries: Vec<u64>| entries.into_iter().chain(std::iter::repeat(0)).take(512);
        table(vec![pointers | PRESENT_WRITABLE])
            .chain(table((0..4).map(|n| (directories + n * PAGE) | PRESENT_WRITABLE).collect()))
            .chain((0..4 * 512).map(|n| n << 21 | PRESENT_WRITABLE | LARGE))
    }
}

const PAGE: u64 = 0x1000;
/// Page table entry: present, writable (Intel SDM volume 3, table 4-15).
const PRESENT_WRITABLE: u64 = 0b11;
/// Page directory entry: maps a 2 MiB page.
const LARGE: u64 = 1 << 7;

/// CR0: protected mode.
const CR0_PE: u64 = 1;
/// CR0: extension type, always set.
const CR0_ET: u64 = 1 << 4;
/// CR0: paging.
const CR0_PG: u64 = 1 << 31;
/// CR4: physical address extension.
const CR4_PAE: u64 = 1 << 5;
/// EFER: long mode enabled and active.
const EFER_LME_LMA: u64 = 1 << 8 | 1 << 10;
/// RFLAGS: bit 1 is always set; interrupts are disabled.
const RFLAGS: u64 = 1 << 1;

impl Entry {
    pub(super) fn regs(self) -> kvm_regs {
        match self {
            Entry::Linux64 { rip, boot_params, .. } => {
                kvm_regs { rip, rsi: boot_params, rflags: RFLAGS, ..Default::default() }
            }
            Entry::Pvh { eip, start_info } => {
                kvm_regs { rip: eip.into(), rbx: start_info.into(), rflags: RFLAGS, ..Default::default() }
            }
        }
    }

    /// Sets what the protocol requires and leaves the rest in its reset state.
    pub(super) fn apply(self, sregs: &mut kvm_sregs) {
        let long_mode = matches!(self, Entry::Linux64 { .. });
        sregs.cs =
            kvm_segment { type_: 0xb, selector: 0x10, l: long_mode.into(), db: (!long_mode).into(), ..FLAT };
        sregs.ds = kvm_segment { type_: 0x3, selector: 0x18, db: 1, ..FLAT };
        (sregs.es, sregs.fs, sregs.gs, sregs.ss) = (sregs.ds, sregs.ds, sregs.ds, sregs.ds);
        sregs.tr = kvm_segment { type_: 0xb, selector: 0x20, s: 0, g: 0, limit: 0x67, ..FLAT };
        sregs.gdt.base = BOOT_GDT_GPA;
        sregs.gdt.limit = (size_of_val(&BOOT_GDT) - 1) as u16;
        sregs.idt.base = 0;
        sregs.idt.limit = 0;
        match self {
            Entry::Linux64 { page_tables, .. } => {
                sregs.cr0 = CR0_PE | CR0_ET | CR0_PG;
                sregs.cr3 = page_tables;
                sregs.cr4 = CR4_PAE;
                sregs.efer = EFER_LME_LMA;
            }
            Entry::Pvh { .. } => {
                sregs.cr0 = CR0_PE | CR0_ET;
                sregs.cr4 = 0;
                sregs.efer = 0;
            }
        }
    }
}

/// A flat segment over the first 4 GiB.
const FLAT: kvm_segment = kvm_segment {
    base: 0,
    limit: 0xffff_ffff,
    selector: 0,
    type_: 0,
    present: 1,
    dpl: 0,
    db: 0,
    s: 1,
    l: 0,
    g: 1,
    avl: 0,
    unusable: 0,
    padding: 0,
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_4_gib_map_to_themselves() {
        let tables = PageTables { root: 0x9000 };
        let entries: Vec<u64> = tables.entries().collect();
        assert_eq!(entries.len() as u64 * 8, PageTables::LEN);
        for address in [0_u64, 0x10_0000, 0xbfff_ffff, 0xfee0_0000, 0xffff_ffff] {
            let at = |table: u64, index: u64| entries[((table - tables.root) / 8 + index) as usize] & !0xfff;
            let pointers = at(tables.root, address >> 39 & 511);
            let directory = at(pointers, address >> 30 & 511);
            assert_eq!(at(directory, address >> 21 & 511) | address & 0x1f_ffff, address);
        }
    }

    #[test]
    fn the_gdt_matches_the_segment_registers() {
        let mut sregs = kvm_sregs::default();
        Entry::Linux64 { rip: 0, boot_params: 0, page_tables: 0x9000 }.apply(&mut sregs);
        for segment in [sregs.cs, sregs.ds] {
            let descriptor = BOOT_GDT[usize::from(segment.selector / 8)];
            assert_eq!(descriptor >> 40 & 0xf, u64::from(segment.type_));
            assert_eq!(descriptor >> 53 & 1, u64::from(segment.l), "L");
            assert_eq!(descriptor >> 54 & 1, u64::from(segment.db), "D/B");
        }
    }
}
