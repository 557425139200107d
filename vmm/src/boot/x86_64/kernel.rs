//! The kernel: a bzImage, an ELF file or the built-in guest.

use std::io::{Read, Seek, SeekFrom};

use linux_loader::loader::KernelLoader;
use linux_loader::loader::bootparam::setup_header;
use linux_loader::loader::bzimage::BzImage;
use machine_profile::BootProtocol;
use platform::Range;
use vm_memory::{GuestAddress, GuestMemoryMmap, ReadVolatile};

use super::super::setup_header::SetupHeader;
use super::super::{ImageError, Loaded, format, read_start};
use super::elf::{Class, ElfFile};
use super::multiboot;
use crate::command_line::CommandLineMax;

/// How a kernel is entered.
pub(crate) enum Kind {
    Linux64 {
        rip: u64,
        /// The header of a bzImage. `None` for an ELF file.
        setup_header: Option<setup_header>,
    },
    Pvh {
        eip: u32,
    },
}

/// Lowest load address of a kernel.
const LOAD_START: u64 = 0x10_0000;
/// Offset of the 64-bit entry in the protected-mode code (boot.rst, "64-bit boot protocol").
const ENTRY_64: u64 = 0x200;
/// The version of the boot protocol that has the 64-bit entry.
const VERSION_64: (u8, u8) = (2, 12);
/// xloadflags: the kernel has the 64-bit entry.
const XLF_KERNEL_64: u16 = 1;
/// xloadflags: kernel, boot parameters and initrd may be above 4 GiB.
const XLF_CAN_BE_LOADED_ABOVE_4G: u16 = 2;

pub(crate) fn load<F: Read + ReadVolatile + Seek>(
    mut image: F,
    protocol: BootProtocol,
    memory: &GuestMemoryMmap,
    low_end: u64,
    poisoned: &[Range],
) -> Result<Loaded<Kind>, ImageError> {
    let len = image.seek(SeekFrom::End(0)).map_err(ImageError::Read)?;
    let mut start = [0; HEADER];
    let got = read_start(&mut image, &mut start).map_err(ImageError::Read)?;
    let start = &start[..got];
    if start.starts_with(b"\x7fELF") {
        load_elf(image, protocol, memory, low_end, poisoned)
    } else if let Some(header) = SetupHeader::of(start) {
        check_bz_image(&header, got, len, protocol)?;
        load_bz_image(image, &header, memory, low_end, poisoned)
    } else {
        Err(format::unknown("a bzImage or an ELF file", start, len))
    }
}

/// Bytes up to the end of a bzImage's setup header, with the fields that follow what [`SetupHeader`] has.
const HEADER: usize = 0x280;

/// Checks that a bzImage of `len` bytes, whose first `got` were read, is complete and has the 64-bit entry.
fn check_bz_image(
    header: &SetupHeader,
    got: usize,
    len: u64,
    protocol: BootProtocol,
) -> Result<(), ImageError> {
    if protocol == BootProtocol::Pvh {
        return Err(ImageError::NoPvhEntry);
    }
    // Other kernels have this header too. The version is first: older ones have neither the other fields nor the entry.
    let (version, xloadflags) = (header.version(), header.xloadflags());
    let no_64_bit_entry = || ImageError::No64BitEntry { version, xloadflags };
    if version < VERSION_64 {
        return Err(no_64_bit_entry());
    }
    if got < HEADER {
        return Err(ImageError::Truncated { what: "the setup header", expected: HEADER as u64, len });
    }
    if xloadflags & XLF_KERNEL_64 == 0 {
        return Err(no_64_bit_entry());
    }
    let expected = header.code_start() + header.code_len();
    // syssize is rounded up.
    if len + 15 < expected {
        return Err(ImageError::Truncated { what: "syssize (offset 0x1f4)", expected, len });
    }
    Ok(())
}

