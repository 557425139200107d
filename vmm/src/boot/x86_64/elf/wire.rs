//! The structures of an ELF file (System V ABI, "Object Files").

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// e_ident.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct Identification {
    pub(super) magic: [u8; 4],
    pub(super) class: u8,
    pub(super) data: u8,
    pub(super) version: u8,
    pub(super) abi: u8,
    pub(super) abi_version: u8,
    pub(super) padding: [u8; 7],
}

/// Elf32_Ehdr.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct Header32 {
    pub(super) ident: [u8; 16],
    pub(super) kind: U16,
    pub(super) machine: U16,
    pub(super) version: U32,
    pub(super) entry: U32,
    pub(super) program_headers: U32,
    pub(super) section_headers: U32,
    pub(super) flags: U32,
    pub(super) header_size: U16,
    pub(super) program_header_size: U16,
    pub(super) program_header_count: U16,
    pub(super) section_header_size: U16,
    pub(super) section_header_count: U16,
    pub(super) section_names: U16,
}

/// Elf64_Ehdr.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct Header64 {
    pub(super) ident: [u8; 16],
    pub(super) kind: U16,
    pub(super) machine: U16,
    pub(super) version: U32,
    pub(super) entry: U64,
    pub(super) program_headers: U64,
    pub(super) section_headers: U64,
    pub(super) flags: U32,
    pub(super) header_size: U16,
    pub(super) program_header_size: U16,
    pub(super) program_header_count: U16,
    pub(super) section_header_size: U16,
    pub(super) section_header_count: U16,
    pub(super) section_names: U16,
}

/// Elf32_Phdr.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct ProgramHeader32 {
    pub(super) kind: U32,
    pub(super) offset: U32,
    pub(super) virtual_address: U32,
    pub(super) physical_address: U32,
    pub(super) file_size: U32,
    pub(super) memory_size: U32,
    pub(super) flags: U32,
    pub(super) alignment: U32,
}

/// Elf64_Phdr.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct ProgramHeader64 {
    pub(super) kind: U32,
    pub(super) flags: U32,
    pub(super) offset: U64,
    pub(super) virtual_address: U64,
    pub(super) physical_address: U64,
    pub(super) file_size: U64,
    pub(super) memory_size: U64,
    pub(super) alignment: U64,
}

/// Elf32_Nhdr and Elf64_Nhdr. The name and the descriptor follow, each padded to the segment's alignment.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct Note {
    pub(super) name_size: U32,
    pub(super) descriptor_size: U32,
    pub(super) kind: U32,
}

const _: () = {
    assert!(size_of::<Identification>() == 16);
    assert!(size_of::<Header32>() == 52 && size_of::<Header64>() == 64);
    assert!(size_of::<ProgramHeader32>() == 32 && size_of::<ProgramHeader64>() == 56);
    assert!(size_of::<Note>() == 12);
};
