//! The layout of tables in the platform's table area.

use platform::Range;

use crate::error::BuildError;

/// Tables start at multiples of this: a cache line, and more than any of them asks for (16 at most).
const ALIGNMENT: u64 = 64;

/// ActionExecutor out addresses from low to high.
///
/// Running out is not found until [`Area::close`], which can then tell how much all of the tables need.
pub(crate) struct Area {
    range: Range,
    next: u64,
}

impl Area {
    /// The part of `range` from `start` up.
    pub(crate) fn new(range: Range, start: u64) -> Self {
        let next = range.start.max(start).next_multiple_of(ALIGNMENT);
        Area { range: Range { start: next, len: range.end().saturating_sub(next) }, next }
    }

    /// An address for `len` bytes.
    pub(crate) fn claim(&mut self, len: usize) -> u64 {
        let claimed = self.next.next_multiple_of(ALIGNMENT);
        self.next = claimed + len as u64;
        claimed
    }

    /// Checks that all that was claimed is there.
    pub(crate) fn close(self, tables: &'static str) -> Result<(), BuildError> {
        let needed = self.next - self.range.start;
        if needed > self.range.len {
            return Err(BuildError::TooBig {
                tables,
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
    fn claims_ascend_aligned_and_apart() {
        let mut area = Area::new(Range { start: 0x1001, len: 0x1000 }, 0);
        assert_eq!(
            [area.claim(1), area.claim(64), area.claim(65), area.claim(0)],
            [0x1040, 0x1080, 0x10c0, 0x1140]
        );
        assert_eq!(area.close("acpi"), Ok(()));
    }

    #[test]
    fn the_last_byte_may_be_used_and_not_one_more() {
        let range = Range { start: 0x1000, len: 0x100 };
        let mut area = Area::new(range, 0x1080);
        area.claim(0x80);
        assert_eq!(area.close("acpi"), Ok(()));

        let mut area = Area::new(range, 0x1080);
        area.claim(0x81);
        let too_big = BuildError::TooBig { tables: "acpi", needed: 0x81, available: 0x80, start: 0x1080 };
        assert_eq!(area.close("acpi"), Err(too_big));
    }

    #[test]
    fn a_start_beyond_the_range_leaves_nothing() {
        let mut area = Area::new(Range { start: 0x1000, len: 0x100 }, 0x2000);
        area.claim(1);
        assert!(matches!(area.close("mptable"), Err(BuildError::TooBig { available: 0, .. })));
    }
}
