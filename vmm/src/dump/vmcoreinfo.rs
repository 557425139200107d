//! The note VMCOREINFO of a Linux guest, in its memory: crash and drgn learn from it which kernel it is, and where it is.
//!
//! The kernel has it made for kdump, as a complete ELF note at the beginning of pages of its own, from its boot on (Linux,
//! `kernel/vmcore_info.c`, `vmcoreinfo_note`). No register points to it. QEMU learns its address from a driver of the guest
//! (`-device vmcoreinfo`, fw_cfg); here it is recognised when the memory is copied. A copy of the note, for example in a file that the guest
//! has read, looks the same: the one at the lowest address is taken.

use guest_memory::GuestRam;
use zerocopy::FromBytes;

use crate::elf::Note;

/// A note in guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FoundNote {
    /// Of its first byte.
    pub(super) gpa: u64,
    /// Bytes of its descriptor.
    descriptor_len: u32,
}

/// Its name, with the NUL.
pub(super) const NAME: &[u8] = b"VMCOREINFO\0";
/// The name is padded to a multiple of four bytes.
const PADDED_NAME_LEN: usize = NAME.len().next_multiple_of(4);
/// The beginning of its descriptor, which is text.
const START: &[u8] = b"OSRELEASE=";
/// Bytes of the descriptor at most: those of a page, which has 64 KiB on some arm64 kernels.
const MAX_DESCRIPTOR_LEN: u32 = 64 << 10;
/// Bytes of the note at most, with padding.
pub(super) const MAX_NOTE_LEN: u64 =
    (size_of::<Note>() + PADDED_NAME_LEN) as u64 + MAX_DESCRIPTOR_LEN as u64 + 4;

impl FoundNote {
    /// The note that begins with this page of the guest, if one does.
    pub(super) fn at(gpa: u64, page: &[u8]) -> Option<Self> {
        let (note, rest) = Note::read_from_prefix(page).ok()?;
        let descriptor_len = note.descriptor_size.get();
        let is_note = note.name_size.get() as usize == NAME.len()
            && note.kind.get() == 0
            && rest.starts_with(NAME)
            && rest.get(PADDED_NAME_LEN..)?.starts_with(START)
            && (START.len() as u32..=MAX_DESCRIPTOR_LEN).contains(&descriptor_len);
        is_note.then_some(FoundNote { gpa, descriptor_len })
    }
}

/// The descriptor of a note. `None` if a part of it is poisoned.
pub(super) fn read(ram: &GuestRam, note: FoundNote) -> Option<Vec<u8>> {
    let mut descriptor = vec![0; note.descriptor_len as usize];
    ram.read(note.gpa + (size_of::<Note>() + PADDED_NAME_LEN) as u64, &mut descriptor).ok()?;
    Some(descriptor)
}
