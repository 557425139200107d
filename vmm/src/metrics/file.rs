//! The file of metrics, for the textfile collector of Prometheus' node_exporter.
//!
//! A thread of its own writes it, so that nothing else waits for a slow file system. Each time it is written to a temporary file beside
//! it, which then replaces it: a reader gets one version or the other. It is removed at the end of the machine; its metrics would never
//! change again. A signal that ends the process at once leaves it there.

use std::fs::{self, Metadata, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use guest_memory::own;

/// How long the end of a machine waits until the file is removed.
const REMOVE_TIMEOUT: Duration = Duration::from_millis(200);
/// The collector may be another user.
const MODE: u32 = 0o644;

/// Attempts that failed, of this process.
static FAILURES: AtomicU64 = AtomicU64::new(0);

pub(super) fn failures() -> u64 {
    FAILURES.load(Ordering::Relaxed)
}

/// The thread that writes the file, until this is dropped.
#[derive(Debug)]
pub struct MetricsFile {
    /// Dropped to end the thread.
    stop: Option<Sender<()>>,
    /// Disconnected when the thread has ended.
    ended: Receiver<()>,
}

impl MetricsFile {
    /// Writes what `text` returns, now and after each interval. What cannot be written is logged and counted.
    ///
    /// # Errors
    /// Returns an error if the thread cannot be started.
    pub fn start(
        path: &Path,
        interval: Duration,
        text: impl Fn() -> String + Send + 'static,
    ) -> io::Result<Self> {
        let ((stop, stopped), (running, ended)) = (channel::<()>(), channel());
        let path = path.to_owned();
        own::thread("metrics").spawn(move || {
            let _running: Sender<()> = running;
            let (mut fails, mut written) = (false, None);
            loop {
                let outcome = replace(&path, &text());
                if let Err(error) = &outcome {
                    FAILURES.fetch_add(1, Ordering::Relaxed);
                    if !fails {
                        tracing::warn!("the file of metrics cannot be written: {}: {error}", path.display());
                    }
                }
                fails = outcome.is_err();
                written = outcome.ok().or(written);
                if stopped.recv_timeout(interval) != Err(RecvTimeoutError::Timeout) {
                    break;
                }
            }
            // Not one that another machine has put there.
            if written.is_some_and(|own| fs::symlink_metadata(&path).is_ok_and(|file| identity(&file) == own))
            {
                // An error means that it has been removed.
                let _ = fs::remove_file(&path);
            }
        })?;
        Ok(MetricsFile { stop: Some(stop), ended })
    }
}

impl Drop for MetricsFile {
    fn drop(&mut self) {
        self.stop = None;
        // An error means that it has ended, or that the file system is slow: then the file stays.
        let _ = self.ended.recv_timeout(REMOVE_TIMEOUT);
    }
}

/// Device and inode.
type Identity = (u64, u64);

fn identity(file: &Metadata) -> Identity {
    (file.dev(), file.ino())
}

/// Replaces a file by another one with this text.
fn replace(path: &Path, text: &str) -> io::Result<Identity> {
    match fs::symlink_metadata(path) {
        // rename(2) would replace a device or a symbolic link, not what it leads to.
        Ok(metadata) if !metadata.is_file() => {
            return Err(io::Error::new(
                ErrorKind::InvalidInput,
                "it is not a regular file: name another one",
            ));
        }
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Removed if it is dropped before it has replaced the file.
    let mut file = tempfile::Builder::new().prefix(".ghest-").tempfile_in(directory)?;
    // Whatever the umask is.
    file.as_file().set_permissions(Permissions::from_mode(MODE))?;
    file.write_all(text.as_bytes())?;
    let file = file.persist(path).map_err(|error| error.error)?;
    Ok(identity(&file.metadata()?))
}

#[cfg(test)]
mod tests {
    use std::fs::{read_dir, read_to_string};
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_file_is_replaced_and_nothing_else_is_left() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("web-1.prom");
        for text in ["one\n", "two\n"] {
            replace(&path, text).expect("a new file");
            assert_eq!(read_to_string(&path).expect("a file"), text);
        }
        assert_eq!(fs::metadata(&path).expect("a file").mode() & 0o777, 0o644);
        assert_eq!(read_dir(directory.path()).expect("a directory").count(), 1);
    }

    #[test]
    fn only_a_regular_file_is_replaced() {
        let directory = tempfile::tempdir().expect("a directory");
        let target = directory.path().join("target");
        fs::write(&target, "data").expect("a file");
        let link = directory.path().join("link.prom");
        symlink(&target, &link).expect("a link");
        for path in [&link, Path::new("/dev/null"), directory.path()] {
            let error = replace(path, "text").expect_err("refused");
            assert!(error.to_string().contains("not a regular file"), "{error}");
        }
        assert_eq!(read_to_string(&target).expect("a file"), "data");
        assert!(replace(&directory.path().join("missing/x.prom"), "text").is_err());
        assert_eq!(read_dir(directory.path()).expect("a directory").count(), 2);
    }
}
