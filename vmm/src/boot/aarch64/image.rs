//! The arm64 Image, plain or compressed (Documentation/arch/arm64/booting.rst; zboot: drivers/firmware/efi/libstub).

use std::io::{Cursor, Read, Seek, SeekFrom};

use linux_loader::loader::KernelLoader;
use linux_loader::loader::pe::PE;
use machine_profile::BootProtocol;
use platform::Range;
use platform::aarch64::KERNEL_START;
use vm_memory::{GuestAddress, GuestMemoryMmap, ReadVolatile};

use super::super::{ImageError, Loaded, compression, format, read_start};
use crate::command_line::CommandLineMax;

/// How a kernel is entered.
pub(crate) struct Kind {
    /// GPA of the first instruction.
    pub(crate) pc: u64,
}

/// Bytes of the header.
const HEADER: usize = 64;
/// magic: "ARM\x64", at offset 56.
const MAGIC: &[u8] = b"ARM\x64";
/// The image is loaded `text_offset` bytes after an address with this alignment.
const ALIGNMENT: usize = 2 << 20;
/// Kernel and initrd have to be within one window of 32 GiB that is aligned to 1 GiB.
const INITRD_WINDOW: u64 = 32 << 30;

pub(crate) fn load<F: Read + ReadVolatile + Seek>(
    mut image: F,
    _: BootProtocol,
    memory: &GuestMemoryMmap,
    end_of_memory: u64,
    poisoned: &[Range],
) -> Result<Loaded<Kind>, ImageError> {
    let len = image.seek(SeekFrom::End(0)).map_err(ImageError::Read)?;
    let mut start = [0; HEADER];
    let got = read_start(&mut image, &mut start).map_err(ImageError::Read)?;
    if let Some(compressed) = compression::of(&start[..got]) {
        image.rewind().map_err(ImageError::Read)?;
        let mut bytes = Vec::new();
        image.read_to_end(&mut bytes).map_err(ImageError::Read)?;
        let decompressed = compression::decompress(compressed, &bytes, end_of_memory)?;
        return load_plain(Cursor::new(&decompressed[..]), memory, end_of_memory, poisoned);
    }
    if start.get(56..60) != Some(MAGIC) {
        return Err(format::unknown("an arm64 Image, plain, gzip or zboot", &start[..got], len));
    }
    load_plain(image, memory, end_of_memory, poisoned)
}

fn load_plain<F: Read + ReadVolatile + Seek>(
    mut image: F,
    memory: &GuestMemoryMmap,
    end_of_memory: u64,
    poisoned: &[Range],
) -> Result<Loaded<Kind>, ImageError> {
    let len = image.seek(SeekFrom::End(0)).map_err(ImageError::Read)?;
    let mut header = [0; HEADER];
    if read_start(&mut image, &mut header).map_err(ImageError::Read)? < HEADER {
        return Err(ImageError::Truncated { what: "the Image header", expected: HEADER as u64, len });
    }
    if header[56..60] != *MAGIC {
        return Err(format::unknown("an arm64 Image", &header, len));
    }
    // image_size includes uninitialised data, which is not in the file. It is 0 in kernels before 3.17.
    let (text_offset, image_size) = match (u64_at(&header, 8), u64_at(&header, 16)) {
        (_, 0) => (0x8_0000, len),
        fields => fields,
    };
    let place = |base: u64| Range { start: base.saturating_add(text_offset), len: image_size.max(len) };
    let Range { start, len } = place(KERNEL_START);
    let end = start.saturating_add(len);
    if end > end_of_memory {
        return Err(ImageError::TooLarge { start, end, limit: end_of_memory });
    }
    let mut places =
        (KERNEL_START..).step_by(ALIGNMENT).take_while(|base| place(*base).end() <= end_of_memory);
    let in_the_way = |base| poisoned.iter().find(|range| range.overlaps(place(base)));
    let Some(base) = places.find(|base| in_the_way(*base).is_none()) else {
        let page = in_the_way(KERNEL_START).map_or(start, |range| range.start);
        return Err(ImageError::Poisoned { start, end, page });
    };
    let end = place(base).end();
    let loaded = PE::load(memory, Some(GuestAddress(base)), &mut image, None)
        .map_err(|error| ImageError::Loader(error.to_string()))?;
    let initrd_max = (base & !((1 << 30) - 1)).saturating_add(INITRD_WINDOW - 1);
    let kind = Kind { pc: loaded.kernel_load.0 };
    Ok(Loaded { kind, end, initrd_max, command_line_max: CommandLineMax::Linux })
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut value = [0; 8];
    value.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(value)
}
