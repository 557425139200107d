//! A dump of the machine, for crash, drgn and gdb: an ELF core file (ET_CORE) of its memory, by physical addresses, and of the registers of
//! its vCPUs, as `dump-guest-memory` of QEMU and kdump make it.
//!
//! ```text
//! Elf64_Ehdr, Elf64_Phdr of the notes, Elf64_Phdr of each piece of memory, room for more of them
//! notes: NT_PRSTATUS of each vCPU; on x86_64 also QEMU's CPUState; VMCOREINFO of a Linux guest
//! memory, region after region; what is zero, or omitted, is a hole of the file
//! ```
//!
//! Poisoned pages are omitted: no piece of memory contains them. Those that are known are not read, and a page that turns out to be
//! poisoned when it is read is omitted too. How many pieces there are is known at the end, so the headers are written last: what is left of
//! an incomplete dump is no ELF file. crash expects the headers at the beginning, with the notes before the memory.

mod memory;
mod notes;
mod vmcoreinfo;

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use guest_memory::GuestRam;
use vcpu::CoreRegisters;
use zerocopy::IntoBytes;

use crate::elf::{EM_AARCH64, EM_X86_64, Header64, LITTLE_ENDIAN, LOAD, NOTE, ProgramHeader64};
use memory::{Copied, Copier};
use notes::Notes;

/// What a dump is made of: a machine whose vCPUs are paused.
#[derive(Debug)]
pub struct Dump {
    /// Its memory.
    pub ram: GuestRam,
    /// The registers of its vCPUs.
    pub registers: Vec<CoreRegisters>,
    /// Memory that is known to be poisoned, as GPA and bytes. It is not read.
    pub poisoned: Vec<(u64, u64)>,
}

/// A part of guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// First GPA.
    pub gpa: u64,
    /// Bytes.
    pub len: u64,
}

/// A dump that is complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// Bytes of the file, with its holes.
    pub file_len: u64,
    /// Memory that is not in it, because it is poisoned or the host cannot provide it.
    pub omitted: Vec<Piece>,
    /// GPA of the note VMCOREINFO of the guest's kernel, which is in the dump. `None` if no such note was found.
    pub vmcoreinfo: Option<u64>,
}

/// How far a dump is.
#[derive(Debug)]
pub struct Progress {
    done: AtomicU64,
    /// Bytes of guest memory.
    pub total: u64,
}

/// Why there is no dump. No file is left.
#[derive(Debug, thiserror::Error)]
pub enum DumpError {
    /// The file cannot be created.
    #[error("{path}: open(2): {source}{}", if .source.kind() == io::ErrorKind::AlreadyExists { ": no file is overwritten, choose another name" } else { "" })]
    Create {
        /// Its path.
        path: String,
        /// Its error.
        source: io::Error,
    },
    /// The file cannot be written.
    #[error("{path}: {call}: {source}; the incomplete dump is removed")]
    Write {
        /// Its path.
        path: String,
        /// The system call.
        call: &'static str,
        /// Its error.
        source: io::Error,
    },
    /// Guest memory cannot be read.
    #[error("guest memory: {0}; the incomplete dump is removed")]
    Memory(io::Error),
    /// An ELF file cannot describe that many pieces.
    #[error("poisoned pages divide the memory into more than {0} pieces; the incomplete dump is removed")]
    TooManyPieces(usize),
    /// The client has gone, or the machine has ended.
    #[error("the dump was abandoned: the machine has ended; the incomplete dump is removed")]
    Abandoned,
}

/// Why a step failed, without the path.
#[derive(Debug)]
enum Failure {
    Call(&'static str, io::Error),
    Memory(io::Error),
    TooManyPieces(usize),
    Abandoned,
}

/// ET_CORE.
const CORE: u16 = 4;
/// Program headers for pieces that come into being while the memory is copied.
const SPARE_PIECES: usize = 1024;
/// Program headers of a file at most: PN_XNUM (65535) says that the number is elsewhere.
const MAX_PROGRAM_HEADERS: usize = 0xfffe;
/// The memory begins at a multiple of it.
const ALIGNMENT: u64 = 4096;
/// PF_R, PF_W and PF_X.
const ACCESSIBLE: u32 = 7;

impl Progress {
    /// That of a dump that begins.
    #[must_use]
    pub fn new(ram: &GuestRam) -> Self {
        Progress { done: AtomicU64::new(0), total: ram.slots().map(|slot| slot.len).sum() }
    }

