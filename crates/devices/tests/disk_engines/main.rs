//! A disk by each of its engines: many requests in flight, resets, durability, discards, direct access, several queues and
//! limits.
//!
//! A test whose requirements the host lacks is reported as ignored.

#[path = "../virtio/driver.rs"]
#[allow(dead_code, reason = "these tests use a part of it")]
mod driver;

mod discards;
mod durability;
mod machine;
mod queues;
mod transfers;

use std::fs::{self, File};
use std::path::Path;

use devices::virtio_block::{Disk, DiskError, DiskOptions, EngineKind};
use libtest_mimic::{Arguments, Failed, Trial};

use discards::*;
use driver::WRITABLE;
use durability::*;
use machine::cachestat;
use queues::*;
use transfers::*;

fn main() {
    if let Some(path) = std::env::var_os(WRITER) {
        write_until_killed(path.as_ref());
    }
    let is_uring_missing = EngineKind::of_this_host() != EngineKind::IoUring;
    let (no_direct, no_cachestat) = (!has_direct(), !has_cachestat());
    type Test = (&'static str, fn(EngineKind), bool);
    let tests: [Test; 11] = [
        ("requests_in_flight", requests_in_flight, false),
        ("direct_requests_in_flight", direct_requests_in_flight, no_direct),
        (
            "direct_access_leaves_the_page_cache_alone",
            direct_access_leaves_the_page_cache_alone,
            no_direct || no_cachestat,
        ),
        ("a_request_of_many_operations", a_request_of_many_operations, false),
        ("nothing_happens_after_a_reset", nothing_happens_after_a_reset, false),
        ("flushed_writes_are_on_stable_storage", flushed_writes_are_on_stable_storage, no_cachestat),
        ("flushed_writes_survive_sigkill", flushed_writes_survive_sigkill, false),
        ("discards_are_holes", discards_are_holes, false),
        (
            "zeroes_without_the_file_systems_help",
            zeroes_without_the_file_systems_help,
            !Path::new(SHM).is_dir(),
        ),
        ("several_queues", several_queues, false),
        ("requests_wait_for_the_rate_limit", requests_wait_for_the_rate_limit, false),
    ];
    for (name, ..) in tests.iter().filter(|(.., is_ignored)| *is_ignored) {
        eprintln!("*** NOT TESTED: {name}: this machine lacks direct access, cachestat(2) or {SHM} ***");
    }
    if is_uring_missing {
        eprintln!("*** NOT TESTED: the engine of io_uring: this machine lacks or forbids it ***");
    }
    let trials = [(EngineKind::IoUring, is_uring_missing), (EngineKind::Threads, false)]
        .into_iter()
        .flat_map(|(engine, is_missing)| tests.map(|test| (engine, is_missing, test)))
        .map(|(engine, is_missing, (name, test, is_ignored))| {
            let run = move || -> Result<(), Failed> {
                test(engine);
                Ok(())
            };
            Trial::test(format!("{name}_by_{engine}"), run).with_ignored_flag(is_missing || is_ignored)
        })
        .collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

fn has_direct() -> bool {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("disk");
    fs::write(&path, [0; 4096]).expect("a file");
    match Disk::open(&path, DiskOptions { direct: true, ..WRITABLE }) {
        Ok(_) => true,
        Err(DiskError::NoDirect { .. }) => false,
        Err(error) => panic!("{error}"),
    }
}

/// Whether the pages of a file that the host has cached, and those that it has to write, can be counted.
fn has_cachestat() -> bool {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("file");
    fs::write(&path, [1; 4096]).expect("a file");
    File::open(&path).expect("a file").sync_all().expect("fsync(2)");
    cachestat(&path).is_some_and(|pages| pages.dirty == 0)
}
