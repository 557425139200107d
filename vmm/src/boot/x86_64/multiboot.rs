//! Recognises kernels for Multiboot loaders such as GRUB, which this VMM does not load: errors name them.

use std::io::{self, Read, Seek};

use super::super::read_start;

/// Its name in the specification, magic number, number of words that add up to 0, alignment, and bytes of the file that are
/// searched (Multiboot 0.6.96, 3.1; Multiboot2 2.0, 3.1).
const HEADERS: [(&str, u32, usize, usize, usize); 2] =
    [("Multiboot", 0x1bad_b002, 3, 4, 8 << 10), ("Multiboot2", 0xe852_50d6, 4, 8, 32 << 10)];

/// The specification that a file has a header of. `None` if it has none.
pub(super) fn specification(image: &mut (impl Read + Seek)) -> io::Result<Option<&'static str>> {
    let mut start = vec![0; 32 << 10];
    let got = read_start(image, &mut start)?;
    let found = HEADERS.into_iter().find(|&(_, magic, words, alignment, searched)| {
        let mut places = (0..got.min(searched)).step_by(alignment).map(|at| &start[at..got]);
        places.any(|bytes| is_header(bytes, magic, words))
    });
    Ok(found.map(|(name, ..)| name))
}

fn is_header(bytes: &[u8], magic: u32, words: usize) -> bool {
    let (chunks, _) = bytes.as_chunks::<4>();
    let mut header = chunks.iter().take(words).map(|word| u32::from_le_bytes(*word)).peekable();
    header.peek() == Some(&magic) && chunks.len() >= words && header.fold(0, u32::wrapping_add) == 0
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn file(at: usize, words: &[u32]) -> Cursor<Vec<u8>> {
        let mut bytes = vec![0; at];
        bytes.extend(words.iter().flat_map(|word| word.to_le_bytes()));
        Cursor::new(bytes)
    }

    #[test]
    fn a_header_is_aligned_near_the_start_and_adds_up_to_zero() {
        let one = [0x1bad_b002, 3, 0_u32.wrapping_sub(0x1bad_b002 + 3)];
        let two = [0xe852_50d6, 0, 16, 0_u32.wrapping_sub(0xe852_50d6).wrapping_sub(16)];
        for (at, words, name) in [
            (0, &one[..], Some("Multiboot")),
            (8188, &one, Some("Multiboot")),
            (8192, &one, None),
            (2, &one, None),
            (0, &one[..2], None),
            (0, &[0x1bad_b002, 3, 0], None),
            (64, &two, Some("Multiboot2")),
            (68, &two, None),
        ] {
            assert_eq!(specification(&mut file(at, words)).expect("memory"), name, "{at} {words:x?}");
        }
    }
}