    /// Bytes of guest memory that are copied, or known to be zero.
    #[must_use]
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    fn advance(&self, bytes: u64) {
        self.done.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl Dump {
    /// Writes the dump to a new file, which only its owner may read. It is on the disk when this returns.
    ///
    /// # Errors
    /// Returns an error if the file exists or cannot be written, or if `is_abandoned` returns true. No file is left then.
    pub fn write(
        &self,
        path: &Path,
        progress: &Progress,
        is_abandoned: &dyn Fn() -> bool,
    ) -> Result<Written, DumpError> {
        let name = || path.display().to_string();
        let file = File::options().write(true).create_new(true).mode(0o600).open(path);
        let file = file.map_err(|source| DumpError::Create { path: name(), source })?;
        let outcome = self.write_to(&file, progress, is_abandoned).map_err(|failure| match failure {
            Failure::Call(call, source) => DumpError::Write { path: name(), call, source },
            Failure::Memory(error) => DumpError::Memory(error),
            Failure::TooManyPieces(most) => DumpError::TooManyPieces(most),
            Failure::Abandoned => DumpError::Abandoned,
        });
        if outcome.is_err()
            && let Err(error) = fs::remove_file(path)
        {
            tracing::error!(%error, path = %path.display(), "unlink(2) of an incomplete dump failed");
        }
        outcome
    }

    fn write_to(
        &self,
        file: &File,
        progress: &Progress,
        is_abandoned: &dyn Fn() -> bool,
    ) -> Result<Written, Failure> {
        let mut notes = Notes::of(&self.registers);
        let regions = self.ram.slots().count();
        let headers = (1 + regions + self.poisoned.len() + SPARE_PIECES).min(MAX_PROGRAM_HEADERS);
        let notes_at = (size_of::<Header64>() + headers * size_of::<ProgramHeader64>()) as u64;
        let memory_at =
            (notes_at + notes.len() as u64 + vmcoreinfo::MAX_NOTE_LEN).next_multiple_of(ALIGNMENT);
        let read = |gpa, to: &mut [u8]| self.ram.read(gpa, to);
        let copier = Copier { ram: &self.ram, read: &read, file, memory_at, max_pieces: headers - 1 };
        let mut poisoned: Vec<_> = self.poisoned.iter().copied().map(whole_pages).collect();
        poisoned.sort_unstable_by_key(|piece| piece.gpa);
        let Copied { omitted, vmcoreinfo } = copier.copy(&poisoned, progress, is_abandoned)?;
        let vmcoreinfo = vmcoreinfo.and_then(|note| {
            notes.add_vmcoreinfo(&vmcoreinfo::read(&self.ram, note)?);
            Some(note.gpa)
        });
        let file_len = memory_at + self.ram.slots().map(|slot| slot.len).sum::<u64>();
        file.set_len(file_len).map_err(|error| Failure::Call("ftruncate(2)", error))?;
        let write = |bytes: &[u8], offset| {
            file.write_all_at(bytes, offset).map_err(|error| Failure::Call("pwrite(2)", error))?;
            file.sync_all().map_err(|error| Failure::Call("fsync(2)", error))
        };
        write(notes.bytes(), notes_at)?;
        let pieces = memory::pieces(&self.ram, &omitted);
        // Last: everything else is on the disk.
        write(&self.headers(notes_at, notes.len() as u64, memory_at, &pieces), 0)?;
        Ok(Written { file_len, omitted, vmcoreinfo })
    }

    fn headers(&self, notes_at: u64, notes_len: u64, memory_at: u64, pieces: &[Piece]) -> Vec<u8> {
        let machine = match self.registers.first() {
            Some(CoreRegisters::Aarch64(_)) => EM_AARCH64,
            Some(CoreRegisters::X86_64(_)) => EM_X86_64,
            _ => 0,
        };
        let mut ident = [0; 16];
        ident[..7].copy_from_slice(&[0x7f, b'E', b'L', b'F', CLASS_64, LITTLE_ENDIAN, VERSION]);
        let header = Header64 {
            ident,
            kind: CORE.into(),
            machine: machine.into(),
            version: u32::from(VERSION).into(),
            entry: 0.into(),
            program_headers: (size_of::<Header64>() as u64).into(),
            section_headers: 0.into(),
            flags: 0.into(),
            header_size: (size_of::<Header64>() as u16).into(),
            program_header_size: (size_of::<ProgramHeader64>() as u16).into(),
            program_header_count: (1 + pieces.len() as u16).into(),
            section_header_size: 0.into(),
            section_header_count: 0.into(),
            section_names: 0.into(),
        };
        let notes = ProgramHeader64 {
            kind: NOTE.into(),
            flags: 0.into(),
            offset: notes_at.into(),
            virtual_address: 0.into(),
            physical_address: 0.into(),
            file_size: notes_len.into(),
            memory_size: notes_len.into(),
            alignment: 4.into(),
        };
        let mut bytes = [header.as_bytes(), notes.as_bytes()].concat();
        for Piece { gpa, len } in pieces {
            let memory = ProgramHeader64 {
                kind: LOAD.into(),
                flags: ACCESSIBLE.into(),
                offset: memory::offset_in_file(&self.ram, memory_at, *gpa).into(),
                // Without the guest's page tables: a debugger that does not know them reads memory by physical addresses.
                virtual_address: (*gpa).into(),
                physical_address: (*gpa).into(),
                file_size: (*len).into(),
                memory_size: (*len).into(),
                alignment: ALIGNMENT.into(),
            };
            bytes.extend_from_slice(memory.as_bytes());
        }
        bytes
    }
}

/// The pages of the host that contain these bytes.
fn whole_pages((gpa, len): (u64, u64)) -> Piece {
    let page = rustix::param::page_size() as u64;
    let start = gpa & !(page - 1);
    Piece { gpa: start, len: (gpa - start + len).next_multiple_of(page) }
}

/// ELFCLASS64.
const CLASS_64: u8 = 2;
/// EV_CURRENT.
const VERSION: u8 = 1;

#[cfg(test)]
mod tests;
