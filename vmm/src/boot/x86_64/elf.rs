//! ELF files of both classes: segments and the PVH entry (System V ABI, "Object Files"; Xen, public/elfnote.h).
//!
//! A PVH kernel is entered in 32-bit mode, so it may be an ELF file of 32 bits (GRUB, Xen) as well as of 64 (Linux).

use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap, ReadVolatile};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use super::super::{ImageError, read_start};
use crate::elf::{
    EM_X86_64, Header32, Header64, Identification, LITTLE_ENDIAN, LOAD, NOTE, Note, ProgramHeader32,
    ProgramHeader64,
};

/// What an ELF file says about how it is loaded.
#[derive(Debug)]
pub(super) struct ElfFile {
    pub(super) class: Class,
    pub(super) entry: u64,
    segments: Vec<Segment>,
}

/// The class of an ELF file: the size of its addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    Elf32,
    Elf64,
}

/// A segment of either class.
#[derive(Clone, Copy, Debug)]
struct Segment {
    kind: u32,
    offset: u64,
    gpa: u64,
    len_in_file: u64,
    len_in_memory: u64,
    alignment: u64,
}

/// e_machine: EM_386.
const EM_386: u16 = 3;
/// Name of Xen's notes, with its NUL.
const XEN: &[u8] = b"Xen\0";
/// XEN_ELFNOTE_PHYS32_ENTRY.
const PHYS32_ENTRY: u32 = 18;
/// Bytes of a note segment that are searched. Those of Linux and Xen have a few hundred.
const MAX_NOTES: u64 = 1 << 20;

impl ElfFile {
    /// Reads the headers of a file of `len` bytes.
    pub(super) fn read(image: &mut (impl Read + Seek), len: u64) -> Result<Self, ImageError> {
        let mut start = [0; size_of::<Header64>()];
        let got = read_start(image, &mut start).map_err(ImageError::Read)?;
        let truncated = |expected: usize| ImageError::Truncated {
            what: "the ELF header",
            expected: expected as u64,
            len,
        };
        let start = &start[..got];
        let (ident, _) =
            Identification::read_from_prefix(start).map_err(|_| truncated(size_of::<Header64>()))?;
        if ident.data != LITTLE_ENDIAN {
            return Err(ImageError::Loader("it is an ELF file of a big-endian architecture".into()));
        }
        match ident.class {
            1 => {
                let (header, _) =
                    Header32::read_from_prefix(start).map_err(|_| truncated(size_of::<Header32>()))?;
                check_machine(Class::Elf32, header.machine.get(), EM_386)?;
                let table = Table {
                    start: header.program_headers.get().into(),
                    entry_size: header.program_header_size.get(),
                    count: header.program_header_count.get(),
                };
                let segments = table.read::<ProgramHeader32>(image, len)?;
                Ok(ElfFile { class: Class::Elf32, entry: header.entry.get().into(), segments })
            }
            2 => {
                let (header, _) =
                    Header64::read_from_prefix(start).map_err(|_| truncated(size_of::<Header64>()))?;
                check_machine(Class::Elf64, header.machine.get(), EM_X86_64)?;
                let table = Table {
                    start: header.program_headers.get(),
                    entry_size: header.program_header_size.get(),
                    count: header.program_header_count.get(),
                };
                let segments = table.read::<ProgramHeader64>(image, len)?;
                Ok(ElfFile { class: Class::Elf64, entry: header.entry.get(), segments })
            }
            class => Err(ImageError::Loader(format!(
                "EI_CLASS (offset 4) is {class}: expected 1 (32 bits) or 2 (64 bits)"
            ))),
        }
    }

    /// The memory that its segments use, including uninitialised data.
    pub(super) fn extent(&self) -> Result<Range<u64>, ImageError> {
        let loaded = self.segments.iter().filter(|segment| segment.kind == LOAD && segment.len_in_memory > 0);
        let (mut start, mut end) = (u64::MAX, 0);
        for segment in loaded {
            start = start.min(segment.gpa);
            end = end.max(segment.gpa.saturating_add(segment.len_in_memory.max(segment.len_in_file)));
        }
        if start >= end {
            return Err(ImageError::Loader("it has no segment to load (PT_LOAD)".into()));
        }
        Ok(start..end)
    }

