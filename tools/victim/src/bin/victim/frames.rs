//! `victim frames`: guest physical addresses of pages by what they are used for, chosen at random.

#![expect(unsafe_code, reason = "maps memory")]

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::ptr;

use pagemap::{Pagemap, Use, number, page_size};

use crate::memory::check;

pub(crate) const HELP: &str = "\
Prints the physical addresses of random pages, one per line. For root.

Usage: victim frames [OPTIONS] USE

  free               unused memory, in the largest free blocks that hold enough pages: the last that the kernel allocates. It was used
                     a moment before: what a guest has never written has no page on the host
  file PATH          the page cache of a file or disk, which is read into it
  process PID PATH   what a process has written to its private mapping of a file

Options:
  --count N   Number of pages (1)
  --help      Print this help
";

/// Frames of a block of free memory, the preferred size first: a poisoned page breaks its block for good.
const BLOCKS: [usize; 5] = [1024, 512, 256, 128, 64];
/// Bytes that are freed.
const FREED: usize = 64 << 20;

/// The command line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Options {
    count: usize,
    pages_of: PagesOf,
}

#[derive(Debug, PartialEq, Eq)]
enum PagesOf {
    Free,
    File(String),
    Process { pid: String, mapping: String },
}

impl Options {
    /// Parses arguments. `None` if help is requested.
    pub(crate) fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Option<Self>, String> {
        let (mut count, mut words) = (1, Vec::new());
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--help" | "-h" => return Ok(None),
                "--count" => {
                    let value = arguments.next().ok_or("--count: missing value")?;
                    count = number(&value)?.try_into().map_err(|_| "--count: too many")?;
                }
                option if option.starts_with("--") => return Err(format!("unknown option {option}")),
                _ => words.push(argument),
            }
        }
        let pages_of = match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
            ["free"] => PagesOf::Free,
            ["file", path] => PagesOf::File((*path).to_owned()),
            ["process", pid, path] => {
                PagesOf::Process { pid: (*pid).to_owned(), mapping: (*path).to_owned() }
            }
            other => return Err(format!("unknown use of pages: {other:?}")),
        };
        Ok(Some(Self { count, pages_of }))
    }

    pub(crate) fn run(&self) -> Result<(), String> {
        let frames = match &self.pages_of {
            PagesOf::Free => freed(self.count).map_err(|error| format!("freeing memory: {error}")),
            PagesOf::File(path) => cached(path).map_err(|error| format!("{path}: {error}")),
            PagesOf::Process { pid, mapping } => {
                written(pid, mapping).map_err(|error| format!("process {pid}: {error}"))
            }
        }?;
        let found = frames.len();
        let chosen = choose(frames, self.count).map_err(|error| format!("/dev/urandom: {error}"))?;
        if chosen.len() < self.count {
            return Err(format!("{found} of {} pages found", self.count));
        }
        for frame in chosen {
            println!("{:#x}", frame * page_size());
        }
        Ok(())
    }
}

/// Takes `count` random elements.
fn choose(mut frames: Vec<u64>, count: usize) -> io::Result<Vec<u64>> {
    let mut random = File::open("/dev/urandom")?;
    let mut chosen = Vec::new();
    while chosen.len() < count && !frames.is_empty() {
        let mut word = [0; 8];
        random.read_exact(&mut word)?;
        let at = u64::from_ne_bytes(word) % frames.len() as u64;
        chosen.push(frames.swap_remove(at as usize));
    }
    Ok(chosen)
}

/// At least `count` frames that this process has used and that are free now, or fewer if there are not so many.
pub(crate) fn freed(count: usize) -> io::Result<Vec<u64>> {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a new mapping, at an address of the kernel's choice.
    let start = unsafe { libc::mmap(ptr::null_mut(), FREED, protection, flags, -1, 0) };
    if start == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the mapping has this length; there are no references to it.
    unsafe { start.cast::<u8>().write_bytes(0xff, FREED) };
    let pages = Pagemap::of("self")?;
    let mut used = BTreeSet::new();
    for offset in (0..FREED as u64).step_by(page_size() as usize) {
        used.extend(pages.frame(start as u64 + offset)?);
    }
    // SAFETY: the mapping is not used any more.
    check(unsafe { libc::munmap(start, FREED) })?;
    let mut found = Vec::new();
    for block in BLOCKS {
        found = pagemap::free_blocks(block)?;
        found.retain(|frame| used.contains(frame));
        if found.len() >= count {
            break;
        }
    }
    Ok(found)
}

