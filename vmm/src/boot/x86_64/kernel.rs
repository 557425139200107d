//! The kernel: a bzImage, an ELF file or the built-in guest.

use std::io::{Read, Seek, SeekFrom};

use linux_loader::loader::bootparam::setup_header;
use linux_loader::loader::bzimage::BzImage;
use linux_loader::loader::elf::{Elf, PvhBootCapability};
use linux_loader::loader::{Error as LoaderError, KernelLoader, KernelLoaderResult};
use machine_profile::BootProtocol;
use platform::Range;
use vm_memory::{GuestAddress, GuestMemoryMmap, ReadVolatile};

use super::super::{ImageError, Loaded, read_start, u64_at, unknown_format};

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
/// e_machine of x86_64.
const EM_X86_64: u16 = 62;
/// xloadflags: the kernel has the 64-bit entry.
const XLF_KERNEL_64: u16 = 1;
/// xloadflags: kernel, boot parameters and initrd may be above 4 GiB.
const XLF_CAN_BE_LOADED_ABOVE_4G: u16 = 2;

pub(crate) fn load<F: Read + ReadVolatile + Seek>(
    mut image: F,
    protocol: BootProtocol,
    memory: &GuestMemoryMmap,
    low_end: u64,
    _: &[Range],
) -> Result<Loaded<Kind>, ImageError> {
    let len = image.seek(SeekFrom::End(0)).map_err(ImageError::Read)?;
    let mut start = [0; HEADER];
    let got = read_start(&mut image, &mut start).map_err(ImageError::Read)?;
    let start = &start[..got];
    if start.starts_with(b"\x7fELF") {
        load_elf(image, protocol, memory, low_end)
    } else if start.get(0x202..0x206) == Some(b"HdrS") {
        load_bz_image(image, start, len, protocol, memory, low_end)
    } else {
        Err(unknown_format("a bzImage or a 64-bit ELF file", start, len))
    }
}

/// Bytes up to the end of a bzImage's setup header.
const HEADER: usize = 0x280;

fn load_bz_image<F: Read + ReadVolatile + Seek>(
    mut image: F,
    start: &[u8],
    len: u64,
    protocol: BootProtocol,
    memory: &GuestMemoryMmap,
    low_end: u64,
) -> Result<Loaded<Kind>, ImageError> {
    if protocol == BootProtocol::Pvh {
        return Err(ImageError::NoPvhEntry);
    }
    // syssize counts the protected-mode code in units of 16 bytes; it comes after the boot sector and the setup code.
    if start.len() < HEADER {
        return Err(ImageError::Truncated { what: "the setup header", expected: HEADER as u64, len });
    }
    let setup_sectors = if start[0x1f1] == 0 { 4 } else { u64::from(start[0x1f1]) };
    let code = (u64::from(u16_at(start, 0x1f4)) | u64::from(u16_at(start, 0x1f6)) << 16) * 16;
    let expected = (setup_sectors + 1) * 512 + code;
    // syssize is rounded up.
    if len + 15 < expected {
        return Err(ImageError::Truncated { what: "syssize (offset 0x1f4)", expected, len });
    }
    if LOAD_START + code > low_end {
        return Err(ImageError::TooLarge { start: LOAD_START, end: LOAD_START + code, limit: low_end });
    }
    let loaded =
        BzImage::load(memory, None, &mut image, Some(GuestAddress(LOAD_START))).map_err(loader_error)?;
    let Some(header) = loaded.setup_header else {
        return Err(ImageError::Loader("it has no setup header (offset 0x1f1)".into()));
    };
    let (xloadflags, version) = (header.xloadflags, header.version);
    if version < 0x20c || xloadflags & XLF_KERNEL_64 == 0 {
        let [minor, major] = version.to_le_bytes();
        return Err(ImageError::No64BitEntry { major, minor, xloadflags });
    }
    // The kernel decompresses itself to pref_address and uses init_size bytes there.
    let start = loaded.kernel_load.0;
    let end = loaded.kernel_end.max(header.pref_address.saturating_add(header.init_size.into()));
    if end > low_end {
        return Err(ImageError::TooLarge { start, end, limit: low_end });
    }
    let anywhere = xloadflags & XLF_CAN_BE_LOADED_ABOVE_4G != 0;
    let initrd_max = if anywhere { u64::MAX } else { header.initrd_addr_max.into() };
    let kind = Kind::Linux64 { rip: start + ENTRY_64, setup_header: Some(header) };
    Ok(Loaded { kind, end, initrd_max })
}