    /// The entry of its PVH note. `None` without such a note.
    pub(super) fn pvh_entry(&self, image: &mut (impl Read + Seek)) -> Result<Option<u32>, ImageError> {
        for segment in self.segments.iter().filter(|segment| segment.kind == NOTE) {
            let mut notes = Vec::new();
            image.seek(SeekFrom::Start(segment.offset)).map_err(ImageError::Read)?;
            let len = segment.len_in_file.min(MAX_NOTES);
            image.by_ref().take(len).read_to_end(&mut notes).map_err(ImageError::Read)?;
            // Notes are aligned to 8 bytes in segments that say so, and to 4 in all others.
            let alignment = if segment.alignment == 8 { 8 } else { 4 };
            if let Some(descriptor) = find_note(&notes, alignment, XEN, PHYS32_ENTRY) {
                // An address of 32 bits, in a word of either class.
                let entry = match *descriptor {
                    [a, b, c, d] | [a, b, c, d, 0, 0, 0, 0] => u32::from_le_bytes([a, b, c, d]),
                    _ => {
                        let what = "its PVH note (XEN_ELFNOTE_PHYS32_ENTRY) is not an address of 32 bits";
                        return Err(ImageError::Loader(what.into()));
                    }
                };
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }

    /// Copies its segments into memory, which is zero where a segment has no bytes in the file.
    pub(super) fn load(
        &self,
        image: &mut (impl ReadVolatile + Seek),
        memory: &GuestMemoryMmap,
    ) -> Result<(), ImageError> {
        for segment in self.segments.iter().filter(|it| it.kind == LOAD && it.len_in_file > 0) {
            image.seek(SeekFrom::Start(segment.offset)).map_err(ImageError::Read)?;
            let Segment { gpa, len_in_file, .. } = *segment;
            let len = usize::try_from(len_in_file).unwrap_or(usize::MAX);
            memory
                .read_exact_volatile_from(GuestAddress(gpa), image, len)
                .map_err(|error| ImageError::Loader(format!("its segment at {gpa:#x}: {error}")))?;
        }
        Ok(())
    }
}

/// A table of program headers.
struct Table {
    start: u64,
    entry_size: u16,
    count: u16,
}

impl Table {
    fn read<H: FromZeros + FromBytes + IntoBytes + Into<Segment>>(
        &self,
        image: &mut (impl Read + Seek),
        len: u64,
    ) -> Result<Vec<Segment>, ImageError> {
        let Table { start, entry_size, count } = *self;
        if usize::from(entry_size) != size_of::<H>() {
            return Err(ImageError::Loader(format!(
                "e_phentsize is {entry_size}: expected {}, the size of a program header of its class",
                size_of::<H>()
            )));
        }
        let expected = start.saturating_add(u64::from(entry_size) * u64::from(count));
        if expected > len {
            return Err(ImageError::Truncated { what: "the program header table", expected, len });
        }
        image.seek(SeekFrom::Start(start)).map_err(ImageError::Read)?;
        let mut segments = Vec::with_capacity(count.into());
        for _ in 0..count {
            let mut header = H::new_zeroed();
            image.read_exact(header.as_mut_bytes()).map_err(ImageError::Read)?;
            let segment: Segment = header.into();
            let expected = segment.offset.saturating_add(segment.len_in_file);
            if matches!(segment.kind, LOAD | NOTE) && expected > len {
                return Err(ImageError::Truncated { what: "a segment", expected, len });
            }
            segments.push(segment);
        }
        Ok(segments)
    }
}

impl From<ProgramHeader32> for Segment {
    fn from(header: ProgramHeader32) -> Self {
        Segment {
            kind: header.kind.get(),
            offset: header.offset.get().into(),
            gpa: header.physical_address.get().into(),
            len_in_file: header.file_size.get().into(),
            len_in_memory: header.memory_size.get().into(),
            alignment: header.alignment.get().into(),
        }
    }
}

impl From<ProgramHeader64> for Segment {
    fn from(header: ProgramHeader64) -> Self {
        Segment {
            kind: header.kind.get(),
            offset: header.offset.get(),
            gpa: header.physical_address.get(),
            len_in_file: header.file_size.get(),
            len_in_memory: header.memory_size.get(),
            alignment: header.alignment.get(),
        }
    }
}

/// An error if the file is for another machine than its class is loaded for.
fn check_machine(class: Class, machine: u16, expected: u16) -> Result<(), ImageError> {
    if machine == expected {
        return Ok(());
    }
    let bits = if class == Class::Elf32 { 32 } else { 64 };
    let name = match machine {
        EM_386 => "i386",
        20 | 21 => "PowerPC",
        22 => "s390",
        40 => "arm",
        EM_X86_64 => "x86_64",
        183 => "aarch64",
        243 => "riscv",
        258 => "loongarch",
        _ => "another architecture",
    };
    Err(ImageError::Loader(format!("it is a {bits}-bit ELF file for {name} (e_machine {machine})")))
}

/// The descriptor of the first note with this name and type.
fn find_note<'a>(mut notes: &'a [u8], alignment: usize, name: &[u8], kind: u32) -> Option<&'a [u8]> {
    loop {
        let (note, rest) = Note::read_from_prefix(notes).ok()?;
        // The first field is padded as if it followed the header at an aligned address.
        let (name_size, size) = (note.name_size.get() as usize, note.descriptor_size.get() as usize);
        let header = size_of::<Note>();
        let start = header.checked_add(name_size)?.checked_next_multiple_of(alignment)?;
        let end = start.checked_add(size)?;
        let descriptor = notes.get(start..end)?;
        if note.kind.get() == kind && rest.get(..name_size) == Some(name) {
            return Some(descriptor);
        }
        notes = notes.get(end.checked_next_multiple_of(alignment)?..)?;
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use zerocopy::little_endian::{U16, U32, U64};

    use super::*;

    /// A note with a name and a descriptor, each padded.
    fn note(name: &[u8], kind: u32, descriptor: &[u8], alignment: usize) -> Vec<u8> {
        let mut note = [name.len() as u32, descriptor.len() as u32, kind].map(u32::to_le_bytes).concat();
        for part in [name, descriptor] {
            note.extend(part);
            note.resize(note.len().next_multiple_of(alignment), 0);
        }
        note
    }

    /// A 64-bit file with these note segments, each with its alignment, and a segment to load.
    fn file(notes: &[(&[u8], u64)]) -> Vec<u8> {
        let header = Header64 {
            ident: *b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0",
            kind: U16::new(2),
            machine: U16::new(EM_X86_64),
            version: U32::new(1),
            entry: U64::new(0x10_0000),
            program_headers: U64::new(size_of::<Header64>() as u64),
            section_headers: U64::ZERO,
            flags: U32::ZERO,
            header_size: U16::new(size_of::<Header64>() as u16),
            program_header_size: U16::new(size_of::<ProgramHeader64>() as u16),
            program_header_count: U16::new(1 + notes.len() as u16),
            section_header_size: U16::ZERO,
            section_header_count: U16::ZERO,
            section_names: U16::ZERO,
        };
        let segment = |kind, offset: usize, len: usize, alignment| ProgramHeader64 {
            kind: U32::new(kind),
            flags: U32::ZERO,
            offset: U64::new(offset as u64),
            virtual_address: U64::ZERO,
            physical_address: U64::new(0x10_0000),
            file_size: U64::new(len as u64),
            memory_size: U64::new(len as u64),
            alignment: U64::new(alignment),
        };
        let mut offset = size_of::<Header64>() + (1 + notes.len()) * size_of::<ProgramHeader64>();
        let mut file = [header.as_bytes(), segment(LOAD, 0, 64, 1).as_bytes()].concat();
        for (bytes, alignment) in notes {
            file.extend(segment(NOTE, offset, bytes.len(), *alignment).as_bytes());
            offset += bytes.len();
        }
        file.extend(notes.iter().flat_map(|(bytes, _)| *bytes));
        file
    }

    fn entry(file: Vec<u8>) -> Result<Option<u32>, ImageError> {
        let len = file.len() as u64;
        let mut file = Cursor::new(file);
        ElfFile::read(&mut file, len)?.pvh_entry(&mut file)
    }

    #[test]
    fn the_entry_is_found_in_any_segment_and_behind_any_note() {
        let address = [0x34, 0x12, 0x10, 0];
        let property = note(b"GNU\0", 5, &[1; 20], 8);
        let foreign = note(b"Linux\0", 18, &address, 4);
        for pvh in [note(XEN, 18, &address, 4), note(XEN, 18, &[&address[..], &[0; 4]].concat(), 4)] {
            let behind = [note(XEN, 5, &[1; 5], 4), foreign.clone(), pvh.clone()].concat();
            for notes in [
                &[(&pvh[..], 4)][..],
                &[(&behind, 1)],
                &[(&property, 8), (&pvh, 4)],
                // A segment without the note does not hide that of another.
                &[(&pvh, 4), (&property, 8)],
            ] {
                assert_eq!(entry(file(notes)).expect("valid"), Some(0x10_1234));
            }
        }
        let aligned = [property.clone(), note(XEN, 18, &address, 8)].concat();
        assert_eq!(entry(file(&[(&aligned, 8)])).expect("valid"), Some(0x10_1234));
        assert_eq!(entry(file(&[(&property, 8), (&foreign, 4)])).expect("valid"), None);
        for wrong in [&[0; 2][..], &[0, 0, 0, 0, 1, 0, 0, 0]] {
            assert!(entry(file(&[(&note(XEN, 18, wrong, 4), 4)])).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn no_byte_makes_the_reader_panic() {
        let notes = note(XEN, 18, &[0; 4], 4);
        let whole = file(&[(&notes, 4)]);
        for at in 0..whole.len() {
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut changed = whole.clone();
                changed[at] = value;
                let len = changed.len() as u64;
                let mut image = Cursor::new(changed);
                if let Ok(elf) = ElfFile::read(&mut image, len) {
                    // Only that they return.
                    let _ = (elf.extent(), elf.pvh_entry(&mut image));
                }
            }
            assert!(entry(whole[..at].to_vec()).is_err(), "{at} bytes of {}", whole.len());
        }
    }
}
