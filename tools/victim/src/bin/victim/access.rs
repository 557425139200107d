//! Accesses to pages that a signal handler can abandon: each access is one instruction of a function that does not use the
//! stack, so that the handler can continue at [`exit_address`], which returns to the caller.

#![expect(unsafe_code, reason = "accesses that fail are what this program is for")]

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::memory::Memory;
use crate::sigbus::{self, Activity};

/// The outcome of an access.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Fine,
    /// Abandoned after a SIGBUS.
    Abandoned,
    Wrong {
        holds: u64,
        instead_of: u64,
    },
}

#[repr(C)]
struct Loaded {
    abandoned: u64,
    value: u64,
}

#[cfg(target_arch = "x86_64")]
core::arch::global_asm!(
    ".global victim_load, victim_store, victim_abandon",
    "victim_load:",
    "mov rdx, [rdi]",
    "xor eax, eax",
    "ret",
    "victim_store:",
    "mov [rdi], rsi",
    "xor eax, eax",
    "ret",
    "victim_abandon:",
    "mov eax, 1",
    "ret",
);

#[cfg(target_arch = "aarch64")]
core::arch::global_asm!(
    ".global victim_load, victim_store, victim_abandon",
    "victim_load:",
    "ldr x1, [x0]",
    "mov x0, #0",
    "ret",
    "victim_store:",
    "str x1, [x0]",
    "mov x0, #0",
    "ret",
    "victim_abandon:",
    "mov x0, #1",
    "ret",
);

unsafe extern "C" {
    fn victim_load(from: *const u64) -> Loaded;
    fn victim_store(to: *mut u64, value: u64) -> u64;
    fn victim_abandon() -> u64;
}

/// Address where an abandoned access continues.
pub(crate) fn exit_address() -> u64 {
    victim_abandon as *const () as u64
}

/// Reads a page's word.
pub(crate) fn read(memory: &Memory, page: usize) -> Outcome {
    // SAFETY: the word is in `memory`, and aligned.
    let Loaded { abandoned, value } =
        sigbus::during(Activity::Access, || unsafe { victim_load(memory.probe(page)) });
    let instead_of = Memory::pattern(page);
    match abandoned {
        0 if value == instead_of => Outcome::Fine,
        0 => Outcome::Wrong { holds: value, instead_of },
        _ => Outcome::Abandoned,
    }
}

/// Reads a word of a page, by its index; `None` if the page is poisoned.
pub(crate) fn load(memory: &Memory, page: usize, word: usize) -> Option<u64> {
    // SAFETY: the word is the memory's own, and aligned.
    unsafe { load_at(memory.word(page, word)) }
}

/// Reads a word; `None` if its page is poisoned.
///
/// # Safety
/// The word is in a readable mapping, and aligned.
pub(crate) unsafe fn load_at(from: *const u64) -> Option<u64> {
    // SAFETY: the caller's promise.
    let Loaded { abandoned, value } = sigbus::during(Activity::Access, || unsafe { victim_load(from) });
    (abandoned == 0).then_some(value)
}

/// Writes a word of a page, by its index; `false` if the page is poisoned.
pub(crate) fn store(memory: &Memory, page: usize, word: usize, value: u64) -> bool {
    let to = memory.word(page, word);
    // SAFETY: as above, and there is no reference to it.
    sigbus::during(Activity::Access, || unsafe { victim_store(to, value) }) == 0
}

/// Writes a page's word with its current contents.
pub(crate) fn write(memory: &Memory, page: usize) -> Outcome {
    let value = Memory::pattern(page);
    // SAFETY: as above, and there are no references to it.
    outcome(sigbus::during(Activity::Access, || unsafe { victim_store(memory.probe(page), value) }))
}

/// Calls a page's code.
pub(crate) fn execute(memory: &Memory, page: usize) -> Outcome {
    // SAFETY: `Memory` puts the code of such a function at the start of each page.
    let code: extern "C" fn() -> u64 = unsafe { std::mem::transmute(memory.page(page)) };
    outcome(sigbus::during(Activity::Access, || code()))
}

/// Has the kernel read a page. Returns the number of bytes, or its error.
pub(crate) fn write_to_pipe(memory: &Memory, page: usize) -> io::Result<usize> {
    let (mut reader, writer) = io::pipe()?;
    let len = rustix::param::page_size();
    // SAFETY: the page has at least this length; the kernel only reads it.
    let count = sigbus::during(Activity::SystemCall, || unsafe {
        libc::write(writer.as_raw_fd(), memory.page(page).cast(), len)
    });
    let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
    drop(writer);
    reader.read_to_end(&mut Vec::new())?;
    Ok(count)
}

/// Reads a page from a file or disk with O_DIRECT. Returns the number of bytes, or the error.
pub(crate) fn read_from(path: &Path, memory: &Memory, page: usize) -> io::Result<usize> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(path)?;
    let (descriptor, len) = (file.as_raw_fd(), rustix::param::page_size());
    // SAFETY: the page has at least this length, and there are no references to it.
    let count = sigbus::during(Activity::SystemCall, || unsafe {
        libc::read(descriptor, memory.page(page).cast(), len)
    });
    usize::try_from(count).map_err(|_| io::Error::last_os_error())
}

/// Writes a page to a file or disk with O_DIRECT. Returns the number of bytes, or the error.
pub(crate) fn write_to(path: &Path, memory: &Memory, page: usize) -> io::Result<usize> {
    let file = OpenOptions::new().write(true).custom_flags(libc::O_DIRECT).open(path)?;
    let (descriptor, len) = (file.as_raw_fd(), rustix::param::page_size());
    // SAFETY: the page has at least this length; the kernel only reads it.
    let count = sigbus::during(Activity::SystemCall, || unsafe {
        libc::write(descriptor, memory.page(page).cast(), len)
    });
    usize::try_from(count).map_err(|_| io::Error::last_os_error())
}

fn outcome(abandoned: u64) -> Outcome {
    if abandoned == 0 { Outcome::Fine } else { Outcome::Abandoned }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Backing;

    /// Truncating a mapped file makes its pages inaccessible and raises a real SIGBUS. A single test, since the handler's state is
    /// for one thread.
    #[test]
    fn every_kind_of_access_works_until_the_file_is_truncated() {
        let path = std::env::temp_dir().join(format!("victim-test-{}", std::process::id()));
        let memory = Memory::new(&Backing::File(path.clone()), 2).unwrap();
        for page in 0..2 {
            assert_eq!(read(&memory, page), Outcome::Fine);
            assert_eq!(write(&memory, page), Outcome::Fine);
            assert_eq!(execute(&memory, page), Outcome::Fine);
            assert_eq!(write_to_pipe(&memory, page).unwrap(), rustix::param::page_size());
            assert_eq!(read(&memory, page), Outcome::Fine);
        }
        sigbus::watch("test", &memory, Some(exit_address())).unwrap();
        std::fs::File::options().write(true).open(&path).unwrap().set_len(0).unwrap();
        assert_eq!(read(&memory, 0), Outcome::Abandoned);
        assert_eq!(write(&memory, 0), Outcome::Abandoned);
        assert_eq!(execute(&memory, 0), Outcome::Abandoned);
        assert_eq!(write_to_pipe(&memory, 0).unwrap_err().raw_os_error(), Some(libc::EFAULT));
        std::fs::remove_file(path).unwrap();
    }
}
