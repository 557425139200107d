//! Placement of tables in the platform's table area.

use platform::Range;
use ras_core::request::TableSet;

use crate::error::BuildError;

/// Alignment of tables: a cache line. No table requires more than 16 bytes.
const ALIGNMENT: u64 = 64;

/// Assigns addresses in ascending order.
///
/// [`Area::close`] checks the end of the area, so that its error contains the length that all tables need.
pub(crate) struct Area {
    range: Range,
    next: u64,
}

impl Area {
    /// The part of `range` at and above `start`.
    pub(crate) fn new(range: Range, start: u64) -> Self {
        let next = range.start.max(start).next_multiple_of(ALIGNMENT);
        Area { range: Range { start: next, len: range.end().saturating_sub(next) }, next }
    }

    /// Assigns an address for `len` bytes.
    pub(crate) fn claim(&mut self, len: usize) -> u64 {
        let claimed = self.next.next_multiple_of(ALIGNMENT);
        self.next = claimed + len as u64;
        claimed
    }

    /// Returns an error if the claims exceed the area.
    pub(crate) fn close(self, set: TableSet) -> Result<(), BuildError> {
        let needed = self.next - self.range.start;
        if needed > self.range.len {
            return Err(BuildError::TooBig {
                set,
                needed,
                available: self.range.len,
                start: self.range.start,
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_ascend_aligned_without_overlap() {
        let mut area = Area::new(Range { start: 0x1001, len: 0x1000 }, 0);
        assert_eq!(
            [area.claim(1), area.claim(64), area.claim(65), area.claim(0)],
            [0x1040, 0x1080, 0x10c0, 0x1140]
        );
        assert_eq!(area.close(TableSet::Acpi), Ok(()));
    }

    #[test]
    fn the_last_byte_is_usable_and_the_next_is_an_error() {
        let range = Range { start: 0x1000, len: 0x100 };
        let mut area = Area::new(range, 0x1080);
        area.claim(0x80);
        assert_eq!(area.close(TableSet::Acpi), Ok(()));

        let mut area = Area::new(range, 0x1080);
        area.claim(0x81);
        let too_big =
            BuildError::TooBig { set: TableSet::Acpi, needed: 0x81, available: 0x80, start: 0x1080 };
        assert_eq!(area.close(TableSet::Acpi), Err(too_big));
    }

    #[test]
    fn a_start_above_the_range_leaves_no_space() {
        let mut area = Area::new(Range { start: 0x1000, len: 0x100 }, 0x2000);
        area.claim(1);
        assert!(matches!(area.close(TableSet::MpTable), Err(BuildError::TooBig { available: 0, .. })));
    }
}
