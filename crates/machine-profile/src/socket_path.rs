//! The path of a Unix socket.

use std::path::PathBuf;

use crate::diagnostic::Diagnostic;
use crate::reader::Setting;

/// The maximum length of a socket's path: `sun_path` of `struct sockaddr_un` has 108 bytes, the last one a NUL (unix(7)).
const MAX_LEN: usize = 107;

/// Refuses a path that is too long for a socket.
pub(crate) fn too_long(socket: &Setting<PathBuf>) -> Option<Diagnostic> {
    let len = socket.value.as_os_str().len();
    (len > MAX_LEN).then(|| {
        socket.refused(
            format!("resolved, it is {len} bytes long; the maximum for a socket is {MAX_LEN}"),
            "choose a shorter path, for example below `/run`",
        )
    })
}
