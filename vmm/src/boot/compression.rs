//! Compressed kernels: gzip, or an EFI zboot image (Linux, drivers/firmware/efi/libstub/zboot-header.S).
//!
//! | offset | zboot header |
//! |---|---|
//! | 0 | "MZ", 0, 0 |
//! | 4 | "zimg" |
//! | 8 | u32: offset of the compressed kernel |
//! | 12 | u32: its length in bytes |
//! | 24 | its compression, a string that ends with NUL |

use std::io::{self, Read};

use super::ImageError;

/// How a kernel is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Gzip,
    Zboot,
}

/// Bytes of a zboot header up to the compression, inclusive.
const ZBOOT_HEADER: usize = 56;

/// How a file that starts with these bytes is compressed. `None` if it is not.
pub(super) fn of(start: &[u8]) -> Option<Format> {
    if start.starts_with(&[0x1f, 0x8b]) {
        Some(Format::Gzip)
    } else if start.starts_with(b"MZ\0\0zimg") {
        Some(Format::Zboot)
    } else {
        None
    }
}

/// Decompresses a file to at most `limit` bytes.
pub(super) fn decompress(format: Format, file: &[u8], limit: u64) -> Result<Vec<u8>, ImageError> {
    match format {
        Format::Gzip => gunzip(file, limit),
        Format::Zboot => decompress_zboot(file, limit),
    }
}

fn decompress_zboot(file: &[u8], limit: u64) -> Result<Vec<u8>, ImageError> {
    let len = file.len() as u64;
    let Some(header) = file.get(..ZBOOT_HEADER) else {
        return Err(ImageError::Truncated { what: "the zboot header", expected: ZBOOT_HEADER as u64, len });
    };
    let word = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let (offset, size) = (word(8) as usize, word(12) as usize);
    let end = offset.saturating_add(size);
    let Some(compressed) = file.get(offset..end) else {
        return Err(ImageError::Truncated { what: "the zboot payload", expected: end as u64, len });
    };
    let name = header[24..].split(|&byte| byte == 0).next().unwrap_or_default();
    match name {
        b"gzip" => gunzip(compressed, limit),
        // With its level: Linux's makefiles write `zstd22`.
        name if name.starts_with(b"zstd") => {
            let decoder = ruzstd::decoding::StreamingDecoder::new(compressed).map_err(damaged)?;
            read_up_to(decoder, limit)
        }
        other => Err(ImageError::Loader(format!(
            "the zboot header (offset 24) names the compression `{}`: expected gzip or zstd",
            String::from_utf8_lossy(other).escape_debug()
        ))),
    }
}

fn gunzip(compressed: &[u8], limit: u64) -> Result<Vec<u8>, ImageError> {
    read_up_to(flate2::read::GzDecoder::new(compressed), limit)
}

fn read_up_to(decoder: impl Read, limit: u64) -> Result<Vec<u8>, ImageError> {
    let mut bytes = Vec::new();
    decoder.take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(damaged)?;
    if bytes.len() as u64 > limit {
        return Err(ImageError::TooLarge { start: 0, end: bytes.len() as u64, limit });
    }
    Ok(bytes)
}

fn damaged(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> ImageError {
    ImageError::Loader(format!("the compressed kernel is damaged: {}", io::Error::other(error)))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).expect("memory");
        encoder.finish().expect("memory")
    }

    fn zboot(name: &[u8], payload: &[u8]) -> Vec<u8> {
        let mut file = b"MZ\0\0zimg".to_vec();
        file.extend(64_u32.to_le_bytes());
        file.extend((payload.len() as u32).to_le_bytes());
        file.resize(24, 0);
        file.extend(name);
        file.resize(64, 0);
        file.extend(payload);
        file
    }

    #[test]
    fn each_compression_is_detected_and_undone() {
        let kernel: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
        let zstd =
            ruzstd::encoding::compress_to_vec(&kernel[..], ruzstd::encoding::CompressionLevel::Fastest);
        for file in [gzip(&kernel), zboot(b"gzip", &gzip(&kernel)), zboot(b"zstd22", &zstd)] {
            let format = of(&file).expect("compressed");
            assert!(decompress(format, &file, 1 << 20).expect("whole") == kernel);
            assert!(matches!(decompress(format, &file, 1 << 10), Err(ImageError::TooLarge { .. })));
            assert!(decompress(format, &file[..file.len() / 2], 1 << 20).is_err());
        }
    }

    #[test]
    fn an_unsupported_compression_is_named_in_the_error() {
        let error = decompress(Format::Zboot, &zboot(b"xz\n", b"..."), 1 << 20).expect_err("xz").to_string();
        assert!(error.contains("`xz\\n`"), "{error}");
        assert_eq!(of(b"\x7fELF"), None);
    }
}
