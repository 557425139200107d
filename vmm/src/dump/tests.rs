//! Dumps of memory without a machine, read again by their headers.

use std::os::unix::fs::MetadataExt;

use guest_memory::{AccessError, Backing, PoisonedPage};
use ras_core::Span;
use vcpu::{Aarch64Registers, X86_64Registers};
use zerocopy::FromBytes;

use super::*;
use crate::elf::Note;

const PAGE: u64 = 4096;
const MIB: u64 = 1 << 20;
const REGIONS: [(u64, u64); 2] = [(0, 3 * MIB), (16 * MIB, 2 * MIB)];

fn ram(backing: Backing) -> GuestRam {
    let ram = GuestRam::allocate(&REGIONS, backing).expect("memory");
    for (gpa, byte) in [(PAGE, 1), (5 * PAGE, 5), (3 * MIB - PAGE, 3), (16 * MIB, 16), (17 * MIB, 17)] {
        ram.write(gpa, &[byte; PAGE as usize]).expect("memory");
    }
    ram
}

fn write(dump: &Dump, path: &Path) -> Result<Written, DumpError> {
    let progress = Progress::new(&dump.ram);
    let written = dump.write(path, &progress, &|| false)?;
    assert_eq!(progress.done(), progress.total);
    Ok(written)
}

/// A dump as a debugger reads it.
struct Core {
    bytes: Vec<u8>,
    headers: Vec<ProgramHeader64>,
}

impl Core {
    fn open(path: &Path) -> Self {
        let bytes = fs::read(path).expect("a dump");
        let (header, rest) = Header64::read_from_prefix(&bytes).expect("a header");
        assert_eq!(&header.ident[..7], b"\x7fELF\x02\x01\x01");
        assert_eq!((header.kind.get(), header.program_headers.get()), (4, 64));
        let count = header.program_header_count.get().into();
        let headers = rest.chunks(size_of::<ProgramHeader64>()).take(count);
        let headers =
            headers.map(|bytes| ProgramHeader64::read_from_bytes(bytes).expect("complete")).collect();
        Core { bytes, headers }
    }

    fn pieces(&self) -> Vec<Piece> {
        let memory = self.headers.iter().filter(|header| header.kind == LOAD);
        memory.map(|it| Piece { gpa: it.physical_address.get(), len: it.file_size.get() }).collect()
    }

    fn memory(&self, gpa: u64) -> Option<&[u8]> {
        let contains = |it: &&ProgramHeader64| {
            gpa.checked_sub(it.physical_address.get()).is_some_and(|at| at < it.file_size.get())
        };
        let header = self.headers.iter().filter(|header| header.kind == LOAD).find(contains)?;
        assert_eq!((header.virtual_address, header.memory_size), (header.physical_address, header.file_size));
        let at = (header.offset.get() + gpa - header.physical_address.get()) as usize;
        self.bytes.get(at..at + PAGE as usize)
    }

    /// Name, type and descriptor of each note.
    fn notes(&self) -> Vec<(&[u8], u32, &[u8])> {
        let header = self.headers.first().expect("the notes are first");
        assert_eq!(header.kind, NOTE);
        let start = header.offset.get() as usize;
        let mut rest = &self.bytes[start..start + header.file_size.get() as usize];
        let mut notes = Vec::new();
        while !rest.is_empty() {
            let (note, after) = Note::read_from_prefix(rest).expect("complete");
            let (name, descriptor) = (note.name_size.get() as usize, note.descriptor_size.get() as usize);
            let (padded_name, after) = after.split_at(name.next_multiple_of(4));
            let (padded, after) = after.split_at(descriptor.next_multiple_of(4));
            notes.push((&padded_name[..name], note.kind.get(), &padded[..descriptor]));
            rest = after;
        }
        notes
    }
}

