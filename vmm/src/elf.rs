//! The structures of an ELF file (System V ABI, "Object Files"): of kernels, and of the dump of a machine.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// EI_DATA: ELFDATA2LSB.
pub(crate) const LITTLE_ENDIAN: u8 = 1;
/// e_machine: EM_X86_64.
pub(crate) const EM_X86_64: u16 = 62;
/// e_machine: EM_AARCH64.
pub(crate) const EM_AARCH64: u16 = 183;
/// p_type: PT_LOAD.
pub(crate) const LOAD: u32 = 1;
/// p_type: PT_NOTE.
pub(crate) const NOTE: u32 = 4;

/// e_ident.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct Identification {
    pub(crate) magic: [u8; 4],
    pub(crate) class: u8,
    pub(crate) data: u8,
    pub(crate) version: u8,
    pub(crate) abi: u8,
    pub(crate) abi_version: u8,
    pub(crate) padding: [u8; 7],
}

/// Elf32_Ehdr.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct Header32 {
    pub(crate) ident: [u8; 16],
    pub(crate) kind: U16,
    pub(crate) machine: U16,
    pub(crate) version: U32,
    pub(crate) entry: U32,
    pub(crate) program_headers: U32,
    pub(crate) section_headers: U32,
    pub(crate) flags: U32,
    pub(crate) header_size: U16,
    pub(crate) program_header_size: U16,
    pub(crate) program_header_count: U16,
    pub(crate) section_header_size: U16,
    pub(crate) section_header_count: U16,
    pub(crate) section_names: U16,
}

/// Elf64_Ehdr.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct Header64 {
    pub(crate) ident: [u8; 16],
    pub(crate) kind: U16,
    pub(crate) machine: U16,
    pub(crate) version: U32,
    pub(crate) entry: U64,
    pub(crate) program_headers: U64,
    pub(crate) section_headers: U64,
    pub(crate) flags: U32,
    pub(crate) header_size: U16,
    pub(crate) program_header_size: U16,
    pub(crate) program_header_count: U16,
    pub(crate) section_header_size: U16,
    pub(crate) section_header_count: U16,
    pub(crate) section_names: U16,
}

/// Elf32_Phdr.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct ProgramHeader32 {
    pub(crate) kind: U32,
    pub(crate) offset: U32,
    pub(crate) virtual_address: U32,
    pub(crate) physical_address: U32,
    pub(crate) file_size: U32,
    pub(crate) memory_size: U32,
    pub(crate) flags: U32,
    pub(crate) alignment: U32,
}

/// Elf64_Phdr.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct ProgramHeader64 {
    pub(crate) kind: U32,
    pub(crate) flags: U32,
    pub(crate) offset: U64,
    pub(crate) virtual_address: U64,
    pub(crate) physical_address: U64,
    pub(crate) file_size: U64,
    pub(crate) memory_size: U64,
    pub(crate) alignment: U64,
}

/// Elf32_Nhdr and Elf64_Nhdr. The name and the descriptor follow, each padded to the segment's alignment.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct Note {
    pub(crate) name_size: U32,
    pub(crate) descriptor_size: U32,
    pub(crate) kind: U32,
}

const _: () = {
    assert!(size_of::<Identification>() == 16);
    assert!(size_of::<Header32>() == 52 && size_of::<Header64>() == 64);
    assert!(size_of::<ProgramHeader32>() == 32 && size_of::<ProgramHeader64>() == 56);
    assert!(size_of::<Note>() == 12);
};
