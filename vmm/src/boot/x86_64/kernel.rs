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
    _: &[Range],
) -> Result<Loaded<Kind>, ImageError> {
    let len = image.seek(SeekFrom::End(0)).map_err(ImageError::Read)?;
    let mut start = [0; HEADER];
    let got = read_start(&mut image, &mut start).map_err(ImageError::Read)?;
    let start = &start[..got];
    if start.starts_with(b"\x7fELF") {
        load_elf(image, protocol, memory, low_end)
    } else if let Some(header) = SetupHeader::of(start) {
        load_bz_image(image, header, got, len, protocol, memory, low_end)
    } else {
        Err(format::unknown("a bzImage or an ELF file", start, len))
    }
}

/// Bytes up to the end of a bzImage's setup header, with the fields that follow what [`SetupHeader`] has.
const HEADER: usize = 0x280;

fn load_bz_image<F: Read + ReadVolatile + Seek>(
    mut image: F,
    header: SetupHeader,
    got: usize,
    len: u64,
    protocol: BootProtocol,
    memory: &GuestMemoryMmap,
    low_end: u64,
) -> Result<Loaded<Kind>, ImageError> {
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
    let code = header.code_len();
    let expected = header.code_start() + code;
    // syssize is rounded up.
    if len + 15 < expected {
        return Err(ImageError::Truncated { what: "syssize (offset 0x1f4)", expected, len });
    }
    if LOAD_START + code > low_end {
        return Err(ImageError::TooLarge { start: LOAD_START, end: LOAD_START + code, limit: low_end });
    }
    let loaded = BzImage::load(memory, None, &mut image, Some(GuestAddress(LOAD_START)))
        .map_err(|error| ImageError::Loader(error.to_string()))?;
    let Some(setup_header) = loaded.setup_header else {
        return Err(ImageError::Loader("it has no setup header (offset 0x1f1)".into()));
    };
    // The kernel decompresses itself to pref_address and uses init_size bytes there.
    let start = loaded.kernel_load.0;
    let unpacked = setup_header.pref_address.saturating_add(setup_header.init_size.into());
    let end = loaded.kernel_end.max(unpacked);
    if end > low_end {
        return Err(ImageError::TooLarge { start, end, limit: low_end });
    }
    let anywhere = xloadflags & XLF_CAN_BE_LOADED_ABOVE_4G != 0;
    let initrd_max = if anywhere { u64::MAX } else { setup_header.initrd_addr_max.into() };
    let kind = Kind::Linux64 { rip: start + ENTRY_64, setup_header: Some(setup_header) };
    let command_line_max = CommandLineMax::Header(header.command_line_max());
    Ok(Loaded { kind, end, initrd_max, command_line_max })
}

fn load_elf<F: Read + ReadVolatile + Seek>(
    mut image: F,
    protocol: BootProtocol,
    memory: &GuestMemoryMmap,
    low_end: u64,
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
