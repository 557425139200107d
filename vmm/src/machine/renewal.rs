//! Guest memory for a boot: zero, and with fresh pages in place of poisoned ones where there are any.

use std::io;

use guest_memory::GuestRam;
use ras_core::Span;
use ras_core::request::Repair;

/// Makes guest memory zero, except what is poisoned, given as GPA and bytes. Then replaces that too, unless it is never repaired. Returns
/// the pages of the backing that could not be replaced, each with the reason: they stay poisoned.
///
/// # Errors
/// Returns an error if memory that is not poisoned cannot be made zero.
pub(super) fn renew(
    ram: &GuestRam,
    poisoned: &[(u64, u64)],
    repair: Repair,
) -> io::Result<Vec<(Span, io::Error)>> {
    ram.zero_except(poisoned)?;
    let mut failed = Vec::new();
    if repair == Repair::Never {
        return Ok(failed);
    }
    let page_size = ram.backing().page_size();
    let mut ranges = poisoned.to_vec();
    ranges.sort_unstable();
    let mut next = 0;
    for (gpa, len) in ranges {
        let mut page = next.max(gpa & !(page_size - 1));
        // Guest physical addresses have at most 52 bits.
        while page < gpa + len {
            if let Err(error) = ram.replace_pages(page, page_size) {
                failed.push((Span::around(page, page_size.trailing_zeros() as u8), error));
            }
            page += page_size;
        }
        next = page;
    }
    Ok(failed)
}

#[cfg(test)]
mod tests {
    use guest_memory::Backing;

    use super::*;

    #[test]
    fn poisoned_pages_are_replaced_unless_they_are_never_repaired() {
        for backing in [Backing::Anonymous, Backing::Memfd] {
            let ram = GuestRam::allocate(&[(0, 1 << 20)], backing).expect("memory");
            let poisoned = [(0x3000, 0x1000), (0x8000, 0x2000), (0x9000, 0x1000)];
            let bytes = |ram: &GuestRam| {
                [0x2000, 0x3000, 0x4000, 0x9000].map(|gpa| {
                    let mut byte = [0];
                    ram.read(gpa, &mut byte).expect("memory");
                    byte[0]
                })
            };
            let fill = || ram.write(0, &[7; 0x10000]).expect("memory");
            fill();
            assert!(renew(&ram, &poisoned, Repair::Never).expect("memory").is_empty());
            assert_eq!(bytes(&ram), [0, 7, 0, 7], "what is poisoned is not touched");
            for repair in [Repair::OnReset, Repair::WhenAcknowledged] {
                fill();
                assert!(renew(&ram, &poisoned, repair).expect("memory").is_empty());
                assert_eq!(bytes(&ram), [0; 4]);
            }
            // Beyond the end of memory there is nothing to replace.
            let failed = renew(&ram, &[(1 << 20, 0x1000)], Repair::OnReset).expect("memory");
            let failed: Vec<_> = failed.iter().map(|(page, error)| (page.gpa, error.kind())).collect();
            assert_eq!(failed, [(1 << 20, io::ErrorKind::InvalidInput)]);
        }
    }
}