/// The frames of a file in the page cache.
fn cached(path: &str) -> io::Result<Vec<u64>> {
    let mut file = File::open(path)?;
    // A disk's metadata has no length.
    let len = file.seek(SeekFrom::End(0))? as usize;
    // SAFETY: a new mapping, at an address of the kernel's choice; it is never unmapped.
    let start =
        unsafe { libc::mmap(ptr::null_mut(), len, libc::PROT_READ, libc::MAP_SHARED, file.as_raw_fd(), 0) };
    if start == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    let pages = Pagemap::of("self")?;
    let mut frames = Vec::new();
    for offset in (0..len).step_by(page_size() as usize) {
        let byte = start.cast::<u8>().wrapping_add(offset);
        // SAFETY: the byte is within the mapping; reading it has the kernel map its page.
        unsafe { byte.read_volatile() };
        frames.extend(pages.frame(byte as u64)?);
    }
    Ok(frames)
}

/// The frames that a process has in its private mapping of a file in place of the file's own.
fn written(pid: &str, mapping: &str) -> io::Result<Vec<u64>> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let pages = Pagemap::of(pid)?;
    let mut frames = Vec::new();
    for (start, end) in maps.lines().filter_map(|line| private_range(line, mapping)) {
        for address in (start..end).step_by(page_size() as usize) {
            if let Some(frame) = pages.frame(address)?
                && pagemap::frame_use(frame)? == Use::Anonymous
            {
                frames.push(frame);
            }
        }
    }
    Ok(frames)
}

/// `7f5c1c000000-7f5c1c011000 rw-p 00000000 00:10 5    /tmp/buffers`
fn private_range(line: &str, mapping: &str) -> Option<(u64, u64)> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [range, permissions, _, _, _, path] = words.as_slice() else { return None };
    let (start, end) = range.split_once('-')?;
    let address = |text| u64::from_str_radix(text, 16).ok();
    (permissions.ends_with('p') && *path == mapping).then_some((address(start)?, address(end)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_read() {
        let parse = |line: &str| Options::parse(line.split_whitespace().map(str::to_owned));
        assert_eq!(parse("free"), Ok(Some(Options { count: 1, pages_of: PagesOf::Free })));
        let pages_of = PagesOf::Process { pid: "7".into(), mapping: "/tmp/x".into() };
        assert_eq!(parse("--count 3 process 7 /tmp/x"), Ok(Some(Options { count: 3, pages_of })));
        assert_eq!(parse("--help"), Ok(None));
        for wrong in ["", "file", "free 1", "--count", "--what free"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn private_mappings_of_a_file_are_found() {
        let line = "7f5c1c000000-7f5c1c011000 rw-p 00000000 00:10 5    /tmp/buffers";
        assert_eq!(private_range(line, "/tmp/buffers"), Some((0x7f5c_1c00_0000, 0x7f5c_1c01_1000)));
        assert_eq!(private_range(line, "/tmp/other"), None);
        assert_eq!(private_range(&line.replace("rw-p", "rw-s"), "/tmp/buffers"), None);
        assert_eq!(private_range("7f5c1c000000-7f5c1c011000 rw-p 00000000 00:00 0", ""), None);
    }

    #[test]
    fn chosen_frames_are_distinct() {
        let mut chosen = choose((0..8).collect(), 8).unwrap();
        chosen.sort_unstable();
        assert_eq!(chosen, (0..8).collect::<Vec<_>>());
        assert_eq!(choose(vec![5], 2).unwrap(), [5]);
    }
}
