//! A disk behind its driver, with many requests in flight.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use devices::virtio_block::{Block, Disk, DiskOptions, EngineKind};
use tempfile::TempDir;

use crate::driver::*;

pub(crate) const IN: u32 = 0;
pub(crate) const OUT: u32 = 1;
pub(crate) const FLUSH: u32 = 4;
pub(crate) const DISCARD: u32 = 11;
pub(crate) const WRITE_ZEROES: u32 = 13;

pub(crate) const OK: u8 = 0;
pub(crate) const IOERR: u8 = 1;
pub(crate) const UNSUPP: u8 = 2;

pub(crate) const F_FLUSH: u64 = 1 << 9;
pub(crate) const F_CONFIG_WCE: u64 = 1 << 11;
/// Requests that the driver can have in flight.
pub(crate) const SLOTS: u16 = 16;
/// Bytes of data of each.
pub(crate) const SLOT_LEN: u64 = 0x8000;

pub(crate) struct Machine {
    pub(crate) driver: Driver,
    pub(crate) path: PathBuf,
    pub(crate) directory: TempDir,
}

impl Machine {
    /// A disk of `content`, in a temporary directory below `place`, if that is given.
    pub(crate) fn new(engine: EngineKind, content: &[u8], options: DiskOptions, place: Option<&str>) -> Self {
        let directory = place.map_or_else(tempfile::tempdir, tempfile::tempdir_in).expect("a directory");
        fs::write(directory.path().join("disk"), content).expect("a file");
        Self::open(directory, options, |block| block.engine(engine))
    }

    /// The disk of a directory.
    pub(crate) fn open(
        directory: TempDir,
        options: DiskOptions,
        configure: impl FnOnce(Block) -> Block,
    ) -> Self {
        let path = directory.path().join("disk");
        let disk = Disk::open(&path, options).expect("a disk");
        let mut driver = Driver::new(configure(Block::new(disk, "virtio0")));
        driver.start(if options.read_only { INDIRECT } else { F_FLUSH | INDIRECT });
        Machine { driver, path, directory }
    }

    pub(crate) fn data(slot: u16) -> u64 {
        0x4_0000 + SLOT_LEN * u64::from(slot)
    }

    pub(crate) fn status_byte(slot: u16) -> u64 {
        BUFFERS + 0x800 + u64::from(slot)
    }

    /// Makes a request available whose data, of a slot's own, is in three buffers.
    pub(crate) fn offer(&mut self, slot: u16, kind: u32, sector: u64, len: u32) {
        let header = BUFFERS + 0x40 * u64::from(slot);
        let table = BUFFERS + 0x1000 + 0x100 * u64::from(slot);
        self.driver.put(header, &[&kind.to_le_bytes()[..], &[0; 4], &sector.to_le_bytes()].concat());
        self.driver.put(Self::status_byte(slot), &[0xee]);
        let (data, is_read) = (Self::data(slot), kind == IN);
        let (first, second) = (len / 3, len / 2);
        let buffers = [
            Buffer(header, 16, false),
            Buffer(data, first, is_read),
            Buffer(data + u64::from(first), second, is_read),
            Buffer(data + u64::from(first + second), len - first - second, is_read),
            Buffer(Self::status_byte(slot), 1, true),
        ];
        self.driver.chain(table, &buffers);
        self.driver.descriptor(DESCRIPTORS, slot, table, 16 * buffers.len() as u32, INDIRECT_TABLE, 0);
        self.driver.offer(slot);
    }

    /// The next request that is used: its slot and its status.
    pub(crate) fn used(&mut self) -> (u16, u8) {
        let slot = self.driver.used().0 as u16;
        (slot, self.driver.byte(Self::status_byte(slot)))
    }

    pub(crate) fn request(&mut self, kind: u32, sector: u64, len: u32) -> u8 {
        self.offer(0, kind, sector, len);
        self.used().1
    }

    /// A request of ranges: sector, number of sectors and flags of each.
    pub(crate) fn ranges(&mut self, kind: u32, ranges: &[(u64, u32, u32)]) -> u8 {
        let bytes: Vec<u8> = ranges.iter().flat_map(range).collect();
        self.driver.put(Self::data(0), &bytes);
        self.request(kind, 0, bytes.len() as u32)
    }

    pub(crate) fn file(&self) -> Vec<u8> {
        fs::read(&self.path).expect("the disk")
    }
}

pub(crate) fn range(&(sector, sectors, flags): &(u64, u32, u32)) -> Vec<u8> {
    [&sector.to_le_bytes()[..], &sectors.to_le_bytes(), &flags.to_le_bytes()].concat()
}

/// Numbers that are the same in each run (xorshift64).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

pub(crate) struct Pages {
    pub(crate) cached: u64,
    pub(crate) dirty: u64,
}

/// cachestat(2), since Linux 6.5. Pages that are being written count as dirty.
#[expect(unsafe_code, reason = "a system call without a wrapper")]
pub(crate) fn cachestat(path: &Path) -> Option<Pages> {
    const SYS_CACHESTAT: libc::c_long = 451;
    let file = File::open(path).expect("a file");
    let (range, mut counts) = ([0_u64; 2], [0_u64; 5]);
    // SAFETY: the kernel reads two 64-bit values and writes five.
    let outcome =
        unsafe { libc::syscall(SYS_CACHESTAT, file.as_raw_fd(), range.as_ptr(), counts.as_mut_ptr(), 0) };
    let [cached, dirty, writeback, ..] = counts;
    (outcome == 0).then_some(Pages { cached, dirty: dirty + writeback })
}
