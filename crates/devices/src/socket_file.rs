//! The file of a socket that the VMM listens at: made by one process at a time, accessible by its owner only, and removed by the
//! process that made it.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, FlockOperation, Mode, OFlags, chmod, fchmod, flock, lstat, openat, unlink};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, connect, listen, socket_with,
};

use crate::kind::Place;

/// Why a socket cannot be created.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListenError {
    /// Another kind of file.
    #[error("a file is there that is not a socket: remove it, or choose another path")]
    NotASocket,
    /// A socket at which a process listens.
    #[error("another process listens there: stop it, or choose another path")]
    InUse,
    /// A datagram or seqpacket socket.
    #[error("another process uses it as a socket of another type than a stream: choose another path")]
    OtherType,
    /// The directory is locked by a process that does not unlock it.
    #[error(
        "another process has had a lock of its directory (flock(2)) for {0:?}: end it, or choose another path"
    )]
    Locked(Duration),
    /// The path is too long for the address of a socket.
    #[error("the path is longer than the address of a socket, 107 bytes")]
    TooLong,
    /// A system call failed.
    #[error("{call}: {source}")]
    Call {
        /// The system call.
        call: &'static str,
        /// Its errno.
        source: io::Error,
    },
}

fn failed(call: &'static str) -> impl FnOnce(Errno) -> ListenError {
    move |errno| ListenError::Call { call, source: errno.into() }
}

/// Connections that wait until they are accepted.
const BACKLOG: i32 = 128;
/// How long another process may take to create its socket in the same directory.
const LOCK_TIMEOUT: Duration = Duration::from_secs(5);
const LOCK_INTERVAL: Duration = Duration::from_millis(5);
/// The socket's mode: read and write for its owner.
const MODE: u32 = 0o600;

/// The file of a socket that this process listens at. It is removed when this is dropped, unless another file has replaced it.
#[derive(Debug)]
struct SocketFile {
    path: CString,
    /// Device and inode.
    identity: (u64, u64),
    is_removed: AtomicBool,
}

/// The most sockets that a device listens at.
pub const MAX_OF_A_DEVICE: usize = 15;
/// Sockets of a process whose files are removed if a signal ends it: those of the devices, and one more.
const MAX_FILES: usize = Place::MAX * MAX_OF_A_DEVICE + 1;

/// The files to remove if a signal ends the process. They are never taken out: a removed file is not removed again.
static OF_THIS_PROCESS: [OnceLock<Arc<SocketFile>>; MAX_FILES] = [const { OnceLock::new() }; MAX_FILES];

/// Removes the files of this process's sockets in the handler of a signal that ends the process. Async-signal-safe.
pub fn remove_all_in_signal_handler() {
    OF_THIS_PROCESS.iter().filter_map(OnceLock::get).for_each(|file| file.remove());
}

/// A socket that this process listens at. Its file is removed when this is dropped, or if a signal ends the process.
#[derive(Debug)]
pub struct Listener {
    file: Arc<SocketFile>,
    socket: OwnedFd,
}

impl Listener {
    /// Listens at a path. A socket there at which no process listens is replaced.
    ///
    /// # Errors
    /// Returns an error if the path is in use, or a system call fails. No file is left then.
    pub fn at(path: &Path) -> Result<Self, ListenError> {
        let (socket, file) = listen_at(path)?;
        SocketFile::remove_at_fatal_signal(&file);
        Ok(Listener { file, socket })
    }

    /// Accepts a client, whose connection does not block. `None` if there is none.
    ///
    /// # Errors
    /// Returns the error of accept(2), for example because the process has too many open files.
    pub fn accept(&self) -> Result<Option<OwnedFd>, Errno> {
        match accept_with(&self.socket, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
            Ok(client) => Ok(Some(client)),
            Err(Errno::AGAIN) => Ok(None),
            // The client is gone.
            Err(Errno::CONNABORTED | Errno::INTR) => Ok(None),
            Err(errno) => Err(errno),
        }
    }
}

impl Drop for Listener {
    /// The handlers of signals keep a reference to the file. It is removed before the socket is closed: until then no other process takes
    /// it for stale.
    fn drop(&mut self) {
        self.file.remove();
    }
}

