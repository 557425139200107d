//! Formats of disk images, by their signatures.
//!
//! A guest that gets such a file as a raw disk sees the format's own data in place of its file systems, and destroys the
//! image with its first write. A guest can also write such a signature to a raw disk: `format = "raw"` states that the
//! bytes are the guest's.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// The format of a disk image, as a profile names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// The bytes of the disk, whatever they are.
    Raw,
}

/// A signature: the format's name, the position of the signature, and the signature.
type Signature = (&'static str, From, &'static [u8]);

/// The start that a position counts from, in bytes.
#[derive(Clone, Copy)]
enum From {
    Start(u64),
    End(u64),
}

/// Formats that virtual machine monitors write, other than raw (qemu.git, `docs/interop` and `block`).
const SIGNATURES: &[Signature] = &[
    ("qcow2", From::Start(0), b"QFI\xfb"),
    ("qed", From::Start(0), b"QED\0"),
    ("vmdk", From::Start(0), b"KDMV"),
    ("vmdk", From::Start(0), b"COWD"),
    ("vmdk", From::Start(0), b"# Disk DescriptorFile"),
    ("vhdx", From::Start(0), b"vhdxfile"),
    ("vdi", From::Start(0x40), &0xbeda_107f_u32.to_le_bytes()),
    ("parallels", From::Start(0), b"WithoutFreeSpace"),
    ("parallels", From::Start(0), b"WithouFreSpacExt"),
    // A dynamic image starts with a copy of the footer, which a fixed one only ends with.
    ("vpc (vhd)", From::Start(0), b"conectix"),
    ("vpc (vhd)", From::End(512), b"conectix"),
];

/// The longest signature, in bytes.
const MAX_SIGNATURE_LEN: usize = 21;

/// The name of the format whose signature a file of `len` bytes has; `None` if it has none.
pub(super) fn signature(file: &File, len: u64) -> io::Result<Option<&'static str>> {
    for (name, from, signature) in SIGNATURES {
        let offset = match *from {
            From::Start(offset) => Some(offset),
            From::End(offset) => len.checked_sub(offset),
        };
        let mut bytes = [0; MAX_SIGNATURE_LEN];
        let (Some(offset), Some(bytes)) = (offset, bytes.get_mut(..signature.len())) else { continue };
        if offset + bytes.len() as u64 <= len {
            file.read_exact_at(bytes, offset)?;
            if bytes == *signature {
                return Ok(Some(name));
            }
        }
    }
    Ok(None)
}

const _: () = {
    let mut index = 0;
    while index < SIGNATURES.len() {
        assert!(SIGNATURES[index].2.len() <= MAX_SIGNATURE_LEN);
        index += 1;
    }
};
