//! A reader of HEST (ACPI 6.5, 18.3.2) and of the record area, as strict as Linux's driver. It shares no code with the
//! builder.

use firmware_tables::GuestTables;
use platform::Range;

/// The largest page size of guest kernels.
const PAGE: u64 = 0x1_0000;

/// A generic error source, version 2.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Source {
    pub(crate) id: u16,
    /// Notification type.
    pub(crate) notification: u8,
    /// Poll interval in milliseconds.
    pub(crate) interval: u32,
    /// GSI.
    pub(crate) vector: u32,
    /// GPA of the cell with the address of its status block.
    pub(crate) cell: u64,
    /// GPA of its acknowledge register.
    pub(crate) ack: u64,
    /// Maximum length of its status block in bytes.
    pub(crate) block_len: u32,
}

/// The sources of a whole table.
///
/// # Panics
/// Panics if the table is invalid, or contains a source that Linux rejects.
pub(crate) fn read(table: &[u8]) -> Vec<Source> {
    assert_eq!((&table[..4], u32_at(table, 4) as usize, table[8]), (&b"HEST"[..], table.len(), 1));
    let sources: Vec<Source> = table[40..].chunks(92).map(source).collect();
    assert_eq!(u32_at(table, 36) as usize, sources.len());
    sources
}

fn source(entry: &[u8]) -> Source {
    assert_eq!(entry.len(), 92);
    assert_eq!((u16_at(entry, 0), u16_at(entry, 4)), (10, 0xffff), "version 2, related to no other");
    assert_eq!((entry[6], entry[7]), (0, 1), "no flags, enabled");
    assert!(u32_at(entry, 8) >= 1 && u32_at(entry, 12) >= 1, "records and sections");
    assert_eq!((entry[33], u16_at(entry, 34)), (28, 0), "length of the notification, nothing to be changed");
    assert_eq!(entry[44..60], [0; 16], "no thresholds");
    let block_len = u32_at(entry, 60);
    assert!((20..=0x1_0000).contains(&block_len));
    assert_eq!(
        (u64_at(entry, 76), u64_at(entry, 84)),
        (!1, 1),
        "acknowledged by the lowest bit, and no other"
    );
    Source {
        id: u16_at(entry, 2),
        notification: entry[32],
        interval: u32_at(entry, 36),
        vector: u32_at(entry, 40),
        cell: register(&entry[20..32]),
        ack: register(&entry[64..76]),
        block_len,
    }
}

/// The address of a 64-bit register in memory.
fn register(structure: &[u8]) -> u64 {
    assert_eq!(structure[..4], [0, 64, 0, 4], "memory, 64 bits from bit 0, read as a quadword");
    let address = u64_at(structure, 4);
    assert!(address != 0 && address.is_multiple_of(8), "{address:#x}");
    address
}

/// Checks that the status block of every source is free and empty, and shares no page with data of another kind.
///
/// # Panics
/// Panics if one is not.
pub(crate) fn check_records(built: &GuestTables, area: Range) {
    let records = built.table("error-records").expect("error records");
    assert!(area.start <= records.gpa && records.range().end() <= area.end(), "{area:x?}");
    assert_eq!((records.gpa % PAGE, records.bytes.len() as u64 % PAGE), (0, 0), "no page is shared");
    let at = |gpa: u64, len: usize| {
        let start = usize::try_from(gpa.checked_sub(records.gpa).expect("in the area")).unwrap();
        &records.bytes[start..start + len]
    };
    let mut used = Vec::new();
    let mut pages = [const { Vec::new() }; 3];
    for source in read(&built.table("hest").expect("a HEST").bytes) {
        let block = u64_at(at(source.cell, 8), 0);
        assert_eq!(u64_at(at(source.ack, 8), 0), 1, "free");
        assert!(at(block, source.block_len as usize).iter().all(|byte| *byte == 0), "empty");
        assert_eq!(block % 0x1000, 0, "on pages of its own");
        for (kind, (start, len)) in
            [(source.cell, 8), (source.ack, 8), (block, source.block_len)].into_iter().enumerate()
        {
            used.push((start, start + u64::from(len)));
            pages[kind].push(start / PAGE);
        }
    }
    used.sort_unstable();
    assert!(used.windows(2).all(|pair| pair[0].1 <= pair[1].0), "{used:x?}");
    let [cells, acks, blocks] = pages;
    assert!(!cells.iter().any(|page| acks.contains(page) || blocks.contains(page)));
    assert!(!acks.iter().any(|page| blocks.contains(page)));
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().unwrap())
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}