fn load_bz_image<F: Read + ReadVolatile + Seek>(
    mut image: F,
    header: &SetupHeader,
    memory: &GuestMemoryMmap,
    low_end: u64,
    poisoned: &[Range],
) -> Result<Loaded<Kind>, ImageError> {
    let code = header.code_len();
    if LOAD_START + code > low_end {
        return Err(ImageError::TooLarge { start: LOAD_START, end: LOAD_START + code, limit: low_end });
    }
    let place = bz_image_place(header, low_end, poisoned)?;
    let loaded = BzImage::load(memory, place.map(GuestAddress), &mut image, Some(GuestAddress(LOAD_START)))
        .map_err(|error| ImageError::Loader(error.to_string()))?;
    let Some(setup_header) = loaded.setup_header else {
        return Err(ImageError::Loader("it has no setup header (offset 0x1f1)".into()));
    };
    // The kernel decompresses itself to pref_address and uses init_size bytes there.
    let start = loaded.kernel_load.0;
    let end = loaded.kernel_end.max(runtime(header, start).end());
    if end > low_end {
        return Err(ImageError::TooLarge { start, end, limit: low_end });
    }
    let anywhere = header.xloadflags() & XLF_CAN_BE_LOADED_ABOVE_4G != 0;
    let initrd_max = if anywhere { u64::MAX } else { setup_header.initrd_addr_max.into() };
    let kind = Kind::Linux64 { rip: start + ENTRY_64, setup_header: Some(setup_header) };
    let command_line_max = CommandLineMax::Header(header.command_line_max());
    Ok(Loaded { kind, end, initrd_max, command_line_max })
}

/// Where a kernel that is loaded at `start` runs (boot.rst, "kernel runtime start address").
fn runtime(header: &SetupHeader, start: u64) -> Range {
    let (preferred, len) = header.runtime();
    let start = match header.relocation_alignment() {
        Some(alignment) => start.max(preferred).checked_next_multiple_of(alignment).unwrap_or(preferred),
        None => preferred,
    };
    // An end beyond the address space is refused as one beyond memory is.
    Range { start, len: len.min(u64::MAX - start) }
}

/// Where a bzImage is loaded whose own place is poisoned, or to which it would decompress itself. `None`: at its own place.
fn bz_image_place(header: &SetupHeader, low_end: u64, poisoned: &[Range]) -> Result<Option<u64>, ImageError> {
    let uses = |start| [Range { start, len: header.code_len() }, runtime(header, start)];
    let in_the_way = |start| {
        let of = |used: Range| poisoned.iter().find(move |page| page.overlaps(used));
        uses(start).into_iter().find_map(of)
    };
    let own = header.load_address();
    let Some(page) = in_the_way(own) else { return Ok(None) };
    let fits = |start: &u64| uses(*start).into_iter().all(|used| used.end() <= low_end);
    let others = header.relocation_alignment().into_iter().flat_map(|alignment| {
        let first = header.runtime().0.checked_next_multiple_of(alignment).unwrap_or(u64::MAX);
        // Aligned to more than that, a kernel uses the fewest large pages.
        (first..low_end).step_by(alignment.max(2 << 20) as usize).take_while(fits)
    });
    let Range { start, len } = runtime(header, own);
    let poisoned = ImageError::Poisoned { start: own.min(start), end: start + len, page: page.start };
    others.into_iter().find(|start| in_the_way(*start).is_none()).map(Some).ok_or(poisoned)
}

fn load_elf<F: Read + ReadVolatile + Seek>(
    mut image: F,
    protocol: BootProtocol,
    memory: &GuestMemoryMmap,
    low_end: u64,
    poisoned: &[Range],
) -> Result<Loaded<Kind>, ImageError> {
    let len = image.seek(SeekFrom::End(0)).map_err(ImageError::Read)?;
    let elf = ElfFile::read(&mut image, len)?;
    let extent = elf.extent()?;
    let kind = elf_entry(&elf, &mut image, protocol)?;
    if extent.start < LOAD_START {
        return Err(ImageError::TooLow { start: extent.start });
    }
    if extent.end > low_end {
        return Err(ImageError::TooLarge { start: extent.start, end: extent.end, limit: low_end });
    }
    let entry = match kind {
        Kind::Linux64 { rip, .. } => rip,
        Kind::Pvh { eip } => eip.into(),
    };
    if !extent.contains(&entry) {
        return Err(ImageError::EntryOutside { entry, start: extent.start, end: extent.end });
    }
    let used = Range::between(extent.start, extent.end);
    if let Some(page) = poisoned.iter().find(|page| page.overlaps(used)) {
        return Err(ImageError::Poisoned { start: extent.start, end: extent.end, page: page.start });
    }
    elf.load(&mut image, memory)?;
    Ok(Loaded { kind, end: extent.end, initrd_max: u64::MAX, command_line_max: CommandLineMax::Linux })
}

