//! Files that can be a disk, and files that cannot.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use devices::virtio_block::{Disk, DiskError, DiskOptions, Format};
use tempfile::tempdir;

use crate::driver::{READ_ONLY, WRITABLE};

/// A disk whose bytes are declared to be raw.
const RAW: DiskOptions = DiskOptions { format: Some(Format::Raw), ..READ_ONLY };

#[test]
fn size_in_sectors() {
    let directory = tempdir().expect("a directory");
    let path = directory.path().join("disk");
    for sectors in [0, 1, 9] {
        fs::write(&path, vec![0; 512 * sectors]).expect("a file");
        assert_eq!(Disk::open(&path, READ_ONLY).expect("a disk").sectors(), sectors as u64);
    }
    let link = directory.path().join("link");
    symlink(&path, &link).expect("a link");
    assert_eq!(Disk::open(&link, WRITABLE).expect("a disk").sectors(), 9);
}

#[test]
fn files_that_cannot_be_a_disk_are_refused() {
    let directory = tempdir().expect("a directory");
    let missing = Disk::open(&directory.path().join("missing"), READ_ONLY).expect_err("missing");
    assert_eq!(missing.to_string(), "the disk cannot be opened: No such file or directory (os error 2)");
    assert!(matches!(Disk::open(directory.path(), READ_ONLY), Err(DiskError::NotAFile)));
    assert!(matches!(Disk::open(Path::new("/dev/null"), WRITABLE), Err(DiskError::NotAFile)));
    let uneven = directory.path().join("uneven");
    fs::write(&uneven, [0; 513]).expect("a file");
    let error = Disk::open(&uneven, WRITABLE).expect_err("uneven");
    assert_eq!(error.to_string(), "a disk is a multiple of 512 bytes, and this has 513");
}

/// A file of sysfs has no O_DIRECT.
#[test]
fn a_file_without_direct_access_is_refused() {
    let path = Path::new("/sys/kernel/uevent_seqnum");
    Disk::inspect(path, RAW).expect("a file of whole sectors");
    for error in [
        Disk::inspect(path, DiskOptions { direct: true, ..RAW }).expect_err("direct"),
        Disk::open(path, DiskOptions { direct: true, ..RAW }).expect_err("direct"),
    ] {
        assert!(matches!(error, DiskError::NoDirect { .. }), "{error}");
        assert!(
            error.to_string().starts_with("the disk cannot be accessed directly: its file system"),
            "{error}"
        );
        assert!(error.help().contains("direct = false"), "{}", error.help());
    }
}

/// The signatures are those that `qemu-img create -f` writes.
#[test]
fn images_of_other_formats_are_refused_unless_they_are_declared_raw() {
    let directory = tempdir().expect("a directory");
    let path = directory.path().join("disk");
    let image = |offset: usize, signature: &[u8]| {
        let mut bytes = vec![0; 2048];
        bytes[offset..offset + signature.len()].copy_from_slice(signature);
        bytes
    };
    for (format, bytes) in [
        ("qcow2", image(0, b"QFI\xfb\0\0\0\x03")),
        ("qed", image(0, b"QED\0")),
        ("vmdk", image(0, b"KDMV\x01")),
        ("vmdk", image(0, b"COWD")),
        ("vmdk", image(0, b"# Disk DescriptorFile\nversion=1")),
        ("vhdx", image(0, b"vhdxfile")),
        ("vdi", image(64, &[0x7f, 0x10, 0xda, 0xbe])),
        ("parallels", image(0, b"WithoutFreeSpace")),
        ("vpc (vhd)", image(0, b"conectix")),
        ("vpc (vhd)", image(2048 - 512, b"conectix")),
    ] {
        fs::write(&path, bytes).expect("a file");
        for read_only in [true, false] {
            let error = Disk::open(&path, DiskOptions { read_only, ..WRITABLE }).expect_err(format);
            assert_eq!(
                error.to_string(),
                format!("the file has the signature of a {format} image, and a disk is read as raw bytes")
            );
            assert!(error.help().contains("format = \"raw\""), "{}", error.help());
            assert_eq!(Disk::open(&path, DiskOptions { read_only, ..RAW }).expect(format).sectors(), 4);
        }
        assert!(matches!(Disk::inspect(&path, READ_ONLY), Err(DiskError::Format { .. })), "{format}");
        Disk::inspect(&path, RAW).expect(format);
    }
    // Not at its place, or only a part of it.
    for bytes in
        [image(1, b"QFI\xfb"), image(2044, b"QFI\xfb"), b"QFI".to_vec(), b"# Disk D".to_vec(), vec![]]
    {
        fs::write(&path, bytes).expect("a file");
        assert!(!matches!(Disk::inspect(&path, READ_ONLY), Err(DiskError::Format { .. })));
    }
}

/// Whatever the path that leads to it: the lock is that of the inode. Between processes it is the same as here: it belongs to
/// the open file description.
#[test]
fn a_disk_is_written_by_one_and_read_by_many() {
    let directory = tempdir().expect("a directory");
    let [path, hard, soft] = ["disk", "hard", "soft"].map(|name| directory.path().join(name));
    fs::write(&path, [0; 512]).expect("a file");
    fs::hard_link(&path, &hard).expect("a link");
    symlink(&path, &soft).expect("a link");
    let open = |path: &Path, read_only| Disk::open(path, DiskOptions { read_only, ..WRITABLE });
    {
        let _writer = open(&path, false).expect("a disk");
        for (path, read_only) in
            [(&path, false), (&path, true), (&hard, false), (&soft, false), (&soft, true)]
        {
            let error = open(path, read_only).expect_err("in use");
            assert!(matches!(error, DiskError::InUse { .. }), "{error}");
            assert!(error.to_string().starts_with("the disk is in use: "), "{error}");
        }
        // It can be looked at.
        Disk::inspect(&path, READ_ONLY).expect("a disk");
    }
    let readers = [open(&path, true).expect("a disk"), open(&hard, true).expect("a disk")];
    assert!(matches!(open(&soft, false), Err(DiskError::InUse { read_only: false })));
    drop(readers);
    open(&soft, false).expect("a disk");
}
