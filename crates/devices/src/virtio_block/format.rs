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
type Signature = (&'static str, Offset, &'static [u8]);

/// A position in a file, in bytes.
#[derive(Clone, Copy)]
enum Offset {
    FromStart(u64),
    FromEnd(u64),
}

/// Formats that virtual machine monitors write, other than raw (qemu.git, `docs/interop` and `block`).
const SIGNATURES: &[Signature] = &[
    ("qcow2", Offset::FromStart(0), b"QFI\xfb"),
    ("qed", Offset::FromStart(0), b"QED\0"),
    ("vmdk", Offset::FromStart(0), b"KDMV"),
    ("vmdk", Offset::FromStart(0), b"COWD"),
    ("vmdk", Offset::FromStart(0), b"# Disk DescriptorFile"),
    ("vhdx", Offset::FromStart(0), b"vhdxfile"),
    ("vdi", Offset::FromStart(0x40), &0xbeda_107f_u32.to_le_bytes()),
    ("parallels", Offset::FromStart(0), b"WithoutFreeSpace"),
    ("parallels", Offset::FromStart(0), b"WithouFreSpacExt"),
    // A dynamic image starts with a copy of the footer, which a fixed one only ends with.
    ("vpc (vhd)", Offset::FromStart(0), b"conectix"),
    ("vpc (vhd)", Offset::FromEnd(512), b"conectix"),
];

/// The longest signature, in bytes.
const MAX_SIGNATURE_LEN: usize = 21;

/// The name of the format whose signature a file of `len` bytes has; `None` if it has none.
pub(super) fn signature(file: &File, len: u64) -> io::Result<Option<&'static str>> {
    for (name, offset, signature) in SIGNATURES {
        let offset = match *offset {
            Offset::FromStart(offset) => Some(offset),
            Offset::FromEnd(offset) => len.checked_sub(offset),
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