impl AsRawFd for Listener {
    /// Readable if a client waits.
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

fn listen_at(path: &Path) -> Result<(OwnedFd, Arc<SocketFile>), ListenError> {
    let address = SocketAddrUnix::new(path).map_err(|_| ListenError::TooLong)?;
    let name = CString::new(path.as_os_str().as_bytes()).map_err(|_| failed("bind(2)")(Errno::INVAL))?;
    // Of two machines that start with the same path, the second one finds the socket of the first one. Unlocked when it is closed.
    let _lock = lock_directory(path)?;
    remove_stale(&name, &address)?;
    let socket = new_socket()?;
    // bind(2) creates the file with the mode of the socket, less the umask: at no time has anyone else access.
    fchmod(&socket, Mode::from_raw_mode(MODE)).map_err(failed("fchmod(2)"))?;
    bind(&socket, &address).map_err(|errno| match errno {
        Errno::ADDRINUSE => ListenError::InUse,
        errno => failed("bind(2)")(errno),
    })?;
    let file = Arc::new(SocketFile::of(name)?);
    // A umask may have taken the owner's rights too.
    chmod(&*file.path, Mode::from_raw_mode(MODE)).map_err(failed("chmod(2)"))?;
    listen(&socket, BACKLOG).map_err(failed("listen(2)"))?;
    Ok((socket, file))
}

impl SocketFile {
    fn of(path: CString) -> Result<Self, ListenError> {
        let identity = identity(&path).map_err(failed("lstat(2)"))?;
        Ok(SocketFile { path, identity, is_removed: AtomicBool::new(false) })
    }

    /// Also removes the file if a signal ends the process.
    fn remove_at_fatal_signal(file: &Arc<SocketFile>) {
        // None is free if the process has had more sockets than a machine has, which only tests have.
        let _ = OF_THIS_PROCESS.iter().find(|slot| slot.set(Arc::clone(file)).is_ok());
    }

    /// Removes the file, once, and only if it is still the one that this process made. Async-signal-safe. Nothing else can replace the
    /// file meanwhile that respects a socket at which a process listens.
    fn remove(&self) {
        if !self.is_removed.load(Ordering::SeqCst) && identity(&self.path) == Ok(self.identity) {
            // An error means that it has been removed.
            let _ = unlink(&*self.path);
        }
        // Last: the handler of a signal that interrupts this removes the file itself.
        self.is_removed.store(true, Ordering::SeqCst);
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        self.remove();
    }
}

fn identity(path: &CStr) -> Result<(u64, u64), Errno> {
    let file = lstat(path)?;
    Ok((file.st_dev, file.st_ino))
}

/// Removes a socket at which no process listens.
fn remove_stale(path: &CStr, address: &SocketAddrUnix) -> Result<(), ListenError> {
    match lstat(path) {
        Err(Errno::NOENT) => return Ok(()),
        Err(errno) => return Err(failed("lstat(2)")(errno)),
        Ok(file) if FileType::from_raw_mode(file.st_mode) != FileType::Socket => {
            return Err(ListenError::NotASocket);
        }
        Ok(_) => {}
    }
    match connect(&new_socket()?, address) {
        // EAGAIN: the process that listens has accepted no connection for a while.
        Ok(()) | Err(Errno::AGAIN) => Err(ListenError::InUse),
        Err(Errno::PROTOTYPE) => Err(ListenError::OtherType),
        Err(Errno::CONNREFUSED) => {
            unlink(path).map_err(failed("unlink(2) of a socket at which no process listens"))
        }
        Err(errno) => Err(failed("connect(2) to the socket that is there")(errno)),
    }
}

fn new_socket() -> Result<OwnedFd, ListenError> {
    stream_socket().map_err(failed("socket(2)"))
}

/// A stream socket whose connect(2) and accept(2) do not wait.
pub(crate) fn stream_socket() -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
}