/// How an ELF file is entered by a protocol: by its PVH note, or in 64-bit mode as the Linux boot protocol does it.
fn elf_entry(
    elf: &ElfFile,
    image: &mut (impl Read + Seek),
    protocol: BootProtocol,
) -> Result<Kind, ImageError> {
    if protocol != BootProtocol::Linux {
        if let Some(eip) = elf.pvh_entry(image)? {
            return Ok(Kind::Pvh { eip });
        }
        if protocol == BootProtocol::Pvh {
            return Err(ImageError::NoPvhEntry);
        }
    }
    let multiboot = multiboot::specification(image).map_err(ImageError::Read)?;
    match (elf.class, protocol, multiboot) {
        (Class::Elf32, BootProtocol::Linux, _) => Err(ImageError::Elf32AsLinux),
        (Class::Elf32, _, multiboot) => Err(ImageError::Elf32WithoutPvh { multiboot }),
        // Its entry is 32-bit code. In 64-bit mode it would do anything.
        (Class::Elf64, BootProtocol::Auto, Some(specification)) => {
            Err(ImageError::MultibootOnly { specification })
        }
        (Class::Elf64, ..) => Ok(Kind::Linux64 { rip: elf.entry, setup_header: None }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const PAGE: u64 = 0x1000;

    /// A kernel of 2 MiB that is loaded at 1 MiB, and decompresses itself to 16 MiB, where it uses 20 MiB.
    fn header(is_relocatable: bool) -> SetupHeader {
        let mut file = vec![0; 0x280];
        let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
        put(0x202, b"HdrS");
        put(0x206, &0x20f_u16.to_le_bytes());
        put(0x1f4, &(2 * MIB as u32 / 16).to_le_bytes());
        put(0x214, &(MIB as u32).to_le_bytes());
        put(0x230, &(2 * MIB as u32).to_le_bytes());
        put(0x234, &[is_relocatable.into()]);
        put(0x258, &(16 * MIB).to_le_bytes());
        put(0x260, &(20 * MIB as u32).to_le_bytes());
        SetupHeader::of(&file).expect("a bzImage")
    }

    fn place(is_relocatable: bool, low_end: u64, poisoned: &[u64]) -> Result<Option<u64>, ImageError> {
        let pages: Vec<_> = poisoned.iter().map(|start| Range { start: *start, len: PAGE }).collect();
        bz_image_place(&header(is_relocatable), low_end, &pages)
    }

    #[test]
    fn a_kernel_moves_away_from_poisoned_pages() {
        for (poisoned, expected) in [
            (&[][..], None),
            // Below it, between what it uses, and behind it.
            (&[MIB - PAGE, 3 * MIB, 15 * MIB, 36 * MIB], None),
            (&[MIB], Some(16 * MIB)),
            (&[3 * MIB - PAGE], Some(16 * MIB)),
            (&[16 * MIB], Some(18 * MIB)),
            (&[36 * MIB - PAGE], Some(36 * MIB)),
            (&[20 * MIB, 50 * MIB], Some(22 * MIB)),
            (&[20 * MIB, 40 * MIB], Some(42 * MIB)),
        ] {
            assert_eq!(place(true, 256 * MIB, poisoned).expect("a place"), expected, "{poisoned:x?}");
        }
    }

    #[test]
    fn a_kernel_without_another_place_is_refused_with_the_page() {
        for (is_relocatable, low_end, poisoned) in [
            (false, 256 * MIB, &[20 * MIB][..]),
            (true, 37 * MIB, &[20 * MIB]),
            (true, 64 * MIB, &[20 * MIB, 40 * MIB, 60 * MIB]),
        ] {
            let error = place(is_relocatable, low_end, poisoned).expect_err("no place").to_string();
            assert!(
                error.contains("from 0x100000 to 0x2400000, where the page at 0x1400000 is poisoned"),
                "{error}"
            );
        }
    }
}
