//! Copies guest memory to a dump's file.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use guest_memory::{AccessError, GuestRam};
use ras_core::Span;

use super::vmcoreinfo::FoundNote;
use super::{Failure, Piece, Progress};

/// Copies guest memory to a file, region after region, from an offset on.
pub(super) struct Copier<'a> {
    pub(super) ram: &'a GuestRam,
    /// Reads guest memory from a GPA on.
    pub(super) read: &'a Read<'a>,
    pub(super) file: &'a File,
    /// The offset.
    pub(super) memory_at: u64,
    /// How many pieces poisoned pages may divide the memory into.
    pub(super) max_pieces: usize,
}

/// A function that reads guest memory.
type Read<'a> = dyn Fn(u64, &mut [u8]) -> Result<(), AccessError> + 'a;

/// Memory that was copied.
#[derive(Debug, Default)]
pub(super) struct Copied {
    /// What is not in the file, ascending.
    pub(super) omitted: Vec<Piece>,
    /// The note of the guest's kernel.
    pub(super) vmcoreinfo: Option<FoundNote>,
}

/// Bytes that are copied at once.
const CHUNK: u64 = 1 << 20;
/// What is zero becomes holes of the file, in multiples of that size.
const PAGE: usize = 4096;
const ZEROS: [u8; PAGE] = [0; PAGE];

/// The offset in the file of the byte at a GPA.
pub(super) fn offset_in_file(ram: &GuestRam, memory_at: u64, gpa: u64) -> u64 {
    let regions = ram.slots().take_while(|slot| slot.gpa <= gpa);
    memory_at + regions.map(|slot| (gpa - slot.gpa).min(slot.len)).sum::<u64>()
}

/// The memory of a guest without what is omitted.
pub(super) fn pieces(ram: &GuestRam, omitted: &[Piece]) -> Vec<Piece> {
    let mut pieces = Vec::new();
    for slot in ram.slots() {
        let mut at = slot.gpa;
        let end = slot.gpa + slot.len;
        let within = omitted.iter().filter(|piece| piece.gpa >= slot.gpa && piece.gpa < end);
        for piece in within.copied().chain([Piece { gpa: end, len: 0 }]) {
            if at < piece.gpa {
                pieces.push(Piece { gpa: at, len: piece.gpa - at });
            }
            at = piece.gpa + piece.len;
        }
    }
    pieces
}

impl Copier<'_> {
    /// Copies all memory but the parts that are known to be poisoned, ascending, and those that turn out to be.
    pub(super) fn copy(
        &self,
        mut poisoned: &[Piece],
        progress: &Progress,
        is_abandoned: &dyn Fn() -> bool,
    ) -> Result<Copied, Failure> {
        let mut copied = Copied::default();
        let base_page = rustix::param::page_size() as u64;
        let mut population = self.ram.population().map_err(Failure::Memory)?;
        let mut buffer = vec![0; CHUNK as usize];
        let mut allocated = vec![false; (CHUNK / base_page) as usize];
        for slot in self.ram.slots() {
            let mut at = slot.gpa;
            let end = slot.gpa + slot.len;
            while at < end {
                if is_abandoned() {
                    return Err(Failure::Abandoned);
                }
                while let [passed, rest @ ..] = poisoned
                    && passed.gpa + passed.len <= at
                {
                    poisoned = rest;
                }
                let next = match poisoned.first() {
                    Some(known) if known.gpa <= at => {
                        let next = end.min(known.gpa + known.len);
                        self.omit(&mut copied, Piece { gpa: at, len: next - at })?;
                        next
                    }
                    known => {
                        let chunk_end = end.min(at + CHUNK).min(known.map_or(u64::MAX, |known| known.gpa));
                        let pages = (chunk_end - at).div_ceil(base_page) as usize;
                        let allocated = allocated.get_mut(..pages).unwrap_or_default();
                        population.read(at, allocated).map_err(Failure::Memory)?;
                        self.copy_chunk(&mut copied, at, end, allocated, &mut buffer)?
                    }
                };
                progress.advance(next - at);
                at = next;
            }
        }
        Ok(copied)
    }

    /// Copies pages, up to one that is poisoned. Returns the GPA to continue at.
    fn copy_chunk(
        &self,
        copied: &mut Copied,
        gpa: u64,
        end_of_region: u64,
        allocated: &[bool],
        buffer: &mut [u8],
    ) -> Result<u64, Failure> {
        let mut filled = 0;
        for run in allocated.chunk_by(|one, other| one == other) {
            let len = run.len() * rustix::param::page_size();
            let bytes = &mut buffer[filled..filled + len];
            if run.first() != Some(&true) {
                bytes.fill(0);
            } else if let Err(error) = (self.read)(gpa + filled as u64, bytes) {
                let missing = self.missing(error)?;
                let start = missing.gpa.max(gpa);
                self.store(copied, gpa, &buffer[..(start - gpa) as usize])?;
                let end = end_of_region.min(missing.gpa + missing.len);
                self.omit(copied, Piece { gpa: start, len: end - start })?;
                return Ok(end);
            }
            filled += len;
        }
        self.store(copied, gpa, &buffer[..filled])?;
        Ok(gpa + filled as u64)
    }

    /// The pages that a read found poisoned, or that the host cannot provide.
    fn missing(&self, error: AccessError) -> Result<Piece, Failure> {
        let log2_page = self.ram.backing().page_size().trailing_zeros() as u8;
        let span = match error {
            AccessError::Poisoned(page) => {
                Span::around(page.gpa, page.log2_len.max(PAGE.trailing_zeros() as u8))
            }
            AccessError::Host { gpa, .. } => Span::around(gpa, log2_page),
            other => return Err(Failure::Memory(io::Error::other(other))),
        };
        Ok(Piece { gpa: span.gpa, len: span.bytes() })
    }

    fn omit(&self, copied: &mut Copied, piece: Piece) -> Result<(), Failure> {
        let begins_region = self.ram.slots().any(|slot| slot.gpa == piece.gpa);
        match copied.omitted.last_mut() {
            Some(last) if last.gpa + last.len == piece.gpa && !begins_region => last.len += piece.len,
            _ => copied.omitted.push(piece),
        }
        // Each of them ends a piece of memory at most.
        match copied.omitted.len() + self.ram.slots().count() {
            pieces if pieces > self.max_pieces => Err(Failure::TooManyPieces(self.max_pieces)),
            _ => Ok(()),
        }
    }

    /// Writes bytes from guest memory, at a multiple of [`PAGE`], to their place in the file.
    fn store(&self, copied: &mut Copied, gpa: u64, bytes: &[u8]) -> Result<(), Failure> {
        let offset = offset_in_file(self.ram, self.memory_at, gpa);
        let write = |from: usize, to: usize| match &bytes[from..to] {
            [] => Ok(()),
            bytes => self
                .file
                .write_all_at(bytes, offset + from as u64)
                .map_err(|error| Failure::Call("pwrite(2)", error)),
        };
        let mut from = 0;
        for (page, at) in bytes.chunks(PAGE).zip((0..).step_by(PAGE)) {
            if page == &ZEROS[..page.len()] {
                write(from, at)?;
                from = at + page.len();
            } else if copied.vmcoreinfo.is_none() {
                copied.vmcoreinfo = FoundNote::at(gpa + at as u64, page);
            }
        }
        write(from, bytes.len())
    }
}