fn load_elf<F: Read + ReadVolatile + Seek>(
    mut image: F,
    protocol: BootProtocol,
    memory: &GuestMemoryMmap,
    low_end: u64,
) -> Result<Loaded<Kind>, ImageError> {
    let len = image.seek(SeekFrom::End(0)).map_err(ImageError::Read)?;
    let extent = elf_extent(&mut image, len)?;
    if extent.start < LOAD_START {
        return Err(ImageError::TooLow { start: extent.start });
    }
    if extent.end > low_end {
        return Err(ImageError::TooLarge { start: extent.start, end: extent.end, limit: low_end });
    }
    let loaded: KernelLoaderResult = Elf::load(memory, None, &mut image, None).map_err(loader_error)?;
    let pvh = match loaded.pvh_boot_cap {
        PvhBootCapability::PvhEntryPresent(entry) => Some(entry.0),
        _ => None,
    };
    let (kind, gpa) = match (protocol, pvh) {
        (BootProtocol::Pvh, None) => return Err(ImageError::NoPvhEntry),
        (BootProtocol::Pvh | BootProtocol::Auto, Some(entry)) => {
            let eip = u32::try_from(entry).map_err(|_| ImageError::NoPvhEntry)?;
            (Kind::Pvh { eip }, entry)
        }
        _ => (Kind::Linux64 { rip: loaded.kernel_load.0, setup_header: None }, loaded.kernel_load.0),
    };
    if !extent.contains(&gpa) {
        return Err(ImageError::EntryOutside { entry: gpa, start: extent.start, end: extent.end });
    }
    Ok(Loaded { kind, end: extent.end, initrd_max: u64::MAX })
}

/// The memory that an ELF file's segments use, including uninitialised data.
fn elf_extent(image: &mut (impl Read + Seek), len: u64) -> Result<std::ops::Range<u64>, ImageError> {
    let mut header = [0; 64];
    if read_start(image, &mut header).map_err(ImageError::Read)? < header.len() {
        return Err(ImageError::Truncated { what: "the ELF header", expected: 64, len });
    }
    // e_machine of Elf64_Ehdr.
    let machine = u16_at(&header, 18);
    if machine != EM_X86_64 {
        return Err(ImageError::Loader(format!(
            "e_machine (offset 18) is {machine}: expected {EM_X86_64}, x86_64"
        )));
    }
    // e_phoff, e_phentsize and e_phnum.
    let table = u64_at(&header, 32);
    let (size, count) = (u64::from(u16_at(&header, 54)), u64::from(u16_at(&header, 56)));
    if size != 56 {
        return Err(ImageError::Loader(format!(
            "e_phentsize (offset 54) is {size}: expected 56, the size of a program header of a 64-bit ELF file"
        )));
    }
    let expected = table.saturating_add(size * count);
    if expected > len {
        return Err(ImageError::Truncated { what: "the program header table", expected, len });
    }
    image.seek(SeekFrom::Start(table)).map_err(ImageError::Read)?;
    let (mut start, mut end) = (u64::MAX, 0);
    for _ in 0..count {
        let mut segment = [0; 56];
        image.read_exact(&mut segment).map_err(ImageError::Read)?;
        // p_type, p_offset, p_paddr, p_filesz and p_memsz of Elf64_Phdr; PT_LOAD is 1.
        let [offset, gpa, in_file, in_memory] = [8, 24, 32, 40].map(|at| u64_at(&segment, at));
        if segment[..4] != 1_u32.to_le_bytes() || in_memory == 0 {
            continue;
        }
        let expected = offset.saturating_add(in_file);
        if expected > len {
            return Err(ImageError::Truncated { what: "a segment", expected, len });
        }
        start = start.min(gpa);
        end = end.max(gpa.saturating_add(in_memory.max(in_file)));
    }
    if start >= end {
        return Err(ImageError::Loader("it has no segment to load (PT_LOAD)".into()));
    }
    Ok(start..end)
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn loader_error(error: LoaderError) -> ImageError {
    ImageError::Loader(error.to_string())
}