#[test]
fn memory_is_at_its_addresses_and_what_is_zero_is_a_hole() {
    let directory = tempfile::tempdir().expect("a directory");
    for backing in [Backing::Anonymous, Backing::Memfd] {
        let path = directory.path().join(format!("{backing:?}"));
        let dump = Dump { ram: ram(backing), registers: Vec::new(), poisoned: Vec::new() };
        let written = write(&dump, &path).expect("written");
        let core = Core::open(&path);
        assert_eq!(core.bytes.len() as u64, written.file_len);
        assert_eq!(written.omitted, []);
        assert_eq!(core.pieces(), REGIONS.map(|(gpa, len)| Piece { gpa, len }));
        for (gpa, byte) in
            [(0, 0), (PAGE, 1), (5 * PAGE, 5), (6 * PAGE, 0), (3 * MIB - PAGE, 3), (17 * MIB, 17)]
        {
            assert!(core.memory(gpa).expect("memory").iter().all(|it| *it == byte), "{backing:?} {gpa:#x}");
        }
        assert!(core.memory(3 * MIB).is_none());
        let metadata = fs::metadata(&path).expect("a file");
        assert!(metadata.blocks() * 512 < MIB, "{backing:?}: {} blocks", metadata.blocks());
        assert_eq!(metadata.mode() & 0o777, 0o600);
    }
}

#[test]
fn poisoned_memory_is_in_no_piece() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("core");
    // Adjacent ones, the beginning of a region, its end, and all of a chunk that is copied at once.
    let poisoned =
        vec![(17 * MIB, MIB), (16 * MIB, PAGE), (5 * PAGE, PAGE), (6 * PAGE, PAGE), (3 * MIB - PAGE, PAGE)];
    let dump = Dump { ram: ram(Backing::Anonymous), registers: Vec::new(), poisoned };
    let written = write(&dump, &path).expect("written");
    let piece = |gpa, len| Piece { gpa, len };
    assert_eq!(
        written.omitted,
        [piece(5 * PAGE, 2 * PAGE), piece(3 * MIB - PAGE, PAGE), piece(16 * MIB, PAGE), piece(17 * MIB, MIB)]
    );
    let core = Core::open(&path);
    assert_eq!(
        core.pieces(),
        [piece(0, 5 * PAGE), piece(7 * PAGE, 3 * MIB - 8 * PAGE), piece(16 * MIB + PAGE, MIB - PAGE),]
    );
    assert_eq!(core.memory(PAGE).expect("memory")[0], 1);
    assert!(core.memory(5 * PAGE).is_none());
}

/// Pages of which nobody knew, with sizes as the signals of such pages have them: one, and a huge page that begins in one chunk and ends in
/// the next.
#[test]
fn memory_that_is_found_poisoned_is_omitted() {
    let found = [Span::around(5 * PAGE, 12), Span::around(16 * MIB, 21)];
    let ram =
        GuestRam::allocate(&[(0, 3 * MIB), (16 * MIB - 64 * PAGE, 4 * MIB)], Backing::Memfd).expect("memory");
    for slot in ram.slots() {
        ram.write(slot.gpa, &vec![7; slot.len as usize]).expect("memory");
    }
    let read = |gpa: u64, to: &mut [u8]| {
        let end = gpa + to.len() as u64;
        match found.iter().find(|span| span.gpa < end && gpa < span.gpa + span.bytes()) {
            Some(span) => {
                let (before, _) = to.split_at_mut(span.gpa.saturating_sub(gpa) as usize);
                ram.read(gpa, before)?;
                let gpa = gpa.max(span.gpa);
                Err(AccessError::Poisoned(PoisonedPage { gpa, log2_len: span.log2_len }))
            }
            None => ram.read(gpa, to),
        }
    };
    let file = tempfile::tempfile().expect("a file");
    let progress = Progress::new(&ram);
    let copier = Copier { ram: &ram, read: &read, file: &file, memory_at: PAGE, max_pieces: 4 };
    let copied = copier.copy(&[], &progress, &|| false).expect("copied");
    assert_eq!(copied.omitted, found.map(|span| Piece { gpa: span.gpa, len: span.bytes() }));
    assert_eq!(progress.done(), progress.total);
    let pieces = memory::pieces(&ram, &copied.omitted);
    for Piece { gpa, len } in &pieces {
        let mut bytes = vec![0; *len as usize];
        file.read_exact_at(&mut bytes, memory::offset_in_file(&ram, PAGE, *gpa)).expect("copied");
        assert!(bytes.iter().all(|byte| *byte == 7), "{gpa:#x}");
    }
    assert_eq!(pieces.len(), 4);
    let copier = Copier { max_pieces: 3, ..copier };
    assert!(matches!(copier.copy(&[], &progress, &|| false), Err(Failure::TooManyPieces(3))));
}

