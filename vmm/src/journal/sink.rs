//! A descriptor that whole lines are written to, without waiting for its reader.
//!
//! Lines that the descriptor does not take yet wait in a bounded backlog. Those that cannot be written are missing, and a notice
//! in their place says how many they are. A line is never glued to another: what an error left of a line is removed from a
//! regular file, and elsewhere the next line starts on a new one.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Seek};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, fstat};
use rustix::io::Errno;
use rustix::net::{SendFlags, send};

/// Bytes of the backlog.
const BACKLOG_CAPACITY: usize = 4 << 20;
/// The same of a client that follows the events: there may be several.
const FOLLOWER_CAPACITY: usize = 1 << 20;
/// A pipe that poll(2) reports as writable takes that many bytes at once (PIPE_BUF, pipe(7)).
const PIPE_BUF: usize = 4096;
/// The flags of an output that is opened: no open and no write waits, and a terminal does not become the controlling one.
const OPEN_FLAGS: i32 = libc::O_NONBLOCK | libc::O_NOCTTY;

/// The descriptor and its backlog.
#[derive(Debug)]
pub(super) struct Sink {
    file: File,
    access: Access,
    notice: Notice,
    capacity: usize,
    backlog: VecDeque<Line>,
    /// Bytes of the backlog.
    len: usize,
    /// Bytes of the first line that are written.
    written: usize,
    /// The output ends within a line.
    is_torn: bool,
    /// The last write failed.
    is_failing: bool,
    /// Lines that are missing since the last notice.
    missing: u64,
}

/// A notice of missing lines: their number, at a time.
type Notice = fn(Duration, u64) -> String;

/// How a write is kept from waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    /// The file is this process's own, opened with O_NONBLOCK and O_APPEND.
    Own,
    /// The same, but what is in it is not to be removed.
    Reopened,
    /// A regular file. Its writes end.
    Regular,
    /// A socket, whose writes have a flag for it.
    Socket,
    /// A descriptor that is shared with other processes, so that O_NONBLOCK cannot be set.
    Polled,
}

/// A line, with its end.
#[derive(Debug)]
struct Line {
    text: String,
    /// The lines that this one, a notice, reports as missing.
    missing: Option<u64>,
}

/// How far the backlog was written.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Progress {
    /// Lines that were written, without notices.
    pub(super) written: u64,
    /// Lines that are missing, without notices.
    pub(super) lost: u64,
    /// Why a write failed, if the one before it did not.
    pub(super) error: Option<Errno>,
}

impl Sink {
    /// Creates a file, or truncates it. A FIFO that no process reads is kept open for a reader that comes later.
    pub(super) fn create(path: &Path, notice: Notice) -> io::Result<Self> {
        let open =
            File::options().append(true).create(true).custom_flags(OPEN_FLAGS | libc::O_TRUNC).open(path);
        let file = match open {
            // ENXIO: a FIFO without a reader.
            Err(error) if error.raw_os_error() == Some(libc::ENXIO) => {
                File::options().read(true).append(true).custom_flags(OPEN_FLAGS).open(path)?
            }
            open => open?,
        };
        Ok(Sink::new(file, Access::Own, notice))
    }

    /// Standard error. Other processes may have the same file, so its flags are not changed: a pipe or a terminal is opened
    /// anew, if that is permitted.
    pub(super) fn stderr(notice: Notice) -> io::Result<Self> {
        let stderr = rustix::stdio::stderr();
        let reopen = || File::options().append(true).custom_flags(OPEN_FLAGS).open("/proc/self/fd/2").ok();
        let (reopened, otherwise) = match FileType::from_raw_mode(fstat(stderr)?.st_mode) {
            FileType::RegularFile => (None, Access::Regular),
            FileType::Socket => (None, Access::Socket),
            _ => (reopen(), Access::Polled),
        };
        Ok(match reopened {
            Some(file) => Sink::new(file, Access::Reopened, notice),
            None => Sink::new(stderr.try_clone_to_owned()?.into(), otherwise, notice),
        })
    }

    /// The connection of a client that follows the events.
    pub(super) fn follower(client: UnixStream, notice: Notice) -> Self {
        let sink = Sink::new(OwnedFd::from(client).into(), Access::Socket, notice);
        Sink { capacity: FOLLOWER_CAPACITY, ..sink }
    }

    fn new(file: File, access: Access, notice: Notice) -> Self {
        Sink {
            file,
            access,
            notice,
            capacity: BACKLOG_CAPACITY,
            backlog: VecDeque::new(),
            len: 0,
            written: 0,
            is_torn: false,
            is_failing: false,
            missing: 0,
        }
    }

    /// Another descriptor of the same file.
    pub(super) fn duplicate(&self) -> io::Result<OwnedFd> {
        self.file.as_fd().try_clone_to_owned()
    }

