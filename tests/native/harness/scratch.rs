//! A temporary directory for a test, and the profiles in it.

use std::path::PathBuf;

use tempfile::TempDir;

/// The directory.
pub(crate) struct Scratch(TempDir);

impl Scratch {
    pub(crate) fn new() -> Self {
        Scratch(tempfile::tempdir().expect("a temporary directory"))
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn file(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, bytes).expect("a new file");
        path
    }

    pub(crate) fn profile(&self, text: &str) -> Profile {
        Profile { path: self.file("machine.toml", text), text: text.to_owned() }
    }

    /// The smallest machine of these tests, with further keys of `[boot]`.
    pub(crate) fn machine(&self, boot: &str) -> Profile {
        self.profile(&format!(
            "[machine]\nvcpus = 1\nmemory = \"64MiB\"\nfirmware = \"acpi\"\n\n[boot]\n{boot}\n"
        ))
    }
}

/// A profile in a file.
pub(crate) struct Profile {
    pub(crate) path: PathBuf,
    pub(crate) text: String,
}

impl Profile {
    /// The place in a diagnostic about the value of `key`: `FILE:LINE:COLUMN`.
    pub(crate) fn place(&self, key: &str) -> String {
        let start = format!("{key} = ");
        let line =
            self.text.lines().position(|line| line.starts_with(&start)).expect("the key is in the profile");
        format!("{}:{}:{}", self.path.display(), line + 1, start.len() + 1)
    }
}
