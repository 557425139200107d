//! What a file is that is no kernel of this architecture, by its first bytes.

use super::ImageError;
use super::setup_header::SetupHeader;

/// Compression formats: the first bytes, the format, and the program that decompresses it. Linux, lib/decompress.c.
const COMPRESSED: &[(&[u8], &str, &str)] = &[
    (&[0x1f, 0x8b], "gzip", "gunzip"),
    (b"BZh", "bzip2", "bunzip2"),
    (&[0xfd, b'7', b'z', b'X', b'Z', 0], "xz", "unxz"),
    (&[0x5d, 0, 0], "LZMA", "unlzma"),
    (&[0x89, b'L', b'Z', b'O'], "LZO", "lzop -d"),
    (&[0x02, 0x21, 0x4c, 0x18], "LZ4", "unlz4"),
    (&[0x04, 0x22, 0x4d, 0x18], "LZ4", "unlz4"),
    (&[0x28, 0xb5, 0x2f, 0xfd], "zstd", "unzstd"),
];

/// The error for a file of `len` bytes that is not a kernel of this architecture and starts with these bytes.
pub(super) fn unknown(expected: &'static str, start: &[u8], len: u64) -> ImageError {
    if len == 0 {
        return ImageError::Empty { expected };
    }
    if let Some(&(_, format, program)) = COMPRESSED.iter().find(|(magic, ..)| start.starts_with(magic)) {
        return ImageError::Compressed { expected, format, program };
    }
    let found = match other_kind(start) {
        Some(kind) => kind.to_owned(),
        None => {
            let start = start.iter().take(8).map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ");
            format!("a file of {len} bytes that starts with {start}")
        }
    };
    ImageError::Unknown { expected, found }
}

/// A kind of file that is mistaken for a kernel.
fn other_kind(start: &[u8]) -> Option<&'static str> {
    if SetupHeader::of(start).is_some() {
        Some("a bzImage, an x86 kernel")
    } else if start.get(56..60) == Some(b"ARM\x64") {
        Some("an arm64 Image")
    } else if start.starts_with(b"\x7fELF") {
        Some("an ELF file")
    } else if start.starts_with(b"MZ\0\0zimg") {
        Some("an EFI zboot image")
    } else if start.starts_with(b"MZ") {
        Some("an EFI application (PE)")
    } else if start.starts_with(&[0x27, 0x05, 0x19, 0x56]) {
        Some("a U-Boot image")
    } else if start.starts_with(b"070701") {
        Some("a cpio archive, as an initrd is")
    } else if start.starts_with(b"#!") {
        Some("a script")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(start: &[u8]) -> String {
        unknown("a kernel", start, start.len() as u64).to_string()
    }

    #[test]
    fn a_file_is_called_by_its_name() {
        assert_eq!(said(b""), "the file is empty: expected a kernel");
        assert_eq!(said(&[0x1f, 0x8b, 8]), "the file is compressed with gzip: expected a kernel");
        assert_eq!(said(&[0x28, 0xb5, 0x2f, 0xfd]), "the file is compressed with zstd: expected a kernel");
        assert_eq!(said(b"MZ\0\0zimg"), "expected a kernel, found an EFI zboot image");
        assert_eq!(said(b"MZ\x90\0"), "expected a kernel, found an EFI application (PE)");
        assert_eq!(said(b"\x7fELF"), "expected a kernel, found an ELF file");
        assert_eq!(
            said(&[0xaa; 9]),
            "expected a kernel, found a file of 9 bytes that starts with aa aa aa aa aa aa aa aa"
        );
        assert_eq!(said(&[0xaa]), "expected a kernel, found a file of 1 bytes that starts with aa");
    }
}
