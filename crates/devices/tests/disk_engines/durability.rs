//! What is on stable storage, and what survives the end of the process.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use devices::virtio_block::{Disk, EngineKind};
use vm_device::MutDeviceMmio;
use vm_device::bus::MmioAddress;

use crate::driver::*;
use crate::machine::*;

/// The `writeback` field.
const WRITEBACK: u64 = CONFIG + 32;

pub(crate) fn flushed_writes_are_on_stable_storage(engine: EngineKind) {
    let dirty = |machine: &Machine| cachestat(&machine.path).expect("cachestat(2)").dirty;
    let mut machine = Machine::new(engine, &vec![0; 1 << 20], WRITABLE, None);
    assert_eq!(machine.request(FLUSH, 0, 0), OK);
    // The host may write it at any moment, but does not do so each time.
    let is_cached = (0..20).any(|_| machine.request(OUT, 0, 0x8000) == OK && dirty(&machine) > 0);
    assert!(is_cached, "writes are not cached");
    assert_eq!(machine.request(FLUSH, 0, 0), OK);
    assert_eq!(dirty(&machine), 0);
    // Writethrough: a driver that does not flush, and one that says so.
    machine.driver.start(INDIRECT);
    let writeback = |machine: &mut Machine| {
        let mut mode = [0xee];
        machine.driver.transport.mmio_read(MmioAddress(0), WRITEBACK, &mut mode);
        mode[0]
    };
    assert_eq!(writeback(&mut machine), 0);
    for _ in 0..5 {
        assert_eq!(machine.request(OUT, 0, 0x8000), OK);
        assert_eq!(dirty(&machine), 0);
    }
    machine.driver.start(F_FLUSH | F_CONFIG_WCE | INDIRECT);
    assert_eq!(writeback(&mut machine), 1);
    machine.driver.transport.mmio_write(MmioAddress(0), WRITEBACK, &[0]);
    assert_eq!(writeback(&mut machine), 0);
    for _ in 0..5 {
        assert_eq!(machine.request(OUT, 8, 0x8000), OK);
        assert_eq!(machine.ranges(WRITE_ZEROES, &[(64, 64, 0)]), OK);
        assert_eq!(dirty(&machine), 0);
    }
    // A driver without VIRTIO_BLK_F_CONFIG_WCE does not change it.
    machine.driver.start(F_FLUSH | INDIRECT);
    machine.driver.transport.mmio_write(MmioAddress(0), WRITEBACK, &[0]);
    assert_eq!(writeback(&mut machine), 1);
}

/// Set in a process of [`write_until_killed`]: the disk's directory.
pub(crate) const WRITER: &str = "DISK_ENGINES_WRITER";
/// Set in the same process: its engine.
const KIND: &str = "DISK_ENGINES_KIND";

pub(crate) fn flushed_writes_survive_sigkill(engine: EngineKind) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("disk");
    fs::write(&path, vec![0; 1 << 20]).expect("a file");
    let mut writer = Command::new(std::env::current_exe().expect("a path"))
        .env(WRITER, directory.path())
        .env(KIND, engine.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a process");
    let lines = BufReader::new(writer.stdout.take().expect("a pipe")).lines();
    let mut flushed = 0_u32;
    for line in lines {
        flushed = line.expect("text").parse().expect("a number");
        if flushed == 100 {
            writer.kill().expect("SIGKILL");
            break;
        }
    }
    writer.wait().expect("an end");
    assert!(flushed >= 100, "the writer ended after {flushed}");
    let file = File::open(&path).expect("the disk");
    for sector in 0..flushed {
        let mut bytes = [0; 512];
        file.read_exact_at(&mut bytes, 512 * u64::from(sector)).expect("a sector");
        assert_eq!(bytes, [sector as u8 ^ 0x5a; 512], "sector {sector}");
    }
    // The kernel closes the files of a process that used io_uring a moment after its end.
    let until = Instant::now() + Duration::from_secs(20);
    while let Err(error) = Disk::open(&path, WRITABLE) {
        assert!(Instant::now() < until, "the lock is left: {error}");
        sleep(Duration::from_millis(1));
    }
}

/// Writes and flushes one sector after the other, and prints how many it has.
pub(crate) fn write_until_killed(path: &Path) -> ! {
    let engine = match std::env::var(KIND).as_deref() {
        Ok("threads") => EngineKind::Threads,
        _ => EngineKind::IoUring,
    };
    // Nothing removes it here: the process is killed.
    let directory = tempfile::tempdir_in(path).expect("a directory");
    fs::hard_link(path.join("disk"), directory.path().join("disk")).expect("a link");
    let mut machine = Machine::open(directory, WRITABLE, |block| block.engine(engine));
    for sector in 0.. {
        machine.driver.put(Machine::data(0), &[sector as u8 ^ 0x5a; 512]);
        assert_eq!(machine.request(OUT, sector, 512), OK);
        assert_eq!(machine.request(FLUSH, 0, 0), OK);
        println!("{}", sector + 1);
    }
    std::process::exit(1)
}
