//! Reads and writes: many at the same time, large ones, past the page cache, and those that a reset abandons.

use std::fs::File;
use std::thread::sleep;
use std::time::Duration;

use devices::virtio_block::{DiskOptions, EngineKind, Format};

use crate::driver::*;
use crate::machine::*;

pub(crate) fn requests_in_flight(engine: EngineKind) {
    random_requests(engine, WRITABLE, 3000);
}

/// Aligned requests go past the page cache, and the others through it.
pub(crate) fn direct_requests_in_flight(engine: EngineKind) {
    random_requests(engine, DiskOptions { direct: true, ..WRITABLE }, 1000);
}

/// Each slot has a part of the disk to itself, and a model says what is in it.
fn random_requests(engine: EngineKind, options: DiskOptions, count: u32) {
    const SECTORS: u64 = 2 * SLOT_LEN / 512;
    let mut model = vec![0x11; 512 * (SECTORS * u64::from(SLOTS)) as usize];
    let mut machine = Machine::new(engine, &model, options, None);
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    let mut expected: Vec<Option<Vec<u8>>> = vec![None; SLOTS.into()];
    let (mut begun, mut in_flight) = (0, 0);
    let mut idle: Vec<u16> = (0..SLOTS).collect();
    while begun < count || in_flight > 0 {
        while let Some(slot) = idle.pop_if(|_| begun < count) {
            let aligned = if random.below(2) == 0 { 8 } else { 1 };
            let offset = random.below(SECTORS / 2 / aligned) * aligned;
            let sectors = aligned * (1 + random.below(SLOT_LEN / 512 / aligned));
            let (sector, len) = (SECTORS * u64::from(slot) + offset, 512 * sectors as usize);
            let start = 512 * sector as usize;
            let part = &mut model[start..start + len];
            expected[usize::from(slot)] = None;
            match random.below(10) {
                0..4 => {
                    expected[usize::from(slot)] = Some(part.to_vec());
                    machine.offer(slot, IN, sector, len as u32);
                }
                4..8 => {
                    part.fill_with(|| random.below(256) as u8);
                    machine.driver.put(Machine::data(slot), part);
                    machine.offer(slot, OUT, sector, len as u32);
                }
                8 => {
                    part.fill(0);
                    let kind = if random.below(2) == 0 { DISCARD } else { WRITE_ZEROES };
                    let unmap = if kind == WRITE_ZEROES { random.below(2) as u32 } else { 0 };
                    machine.driver.put(Machine::data(slot), &range(&(sector, sectors as u32, unmap)));
                    machine.offer(slot, kind, 0, 16);
                }
                _ => machine.offer(slot, FLUSH, 0, 0),
            }
            begun += 1;
            in_flight += 1;
        }
        let (slot, status) = machine.used();
        assert_eq!(status, OK);
        if let Some(bytes) = &expected[usize::from(slot)] {
            assert!(machine.driver.bytes(Machine::data(slot), bytes.len()) == *bytes, "slot {slot}");
        }
        idle.push(slot);
        in_flight -= 1;
    }
    assert!(machine.file() == model);
}

pub(crate) fn direct_access_leaves_the_page_cache_alone(engine: EngineKind) {
    for direct in [true, false] {
        let directory = tempfile::tempdir().expect("a directory");
        // Nothing of it is cached.
        File::create(directory.path().join("disk")).and_then(|file| file.set_len(1 << 20)).expect("a file");
        // Nor does the search for signatures of other formats read it.
        let options = DiskOptions { direct, format: Some(Format::Raw), ..WRITABLE };
        let mut machine = Machine::open(directory, options, |block| block.engine(engine));
        machine.driver.put(Machine::data(0), &[0x77; 0x8000]);
        assert_eq!(machine.request(OUT, 8, 0x8000), OK);
        assert_eq!(machine.request(IN, 0, 0x4000), OK);
        let cached = cachestat(&machine.path).expect("cachestat(2)").cached;
        assert_eq!(cached == 0, direct, "{cached} pages are cached");
        assert_eq!(machine.file()[0x1000..0x9000], [0x77; 0x8000]);
    }
}

/// More than all buffers of the queue together.
pub(crate) fn a_request_of_many_operations(engine: EngineKind) {
    let len = 9_u32 << 20;
    let content: Vec<u8> = (0..len).map(|at| (at / 7) as u8).collect();
    let mut machine = Machine::new(engine, &content, WRITABLE, None);
    // The same memory many times: the last part of the data stays in it.
    let window = 0x8_0000_u32;
    let (header, table) = (BUFFERS, BUFFERS + 0x1000);
    let transfer = |machine: &mut Machine, kind: u32| {
        machine.driver.put(header, &[&kind.to_le_bytes()[..], &[0; 12]].concat());
        let mut buffers = vec![Buffer(header, 16, false)];
        buffers.extend(vec![Buffer(Machine::data(0), window, kind == IN); (len / window) as usize]);
        buffers.push(Buffer(Machine::status_byte(0), 1, true));
        machine.driver.chain(table, &buffers);
        machine.driver.descriptor(DESCRIPTORS, 0, table, 16 * buffers.len() as u32, INDIRECT_TABLE, 0);
        machine.driver.offer(0);
        let written = machine.driver.used().1;
        assert_eq!(machine.driver.byte(Machine::status_byte(0)), OK);
        assert_eq!(written, if kind == IN { len + 1 } else { 1 });
    };
    transfer(&mut machine, IN);
    let pattern: Vec<u8> = (0..window).map(|at| (at / 11) as u8).collect();
    machine.driver.put(Machine::data(0), &pattern);
    transfer(&mut machine, OUT);
    assert!(machine.file() == pattern.repeat((len / window) as usize));
}

pub(crate) fn nothing_happens_after_a_reset(engine: EngineKind) {
    let mut machine = Machine::new(engine, &vec![0; 1 << 20], WRITABLE, None);
    for round in 0..40_u8 {
        let kind = if round % 2 == 0 { IN } else { OUT };
        for slot in 0..SLOTS {
            machine.driver.put(Machine::data(slot), &[round; SLOT_LEN as usize]);
            machine.offer(slot, kind, SLOT_LEN / 512 * u64::from(slot), SLOT_LEN as u32);
        }
        // At another moment each time.
        sleep(Duration::from_micros(u64::from(round) * 5));
        machine.driver.write(STATUS, 0);
        let (used, file) = (machine.driver.used_index(), machine.file());
        let bytes = machine.driver.bytes(0, MEMORY as usize);
        sleep(Duration::from_millis(2));
        assert_eq!(machine.driver.used_index(), used);
        assert!(machine.driver.bytes(0, MEMORY as usize) == bytes, "guest memory was written after a reset");
        assert!(machine.file() == file, "the disk was written after a reset");
        machine.driver.start(F_FLUSH | INDIRECT);
    }
    assert_eq!(machine.request(IN, 0, 512), OK);
}