/// Regions may be adjacent: what is omitted in both is a piece of each.
#[test]
fn memory_that_is_omitted_in_adjacent_regions() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("core");
    let ram = GuestRam::allocate(&[(0, MIB), (MIB, MIB)], Backing::Anonymous).expect("memory");
    // The second is within the first.
    let poisoned = vec![(MIB - PAGE, 2 * PAGE), (MIB, PAGE)];
    let dump = Dump { ram, registers: Vec::new(), poisoned };
    let written = write(&dump, &path).expect("written");
    let piece = |gpa, len| Piece { gpa, len };
    assert_eq!(written.omitted, [piece(MIB - PAGE, PAGE), piece(MIB, PAGE)]);
    assert_eq!(Core::open(&path).pieces(), [piece(0, MIB - PAGE), piece(MIB + PAGE, MIB - PAGE)]);
}

#[test]
fn notes_have_registers_and_the_kernels_own() {
    let directory = tempfile::tempdir().expect("a directory");
    let text = b"OSRELEASE=6.1.0-40-amd64\nPAGESIZE=4096\n";
    let note = [
        &11_u32.to_le_bytes()[..],
        &(text.len() as u32).to_le_bytes(),
        &0_u32.to_le_bytes(),
        b"VMCOREINFO\0\0",
        text,
    ]
    .concat();
    let x86_64 = X86_64Registers {
        rip: 0xffff_ffff_8100_0000,
        rsp: 0x1122,
        r8: [8, 9, 10, 11, 12, 13, 14, 15],
        cr3: 0x1000,
        ..Default::default()
    };
    let aarch64 = Aarch64Registers { pc: 0xffff_8000_0801_0000, sp: 0x1122, ..Default::default() };
    let word = |bytes: &[u8], at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
    for (name, registers, machine) in [
        ("x86_64", CoreRegisters::X86_64(x86_64), EM_X86_64),
        ("aarch64", CoreRegisters::Aarch64(aarch64), EM_AARCH64),
    ] {
        let path = directory.path().join(name);
        let ram = ram(Backing::Anonymous);
        // Not at the beginning of a page: no note of a kernel.
        ram.write(9 * PAGE + 4, &note).expect("memory");
        ram.write(17 * MIB + 3 * PAGE, &note).expect("memory");
        let dump = Dump { ram, registers: vec![registers; 2], poisoned: Vec::new() };
        let written = write(&dump, &path).expect("written");
        assert_eq!(written.vmcoreinfo, Some(17 * MIB + 3 * PAGE));
        let core = Core::open(&path);
        assert_eq!(core.bytes[18..20], machine.to_le_bytes());
        let notes = core.notes();
        let last = *notes.last().expect("notes");
        assert_eq!(last, (&b"VMCOREINFO\0"[..], 0, &text[..]));
        let status = notes.iter().filter(|note| (note.0, note.1) == (b"CORE\0", 1)).map(|note| note.2);
        let status: Vec<_> = status.collect();
        assert_eq!(status.iter().map(|it| it[32]).collect::<Vec<_>>(), [1, 2], "pids");
        match registers {
            CoreRegisters::X86_64(_) => {
                // R15 is the first, RIP the 17th, RSP the 20th register.
                let found = [0, 16, 19].map(|index| word(status[1], 112 + 8 * index));
                assert_eq!(found, [15, x86_64.rip, x86_64.rsp]);
                let qemu = notes.iter().find(|note| note.0 == b"QEMU\0").expect("QEMU's note").2;
                assert_eq!((qemu.len(), qemu[0], qemu[4..6].to_vec()), (440, 1, vec![0xb8, 1]));
                assert_eq!(word(qemu, 440 - 8 - 16), x86_64.cr3);
            }
            _ => {
                let found = [31, 32].map(|index| word(status[1], 112 + 8 * index));
                assert_eq!(found, [aarch64.sp, aarch64.pc]);
            }
        }
    }
}

#[test]
fn nothing_is_overwritten_and_nothing_incomplete_is_left() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("core");
    fs::write(&path, "precious").expect("a file");
    let dump = |poisoned| Dump { ram: ram(Backing::Anonymous), registers: Vec::new(), poisoned };
    let error = write(&dump(Vec::new()), &path).expect_err("it exists");
    assert!(error.to_string().contains("no file is overwritten"), "{error}");
    assert_eq!(fs::read_to_string(&path).expect("the file"), "precious");
    fs::remove_file(&path).expect("the file");

    let progress = Progress::new(&dump(Vec::new()).ram);
    let error = dump(Vec::new()).write(&path, &progress, &|| progress.done() > 0).expect_err("abandoned");
    assert!(matches!(error, DumpError::Abandoned));
    assert!(!path.exists());
}
