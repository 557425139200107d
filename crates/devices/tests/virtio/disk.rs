//! Files that can be a disk, and files that cannot.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use devices::virtio_block::{Disk, DiskError};
use tempfile::tempdir;

#[test]
fn size_in_sectors() {
    let directory = tempdir().expect("a directory");
    let path = directory.path().join("disk");
    for sectors in [0, 1, 9] {
        fs::write(&path, vec![0; 512 * sectors]).expect("a file");
        assert_eq!(Disk::open(&path, true).expect("a disk").sectors(), sectors as u64);
    }
    let link = directory.path().join("link");
    symlink(&path, &link).expect("a link");
    assert_eq!(Disk::open(&link, false).expect("a disk").sectors(), 9);
}

#[test]
fn files_that_cannot_be_a_disk_are_refused() {
    let directory = tempdir().expect("a directory");
    let missing = Disk::open(&directory.path().join("missing"), true).expect_err("missing");
    assert_eq!(missing.to_string(), "the disk cannot be opened: No such file or directory (os error 2)");
    assert!(matches!(Disk::open(directory.path(), true), Err(DiskError::NotAFile)));
    assert!(matches!(Disk::open(Path::new("/dev/null"), false), Err(DiskError::NotAFile)));
    let uneven = directory.path().join("uneven");
    fs::write(&uneven, [0; 513]).expect("a file");
    let error = Disk::open(&uneven, false).expect_err("uneven");
    assert_eq!(error.to_string(), "a disk is a multiple of 512 bytes, and this has 513");
}
