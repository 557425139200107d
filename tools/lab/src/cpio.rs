//! A writer of `newc` cpio archives, the format of Linux's initramfs.
//!
//! Source: Linux, Documentation/driver-api/early-userspace/buffer-format.rst.

use std::collections::BTreeSet;
use std::io::Write;

use crate::error::{Context, Result};

const DIRECTORY: u32 = 0o040_755;
const REGULAR: u32 = 0o100_000;
const SYMLINK: u32 = 0o120_777;
const CHARACTER_DEVICE: u32 = 0o020_600;

/// An archive that is being written. Paths have no leading slash; missing parent directories are added.
#[derive(Default)]
pub(crate) struct Archive {
    bytes: Vec<u8>,
    directories: BTreeSet<String>,
    entries: u32,
}

impl Archive {
    pub(crate) fn directory(&mut self, path: &str) -> Result<()> {
        if path.is_empty() || !self.directories.insert(path.to_owned()) {
            return Ok(());
        }
        self.parents(path)?;
        self.entry(path, DIRECTORY, (0, 0), &[])
    }

    /// Adds a file; `mode` holds the permission bits only.
    pub(crate) fn file(&mut self, path: &str, mode: u32, content: &[u8]) -> Result<()> {
        self.parents(path)?;
        self.entry(path, REGULAR | mode, (0, 0), content)
    }

    pub(crate) fn symlink(&mut self, path: &str, target: &str) -> Result<()> {
        self.parents(path)?;
        self.entry(path, SYMLINK, (0, 0), target.as_bytes())
    }

    pub(crate) fn character_device(&mut self, path: &str, major: u32, minor: u32) -> Result<()> {
        self.parents(path)?;
        self.entry(path, CHARACTER_DEVICE, (major, minor), &[])
    }

    /// Completes the archive and returns its bytes.
    pub(crate) fn finish(mut self) -> Result<Vec<u8>> {
        self.entry("TRAILER!!!", 0, (0, 0), &[])?;
        Ok(self.bytes)
    }

    fn parents(&mut self, path: &str) -> Result<()> {
        match path.rsplit_once('/') {
            Some((parent, _)) => self.directory(parent),
            None => Ok(()),
        }
    }

    fn entry(&mut self, path: &str, mode: u32, device: (u32, u32), content: &[u8]) -> Result<()> {
        let size = u32::try_from(content.len()).context(format_args!("{path}: too big for an initramfs"))?;
        self.entries += 1;
        let fields = [
            self.entries, // inode
            mode,
            0, // user
            0, // group
            1, // links
            0, // modification time: none, so that equal contents give equal bytes
            size,
            0, // device that holds the file, major
            0, // and minor
            device.0,
            device.1,
            path.len() as u32 + 1,
            0, // checksum: not in this form
        ];
        self.bytes.extend(b"070701");
        for field in fields {
            write!(self.bytes, "{field:08x}").context("cannot grow the archive")?;
        }
        self.bytes.extend(path.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(content);
        self.pad();
        Ok(())
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    fn sample() -> Vec<u8> {
        let mut archive = Archive::default();
        archive.character_device("dev/console", 5, 1).unwrap();
        archive.file("lab/bin/odd", 0o755, b"12345").unwrap();
        archive.file("lab/empty", 0o644, b"").unwrap();
        archive.symlink("lab/bin/link", "odd").unwrap();
        archive.finish().unwrap()
    }

    fn cpio(arguments: &[&str], directory: &std::path::Path) -> String {
        let mut child = Command::new("cpio")
            .args(arguments)
            .current_dir(directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("cpio: cargo lab setup installs it");
        child.stdin.take().unwrap().write_all(&sample()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    }

    #[test]
    fn cpio_lists_what_was_added_with_its_parents_first() {
        let names = cpio(&["-it"], std::path::Path::new("/"));
        let expected = ["dev", "dev/console", "lab", "lab/bin", "lab/bin/odd", "lab/empty", "lab/bin/link"];
        assert_eq!(names.lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn cpio_unpacks_contents_modes_and_links() {
        use std::os::unix::fs::PermissionsExt;

        let directory = tempfile::tempdir().unwrap();
        cpio(&["-id", "lab*"], directory.path());
        let odd = directory.path().join("lab/bin/odd");
        assert_eq!(std::fs::read(&odd).unwrap(), b"12345");
        assert_eq!(std::fs::metadata(&odd).unwrap().permissions().mode() & 0o777, 0o755);
        assert_eq!(std::fs::read(directory.path().join("lab/empty")).unwrap(), b"");
        assert_eq!(std::fs::read_link(directory.path().join("lab/bin/link")).unwrap().as_os_str(), "odd");
    }

    #[test]
    fn equal_contents_give_equal_bytes() {
        assert_eq!(sample(), sample());
    }
}