    /// Whether nothing waits to be written.
    pub(super) fn is_empty(&self) -> bool {
        self.backlog.is_empty()
    }

    /// Counts lines as missing here.
    pub(super) fn miss(&mut self, lines: u64) {
        self.missing += lines;
    }

    /// Puts a line at the end of the backlog, after a notice of those that are missing before it. Returns false if there is no
    /// space: then it is missing too.
    pub(super) fn append(&mut self, line: String, now: Duration) -> bool {
        let notice = (self.missing > 0).then(|| (self.notice)(now, self.missing));
        if self.len + line.len() + notice.as_ref().map_or(0, String::len) > self.capacity {
            self.missing += 1;
            return false;
        }
        if let Some(text) = notice {
            let missing = std::mem::take(&mut self.missing);
            self.push(Line { text, missing: Some(missing) });
        }
        self.push(Line { text: line, missing: None });
        true
    }

    fn push(&mut self, line: Line) {
        self.len += line.text.len();
        self.backlog.push_back(line);
    }

    /// Writes one line, as far as the descriptor takes it without waiting. `None` if it takes nothing now.
    pub(super) fn write_line(&mut self) -> Option<Progress> {
        let mut progress = Progress { written: 0, lost: 0, error: None };
        while let Some(line) = self.backlog.front() {
            let rest = if self.is_torn {
                b"\n"
            } else {
                line.text.as_bytes().get(self.written..).unwrap_or_default()
            };
            match self.write(rest) {
                Ok(_) if self.is_torn => self.is_torn = false,
                Ok(count) if count < rest.len() => self.written += count,
                Ok(_) => {
                    progress.written += u64::from(line.missing.is_none());
                    self.is_failing = false;
                    self.pop();
                    return Some(progress);
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return None,
                Err(error) => {
                    progress.error = (!std::mem::replace(&mut self.is_failing, true)).then_some(error);
                    progress.lost = self.discard();
                }
            }
        }
        Some(progress)
    }

    fn pop(&mut self) -> Option<Line> {
        let line = self.backlog.pop_front()?;
        self.len -= line.text.len();
        self.written = 0;
        Some(line)
    }

    /// Removes what an error left of a line, and discards the backlog. Returns the number of its lines.
    fn discard(&mut self) -> u64 {
        self.is_torn |= self.written > 0 && !self.remove_end(self.written as u64);
        let mut lost = 0;
        while let Some(line) = self.pop() {
            lost += u64::from(line.missing.is_none());
            self.missing += line.missing.unwrap_or(1);
        }
        lost
    }

    /// Removes the last bytes that were written. Returns false if that is not possible.
    fn remove_end(&mut self, bytes: u64) -> bool {
        let Ok(metadata) = self.file.metadata() else { return false };
        // After a write with O_APPEND the position is its end. Another process may have written since.
        self.access == Access::Own
            && metadata.is_file()
            && self.file.stream_position().is_ok_and(|position| position == metadata.len())
            && metadata.len().checked_sub(bytes).is_some_and(|len| self.file.set_len(len).is_ok())
    }

    fn write(&self, bytes: &[u8]) -> Result<usize, Errno> {
        let count = match self.access {
            Access::Own | Access::Reopened | Access::Regular => rustix::io::write(&self.file, bytes)?,
            Access::Socket => send(&self.file, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?,
            Access::Polled if !is_writable(self.file.as_fd()) => return Err(Errno::AGAIN),
            Access::Polled => rustix::io::write(&self.file, bytes.get(..PIPE_BUF).unwrap_or(bytes))?,
        };
        if count == 0 && !bytes.is_empty() { Err(Errno::IO) } else { Ok(count) }
    }
}

impl AsFd for Sink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Whether a write does not wait, or fails. Async-signal-safe.
pub(super) fn is_writable(descriptor: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(descriptor, PollFlags::OUT)];
    matches!(poll(&mut fds, Some(&Timespec::default())), Ok(1..))
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::path::PathBuf;

    use rustix::fs::{CWD, Mode, mknodat};
    use tempfile::TempDir;

    use super::*;

    fn notice(_: Duration, lines: u64) -> String {
        format!("{lines} missing\n")
    }

    fn fifo() -> (TempDir, PathBuf) {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("fifo");
        mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a FIFO");
        (directory, path)
    }

    fn reader(path: &Path) -> File {
        File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path).expect("a FIFO")
    }

    /// What can be read without waiting.
    fn read(mut from: &File) -> String {
        let mut bytes = Vec::new();
        // The error is EAGAIN.
        let _ = from.read_to_end(&mut bytes);
        String::from_utf8(bytes).expect("ASCII")
    }

    /// Appends a line and writes what can be written.
    fn line(sink: &mut Sink, text: &str) -> (bool, Vec<Progress>) {
        let appended = sink.append(format!("{text}\n"), Duration::ZERO);
        let mut all = Vec::new();
        while !sink.is_empty()
            && let Some(progress) = sink.write_line()
        {
            all.push(progress);
        }
        (appended, all)
    }

