//! Pseudo-terminals.

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::OwnedFd;

use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, ptsname, unlockpt};

/// Both ends of a new pseudo-terminal, which is no process's controlling terminal.
pub(crate) struct Pty {
    /// The user's end.
    pub(crate) master: File,
    /// The programs' end.
    pub(crate) line: OwnedFd,
    /// The path of the programs' end.
    pub(crate) path: OsString,
}

impl Pty {
    pub(crate) fn open() -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags).expect("a pseudo-terminal");
        unlockpt(&master).expect("a pseudo-terminal to unlock");
        let line = ioctl_tiocgptpeer(&master, flags).expect("the far end of a pseudo-terminal");
        let path = ptsname(&master, Vec::new()).expect("the path of a pseudo-terminal");
        Pty { master: File::from(master), line, path: path.into_string().expect("a path in ASCII").into() }
    }
}
