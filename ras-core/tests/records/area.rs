//! The layout of record areas.

use std::collections::BTreeSet;

use proptest::prelude::*;
use ras_core::{ErrorSource, LayoutError, Notification, RecordArea};

/// A number of sources with descending ids: their order is not that of their ids.
fn sources(count: u16) -> Vec<ErrorSource> {
    (0..count).rev().map(|id| ErrorSource { id, notification: Notification::Sea }).collect()
}

proptest! {
    #[test]
    fn cells_registers_and_blocks_share_no_page(count in 1..=2000_u16, page in 0..1_u64 << 32) {
        let base = page * RecordArea::ALIGNMENT;
        let needed = RecordArea::bytes_needed(count.into());
        let area = RecordArea::lay_out(base, needed, &sources(count))?;
        prop_assert_eq!((area.gpa(), area.bytes()), (base, needed));
        prop_assert_eq!(area.bytes() % RecordArea::ALIGNMENT, 0);

        let large_page = |gpa: u64| gpa >> 16;
        let slots: Vec<_> = area.slots().collect();
        let cells: BTreeSet<u64> = slots.iter().map(|slot| slot.cell_gpa).collect();
        let acks: BTreeSet<u64> = slots.iter().map(|slot| slot.ack_gpa).collect();
        let blocks: BTreeSet<u64> = slots.iter().map(|slot| slot.block_gpa).collect();
        let pages = |gpas: &BTreeSet<u64>| gpas.iter().map(|gpa| large_page(*gpa)).collect::<BTreeSet<_>>();
        for (one, other) in [(&cells, &acks), (&acks, &blocks), (&blocks, &cells)] {
            prop_assert!(pages(one).is_disjoint(&pages(other)));
        }
        for gpas in [&cells, &acks, &blocks] {
            prop_assert_eq!(gpas.len(), usize::from(count), "two sources share an address");
        }
        for slot in &slots {
            prop_assert!(slot.cell_gpa % 8 == 0 && slot.ack_gpa % 8 == 0 && slot.block_gpa % 0x1000 == 0);
            prop_assert_eq!(slot.block_len, 0x1000);
            prop_assert!(base <= slot.cell_gpa && slot.block_gpa + 0x1000 <= base + needed);
            prop_assert_eq!(area.slot(slot.source.id), Some(*slot));
        }
    }

    #[test]
    fn blocks_are_free_and_empty_at_the_start(count in 1..=600_u16) {
        let base = 0x4010_0000;
        let area = RecordArea::lay_out(base, u64::MAX, &sources(count))?;
        let mut bytes = area.initial_bytes();
        prop_assert_eq!(bytes.len() as u64, area.bytes());
        for slot in area.slots() {
            for (gpa, expected) in [(slot.cell_gpa, slot.block_gpa), (slot.ack_gpa, 1)] {
                let place = (gpa - base) as usize;
                let word: &mut [u8] = &mut bytes[place..place + 8];
                prop_assert_eq!(&*word, expected.to_le_bytes());
                word.fill(0);
            }
        }
        prop_assert!(bytes.iter().all(|byte| *byte == 0), "the rest of the area is not zero");
    }
}

#[test]
fn invalid_areas_are_refused() {
    let lay_out =
        |base, available, sources: &[ErrorSource]| RecordArea::lay_out(base, available, sources).err();
    assert_eq!(lay_out(0, u64::MAX, &[]), Some(LayoutError::NoSources));
    assert_eq!(lay_out(0x1000, u64::MAX, &sources(1)), Some(LayoutError::Misaligned { base: 0x1000 }));
    let [source] = sources(1)[..] else { unreachable!("one source") };
    assert_eq!(lay_out(0, u64::MAX, &[source, source]), Some(LayoutError::DuplicateId { id: 0 }));
    // Cells, registers and blocks: three pages of 64 KiB.
    assert_eq!(
        lay_out(0, 0x2_ffff, &sources(16)),
        Some(LayoutError::TooSmall { sources: 16, needed: 0x3_0000, available: 0x2_ffff })
    );
    assert_eq!(lay_out(0, 0x3_0000, &sources(16)), None);
    assert_eq!(
        lay_out(!0xffff, u64::MAX, &sources(1)),
        Some(LayoutError::BeyondAddresses { base: !0xffff, needed: 0x3_0000 })
    );
}