    #[test]
    fn a_reader_that_comes_late_gets_whole_lines_and_the_number_of_those_that_are_missing() {
        let (_directory, path) = fifo();
        let mut sink = Sink::create(&path, notice).expect("no reader is needed");
        sink.capacity = 1000;
        let appended = (0..10_000).filter(|n| line(&mut sink, &format!("line {n}")).0).count();
        assert!(appended < 10_000, "a pipe holds 64 KiB");
        let reader = reader(&path);
        let mut text = read(&reader);
        assert!(line(&mut sink, "the end").0 || line(&mut sink, "the end").0, "there is space again");
        text += &read(&reader);
        let mut expected: String = (0..appended).map(|n| format!("line {n}\n")).collect();
        let missing = text.lines().filter_map(|line| line.strip_suffix(" missing")?.parse::<usize>().ok());
        let missing: usize = missing.sum();
        assert!((10_000 - appended..=10_001 - appended).contains(&missing), "{missing}");
        expected += &format!("{missing} missing\nthe end\n");
        assert_eq!(text, expected);
    }

    #[test]
    fn a_full_disk_is_an_error_once_and_every_line_is_counted() {
        let mut sink = Sink::create(Path::new("/dev/full"), notice).expect("it opens");
        let failed = |error| vec![Progress { written: 0, lost: 1, error }];
        assert_eq!(line(&mut sink, "a"), (true, failed(Some(Errno::NOSPC))));
        assert_eq!(line(&mut sink, "b"), (true, failed(None)));
        assert_eq!(line(&mut sink, "c"), (true, failed(None)));
        assert_eq!(sink.missing, 3);
    }

    #[test]
    fn after_a_reader_that_left_within_a_line_the_next_line_is_whole() {
        let (_directory, path) = fifo();
        let first = reader(&path);
        let mut sink = Sink::create(&path, notice).expect("a FIFO with a reader");
        assert_eq!(line(&mut sink, &"x".repeat(100_000)), (true, vec![]));
        assert!(sink.written > 0, "a part of the line is in the pipe");
        drop(first);
        let lost = Progress { written: 0, lost: 1, error: Some(Errno::PIPE) };
        assert_eq!(sink.write_line(), Some(lost));
        let second = reader(&path);
        let rest = read(&second);
        assert!(rest.bytes().all(|byte| byte == b'x'));
        assert!(line(&mut sink, "whole").0);
        assert_eq!(read(&second), "\n1 missing\nwhole\n");
    }

    /// Standard error may be a pipe that cannot be opened anew, or a socket.
    #[test]
    fn a_descriptor_that_waits_is_not_waited_for() {
        let (pipe_reader, pipe_writer) = io::pipe().expect("a pipe");
        let (socket_reader, socket_writer) = UnixStream::pair().expect("sockets");
        for (writer, access, mut reader) in [
            (OwnedFd::from(pipe_writer), Access::Polled, File::from(OwnedFd::from(pipe_reader))),
            (socket_writer.into(), Access::Socket, File::from(OwnedFd::from(socket_reader))),
        ] {
            let mut sink = Sink::new(writer.into(), access, notice);
            let mut expected = String::new();
            while sink.is_empty() {
                let text = format!("line {} {}", expected.len(), "x".repeat(100));
                assert!(line(&mut sink, &text).0);
                expected += &format!("{text}\n");
            }
            let (mut text, mut chunk) = (Vec::new(), [0; 4096]);
            while !sink.is_empty() {
                let count = reader.read(&mut chunk).expect("bytes");
                text.extend(&chunk[..count]);
                sink.write_line();
            }
            drop(sink);
            reader.read_to_end(&mut text).expect("the rest");
            assert!(text == expected.as_bytes(), "{access:?}: {} of {} bytes", text.len(), expected.len());
        }
    }

    #[test]
    fn half_a_line_is_removed_from_a_file() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("file");
        let mut sink = Sink::create(&path, notice).expect("a new file");
        assert!(line(&mut sink, "before").0);
        assert!(sink.append("a line that does not fit\n".into(), Duration::ZERO));
        sink.written = rustix::io::write(&sink.file, b"a line th").expect("there is space");
        assert_eq!(sink.discard(), 1);
        assert!(line(&mut sink, "after").0);
        assert_eq!(std::fs::read_to_string(&path).expect("a file"), "before\n1 missing\nafter\n");
    }

    #[test]
    fn a_file_that_is_truncated_meanwhile_has_no_hole() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("file");
        let mut sink = Sink::create(&path, notice).expect("a new file");
        assert!(line(&mut sink, "before").0);
        File::options().write(true).truncate(true).open(&path).expect("the file");
        assert!(line(&mut sink, "after").0);
        assert_eq!(std::fs::read_to_string(&path).expect("a file"), "after\n");
    }
}
