//! DISCARD and WRITE_ZEROES.

use std::fs;
use std::os::unix::fs::MetadataExt;

use devices::virtio_block::{DiskOptions, EngineKind};

use crate::driver::*;
use crate::machine::*;

/// A file system in memory, which can make holes and cannot zero a range.
pub(crate) const SHM: &str = "/dev/shm";

pub(crate) fn discards_are_holes(engine: EngineKind) {
    discards(engine, None);
}

pub(crate) fn zeroes_without_the_file_systems_help(engine: EngineKind) {
    discards(engine, Some(SHM));
}

fn discards(engine: EngineKind, place: Option<&str>) {
    const LEN: usize = 1 << 20;
    /// Blocks in which the file system lists the others.
    const METADATA: u64 = 16;
    let mut machine = Machine::new(engine, &[0x11; LEN], WRITABLE, place);
    let blocks = |machine: &Machine| fs::metadata(&machine.path).expect("the disk").blocks();
    let full = blocks(&machine);
    let mut expected = vec![0x11; LEN];
    let mut zero = |sector: usize, sectors: usize| {
        expected[512 * sector..512 * (sector + sectors)].fill(0);
        expected.clone()
    };
    // Several ranges, one of parts of blocks.
    assert_eq!(machine.ranges(DISCARD, &[(0, 512, 0), (1024, 3, 0), (2047, 1, 0)]), OK);
    zero(0, 512);
    zero(1024, 3);
    assert!(machine.file() == zero(2047, 1));
    assert!(blocks(&machine) <= full - 512 + METADATA, "{} of {full} blocks", blocks(&machine));
    // Zeroes that keep their space, and zeroes that do not.
    let before = blocks(&machine);
    assert_eq!(machine.ranges(WRITE_ZEROES, &[(512, 256, 0), (1030, 1, 0)]), OK);
    zero(512, 256);
    assert!(machine.file() == zero(1030, 1));
    assert!(blocks(&machine) >= before, "{} of {before} blocks", blocks(&machine));
    assert_eq!(machine.ranges(WRITE_ZEROES, &[(512, 256, 1)]), OK);
    assert!(blocks(&machine) <= before - 256 + METADATA, "{} of {before} blocks", blocks(&machine));
    let after = machine.file();
    assert!(after == zero(512, 256));

    // No range of an invalid request is used.
    let (valid, past, long) = ((1536, 8, 0), (2047, 2, 0), (0, (1 << 21) + 1, 0));
    for kind in [DISCARD, WRITE_ZEROES] {
        for ranges in [
            &[valid, past][..],
            &[valid, long],
            &[(u64::MAX, 1, 0)],
            &[(u64::MAX / 512, 8, 0)],
            &[],
            &[valid; 33],
        ] {
            assert_eq!(machine.ranges(kind, ranges), IOERR, "{kind} of {ranges:?}");
        }
        for len in [8, 17, 31] {
            assert_eq!(machine.request(kind, 0, len), IOERR, "{kind} with {len} bytes");
        }
        assert_eq!(machine.ranges(kind, &[valid, (1600, 8, 2)]), UNSUPP, "an unknown flag");
    }
    assert_eq!(machine.ranges(DISCARD, &[valid, (1600, 8, 1)]), UNSUPP, "a discard always unmaps");
    assert!(machine.file() == after);
    assert_eq!(machine.ranges(DISCARD, &[(0, 0, 0)]), OK, "nothing");
    assert_eq!(machine.request(IN, 0, 512), OK, "the device continues");

    let Machine { driver, mut directory, .. } = machine;
    drop(driver);
    for options in [READ_ONLY, DiskOptions { discard: false, ..WRITABLE }] {
        let mut machine = Machine::open(directory, options, |block| block.engine(engine));
        for kind in [DISCARD, WRITE_ZEROES] {
            assert_eq!(machine.ranges(kind, &[valid]), UNSUPP);
        }
        assert!(machine.file() == after);
        directory = machine.directory;
    }
}