/// Locks the directory of a path against other starts. flock(2) of a directory leaves no file behind.
fn lock_directory(path: &Path) -> Result<OwnedFd, ListenError> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory =
        openat(CWD, directory, flags, Mode::empty()).map_err(failed("open(2) of the directory"))?;
    let deadline = Instant::now() + LOCK_TIMEOUT;
    loop {
        match flock(&directory, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(directory),
            Err(Errno::WOULDBLOCK) if Instant::now() < deadline => std::thread::sleep(LOCK_INTERVAL),
            Err(Errno::WOULDBLOCK) => return Err(ListenError::Locked(LOCK_TIMEOUT)),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(failed("flock(2) of the directory")(errno)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
    use std::path::PathBuf;
    use std::sync::Barrier;

    use tempfile::TempDir;

    use super::*;

    fn scratch() -> (TempDir, PathBuf) {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("control.sock");
        (directory, path)
    }

    #[test]
    fn a_socket_is_for_its_owner_and_is_removed_by_its_owner_only() {
        let (_directory, path) = scratch();
        let (socket, file) = listen_at(&path).expect("listens");
        assert_eq!(fs::symlink_metadata(&path).expect("a socket").mode() & 0o777, 0o600);
        UnixStream::connect(&path).expect("listens");
        // Somebody has replaced it.
        fs::remove_file(&path).expect("removed");
        let _other = UnixListener::bind(&path).expect("listens");
        drop((socket, file));
        UnixStream::connect(&path).expect("the other's socket is left");
    }

    #[test]
    fn only_a_stale_stream_socket_is_replaced() {
        let (_directory, path) = scratch();
        fs::write(&path, "data").expect("writes");
        assert!(matches!(listen_at(&path), Err(ListenError::NotASocket)));
        assert_eq!(fs::read_to_string(&path).expect("still there"), "data");
        fs::remove_file(&path).expect("removed");

        let datagrams = UnixDatagram::bind(&path).expect("binds");
        assert!(matches!(listen_at(&path), Err(ListenError::OtherType)));
        UnixDatagram::unbound().expect("a socket").send_to(b"log", &path).expect("still there");
        assert_eq!(datagrams.recv(&mut [0; 3]).expect("a datagram"), 3);
        fs::remove_file(&path).expect("removed");

        let flags = SocketFlags::CLOEXEC;
        let packets = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).expect("a socket");
        bind(&packets, &SocketAddrUnix::new(&path).expect("an address")).expect("binds");
        listen(&packets, 1).expect("listens");
        assert!(matches!(listen_at(&path), Err(ListenError::OtherType)));
        fs::remove_file(&path).expect("removed");

        let living = UnixListener::bind(&path).expect("listens");
        assert!(matches!(listen_at(&path), Err(ListenError::InUse)));
        drop(living);
        let (_socket, file) = listen_at(&path).expect("replaces a stale one");
        drop(file);
        assert!(!path.exists());
    }

    #[test]
    fn a_full_backlog_is_a_living_process() {
        let (_directory, path) = scratch();
        let address = SocketAddrUnix::new(&path).expect("an address");
        let living = new_socket().expect("a socket");
        bind(&living, &address).expect("binds");
        listen(&living, 0).expect("listens");
        let mut waiting = Vec::new();
        loop {
            let client = new_socket().expect("a socket");
            match connect(&client, &address) {
                Ok(()) => waiting.push(client),
                Err(errno) => break assert_eq!(errno, Errno::AGAIN),
            }
        }
        assert!(matches!(listen_at(&path), Err(ListenError::InUse)));
        assert!(fs::symlink_metadata(&path).expect("still there").file_type().is_socket());
    }

    #[test]
    fn of_starts_at_the_same_time_one_listens() {
        for is_stale in [false, true] {
            let (_directory, path) = scratch();
            for _ in 0..50 {
                if is_stale {
                    drop(UnixListener::bind(&path).expect("listens"));
                }
                let outcomes: Vec<_> = std::thread::scope(|scope| {
                    let starts: Vec<_> = (0..4).map(|_| scope.spawn(|| listen_at(&path))).collect();
                    starts.into_iter().map(|start| start.join().expect("no panic")).collect()
                });
                let errors: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).collect();
                assert!(errors.iter().all(|error| matches!(error, ListenError::InUse)), "{errors:?}");
                assert_eq!(errors.len(), 3, "{errors:?}");
                UnixStream::connect(&path).expect("the one that listens is the one at the path");
            }
        }
    }

    /// A signal's handler that interrupts a removal ends the process when its own call returns. Here a thread stands for the handler.
    #[test]
    fn the_file_is_gone_when_any_call_of_its_removal_returns() {
        let (_directory, path) = scratch();
        for _ in 0..500 {
            let (_socket, file) = listen_at(&path).expect("listens");
            let start = Barrier::new(2);
            let removal = || {
                start.wait();
                file.remove();
                path.exists()
            };
            let left = std::thread::scope(|scope| {
                [scope.spawn(removal), scope.spawn(removal)].map(|call| call.join())
            });
            assert!(left.into_iter().all(|left| !left.expect("no panic")));
        }
    }

    #[test]
    fn a_path_that_is_too_long_or_in_no_directory_is_an_error() {
        let error = |path: &str| listen_at(Path::new(path)).expect_err("no socket").to_string();
        assert!(error(&"x".repeat(200)).contains("107 bytes"));
        assert_eq!(error("/missing/x"), "open(2) of the directory: No such file or directory (os error 2)");
    }
}
