//! Programs for a disk of 16 sectors, whose file nobody else changes.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use arbitrary::{Arbitrary, Result, Unstructured};
use devices::virtio_block::{Block, Disk, DiskOptions, EngineKind};
use rustix::fs::{MemfdFlags, memfd_create};

use super::Subject;
use super::machine::{DATA, Machine};
use crate::driver::{Buffer, WRITABLE};

pub(crate) struct Device {
    file: File,
    is_read_only: bool,
}

#[derive(Arbitrary, Debug)]
pub(crate) struct Options {
    read_only: bool,
    discard: bool,
    two_queues: bool,
}

const SECTORS: u64 = 16;
const LEN: usize = 512 * SECTORS as usize;

impl Subject for Device {
    type Options = Options;
    type Host = ();
    type Model = Block;

    const QUEUES: u16 = 2;

    fn open(Options { read_only, discard, two_queues }: Options) -> Option<(Self, Block)> {
        let file = File::from(memfd_create("disk", MemfdFlags::CLOEXEC).expect("memfd_create(2)"));
        file.write_all_at(&[0x5a; LEN], 0).expect("memory");
        let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
        let disk = Disk::open(&path, DiskOptions { read_only, discard, ..WRITABLE }).expect("a disk");
        let block = Block::new(disk, "virtio0").queues(1 + u16::from(two_queues));
        Some((Device { file, is_read_only: read_only }, block.engine(EngineKind::Immediate)))
    }

    /// A header, and perhaps a range.
    fn request(input: &mut Unstructured<'_>) -> Result<Vec<u8>> {
        let kind = *input.choose(&[0_u32, 0, 1, 1, 4, 8, 11, 11, 13, 13, 2, u32::MAX])?;
        let sector = if input.ratio(7, 8)? { input.int_in_range(0..=SECTORS)? } else { input.arbitrary()? };
        let mut request = [&kind.to_le_bytes()[..], &[0; 4], &sector.to_le_bytes()].concat();
        if kind == 11 || kind == 13 {
            let (first, count) = (input.int_in_range(0..=SECTORS)?, input.int_in_range(0..=SECTORS as u32)?);
            request.extend(first.to_le_bytes());
            request.extend(count.to_le_bytes());
            request.extend(u32::from(input.ratio(1, 3)?).to_le_bytes());
        }
        Ok(request)
    }

    fn host(&mut self, (): (), _: &mut Machine) {}

    fn works(&mut self, machine: &mut Machine) {
        machine.driver.put(DATA, &[0; 16]);
        machine.driver.put(DATA + 0x3000, &[0xee]);
        let buffers = [
            Buffer(DATA, 16, false),
            Buffer(DATA + 0x1000, LEN as u32, true),
            Buffer(DATA + 0x3000, 1, true),
        ];
        machine.make_available(0, 0, &buffers);
        assert_eq!(machine.used(0), Some((0, LEN as u32 + 1)));
        assert_eq!(machine.driver.byte(DATA + 0x3000), 0, "VIRTIO_BLK_S_OK");
        let mut content = vec![0; LEN];
        self.file.read_exact_at(&mut content, 0).expect("the size of the disk stays the same");
        assert!(machine.driver.bytes(DATA + 0x1000, LEN) == content);
        assert!(!self.is_read_only || content == [0x5a; LEN], "a read-only disk was written");
    }
}
