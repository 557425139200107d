//! The ledger of poisoned pages in a file, and memory that outlives its process.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use libtest_mimic::Trial;
use rustix::process::Signal;
use serde_json::Value;

use crate::harness::ghest::{GHEST, Outcome};
use crate::harness::needs::Missing;
use crate::harness::{Checked, Ghest, Profile, Scratch, kernels, needs, trials};

pub(crate) fn trials() -> Vec<Trial> {
    trials![
        pages_of_an_earlier_process_are_unusable,
        pages_of_an_earlier_process_are_replaced,
        memory_that_has_ended_is_not_taken_for_poisoned,
        a_kernel_and_an_initrd_are_loaded_elsewhere,
        a_ledger_survives_the_end_of_its_process,
        a_file_that_cannot_be_written_costs_the_guest_nothing,
        files_of_others_are_left_alone,
        memory_in_files_that_cannot_hold_it,
    ]
}

/// A file on tmpfs, which is removed at the end of its test.
struct MemoryFile(PathBuf);

impl MemoryFile {
    fn new() -> Result<Self, Missing> {
        let directory = Path::new("/dev/shm");
        let stat = Command::new("stat").args(["-f", "-c", "%T", "/dev/shm"]).output();
        let is_tmpfs = stat.is_ok_and(|output| output.stdout.starts_with(b"tmpfs"));
        if !is_tmpfs {
            return Err(Missing("a tmpfs at /dev/shm".into()));
        }
        let file = tempfile::Builder::new().prefix("ghest-memory-").tempfile_in(directory);
        let (_, path) = file.expect("a file").keep().expect("a file");
        fs::remove_file(&path).expect("a file");
        Ok(MemoryFile(path))
    }
}

impl Drop for MemoryFile {
    fn drop(&mut self) {
        // An error means that no machine has made it.
        let _ = fs::remove_file(&self.0);
    }
}

/// A machine that keeps its ledger, and its memory if there is a file for it.
fn profile(scratch: &Scratch, memory: Option<&MemoryFile>, boot: &str, ras: &str) -> Profile {
    let memory = memory.map_or(String::new(), |file| {
        format!("[memory]\nbacking = \"memfd\"\npath = \"{}\"\n\n", file.0.display())
    });
    scratch.profile(&format!(
        "[machine]\nname = \"web\"\nmemory = \"64MiB\"\n\n{memory}[boot]\n{boot}\n\n[ras]\nledger = \"ledger\"\n{ras}\n"
    ))
}

fn boot(scratch: &Scratch, profile: &Profile) -> Ghest {
    // Events are appended.
    let _ = fs::remove_file(scratch.path("events"));
    Ghest::boot(profile).arg("--events").arg(scratch.path("events"))
}

fn events(scratch: &Scratch, name: &str) -> Vec<Value> {
    let text = fs::read_to_string(scratch.path("events")).expect("an event file");
    let all = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    all.filter(|event| event["event"] == name).collect()
}

/// The ranges that the guest must not use, as its memory map has them.
fn unusable(guest: &Outcome) -> Vec<String> {
    let memory = guest.probe("memory").into_iter();
    memory.filter_map(|region| Some(region.strip_suffix(" unusable")?.to_owned())).collect()
}

fn saved(scratch: &Scratch) -> Value {
    Ghest::new(["decode", "--json"]).arg(scratch.path("ledger")).finish().expect(0).json()
}

/// A page is poisoned, and the guest, which is notified of it, switches off.
fn poison(scratch: &Scratch, profile: &Profile, gpa: &str) {
    let inject = format!("ao@{gpa},when=probe: awaiting");
    let boot = boot(scratch, profile).set("boot.cmdline=probe.await-errors=1 probe.timeout=20000");
    boot.args(["--inject", &inject]).finish().expect_ok();
}

fn pages_of_an_earlier_process_are_unusable() -> Checked {
    needs::kvm()?;
    let (scratch, memory) = (Scratch::new(), MemoryFile::new()?);
    let profile = profile(&scratch, Some(&memory), "", "repair = \"never\"");
    poison(&scratch, &profile, "0x2000000");
    assert_eq!(events(&scratch, "ledger-read"), [] as [Value; 0], "the file is new");
    let entry = &saved(&scratch)["entries"][0];
    assert_eq!(
        (&entry["gpa"], &entry["span"], &entry["repaired"]),
        (&0x200_0000.into(), &4096.into(), &Value::Null)
    );
    let first_seen = entry["first-seen"].clone();
    for _ in 0..2 {
        let guest = boot(&scratch, &profile).finish().expect_ok();
        assert_eq!(unusable(&guest), ["0x2000000-0x2001000"], "{guest}");
        let read = events(&scratch, "ledger-read");
        assert_eq!((read.len(), &read[0]["applied"], &read[0]["poisoned"]), (1, &true.into(), &4096.into()));
        let ranges = events(&scratch, "unusable");
        assert_eq!(
            (ranges.len(), &ranges[0]["gpa"], &ranges[0]["span"]),
            (1, &0x200_0000.into(), &4096.into())
        );
        assert_eq!(saved(&scratch)["entries"][0]["first-seen"], first_seen);
    }
    let plan = Ghest::new(["plan"]).arg(&profile.path).finish().expect(0).stdout();
    assert!(plan.contains("4096 bytes of this memory are poisoned"), "{plan}");
    // Another name, and a page map of a file of another inode.
    let renamed =
        Ghest::new(["plan"]).arg(&profile.path).args(["--set", "machine.name=db"]).finish().expect(0);
    assert!(renamed.stdout().contains("is not applied: it is of another machine, `web`"), "{renamed}");
    Ok(())
}

fn pages_of_an_earlier_process_are_replaced() -> Checked {
    needs::kvm()?;
    let (scratch, memory) = (Scratch::new(), MemoryFile::new()?);
    let profile = profile(&scratch, Some(&memory), "", "repair = \"never\"");
    poison(&scratch, &profile, "0x2000000");
    let guest = boot(&scratch, &profile).set("ras.repair=on-reset").finish().expect_ok();
    assert_eq!(unusable(&guest), [] as [String; 0], "{guest}");
    assert_eq!((events(&scratch, "repaired").len(), events(&scratch, "unusable").len()), (1, 0));
    assert!(saved(&scratch)["entries"][0]["repaired"].is_u64());
    // It is sound from now on.
    let guest = boot(&scratch, &profile).finish().expect_ok();
    assert_eq!(unusable(&guest), [] as [String; 0], "{guest}");
    Ok(())
}

fn memory_that_has_ended_is_not_taken_for_poisoned() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let profile = profile(&scratch, None, "", "repair = \"never\"");
    poison(&scratch, &profile, "0x2000000");
    let plan = Ghest::new(["plan"]).arg(&profile.path).finish().expect(0).stdout();
    assert!(
        plan.contains("with 4096 poisoned bytes, is not applied: the machine's memory ends with its process"),
        "{plan}"
    );
    let guest = boot(&scratch, &profile).finish().expect_ok();
    assert_eq!(unusable(&guest), [] as [String; 0], "{guest}");
    let read = events(&scratch, "ledger-read");
    assert_eq!((read.len(), &read[0]["applied"]), (1, &false.into()));
    assert!(read[0]["because"].as_str().is_some_and(|it| it.contains("memory.path")), "{read:?}");
    let planned = &events(&scratch, "plan")[0]["notes"];
    assert!(planned.to_string().contains("is not applied"), "{planned}");
    // Its own ledger replaces it.
    assert_eq!(saved(&scratch)["entries"], Value::Array(Vec::new()));
    Ok(())
}

/// A page where the initrd would be, one where a kernel would decompress itself to, and one of the boot parameters.
fn a_kernel_and_an_initrd_are_loaded_elsewhere() -> Checked {
    needs::kvm()?;
    let (scratch, memory) = (Scratch::new(), MemoryFile::new()?);
    let initrd = kernels::pattern(20_000);
    scratch.file("initrd", &initrd);
    scratch.file("kernel", kernels::prints_initrd());
    let profile = profile(&scratch, Some(&memory), "", "repair = \"never\"");
    // The initrd is as high as possible.
    let guest = boot(&scratch, &profile).finish().expect_ok();
    let usable = guest.probe("memory").into_iter().rev().find(|region| region.ends_with(" usable"));
    let end =
        usable.and_then(|region| region.split(['-', ' ']).nth(1)?.strip_prefix("0x").map(str::to_owned));
    let end = u64::from_str_radix(&end.expect("usable memory"), 16).expect("an address");
    poison(&scratch, &profile, &format!("{:#x}", (end - 0x3000) & !0xfff));
    let of_kernel = |kernel: &str| boot(&scratch, &profile).set(&format!("boot.kernel={kernel}"));
    let guest = of_kernel("kernel").set("boot.initrd=initrd").finish().expect(0);
    assert!(guest.stdout == initrd, "{} bytes", guest.stdout.len());

    poison(&scratch, &profile, "0x1000000");
    let header = kernels::valid_header();
    let header = linux_loader::loader::bootparam::setup_header {
        pref_address: 0x100_0000,
        kernel_alignment: 0x20_0000,
        ..header
    };
    scratch.file("fixed", kernels::counts_boots_with(header));
    let movable = linux_loader::loader::bootparam::setup_header { relocatable_kernel: 1, ..header };
    scratch.file("movable", kernels::counts_boots_with(movable));
    assert_eq!(of_kernel("movable").finish().expect(0).stdout(), "0");
    of_kernel("fixed").finish().expect(2).expect_said(&profile.place("repair")).expect_said(
        "the kernel needs memory from 0x100000 to 0x1100000, where the page at 0x1000000 is poisoned and not repaired",
    );
    // An ELF file has its place too: that of the built-in guest is 1 MiB.
    poison(&scratch, &profile, "0x7000");
    let tables = boot(&scratch, &profile).set("boot.protocol=linux").finish().expect(2);
    tables.expect_said("have a fixed place at 0x7000, and the page at 0x7000 is poisoned");
    Ok(())
}

/// kill -9 at any moment: the ledger is complete, and has what was reported a moment before.
fn a_ledger_survives_the_end_of_its_process() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let profile = profile(&scratch, None, "cmdline = \"probe.exit=hang\"", "asynchronous = \"polled\"");
    let socket = scratch.path("control");
    for errors in [3, 20] {
        let mut running = boot(&scratch, &profile).arg("--control").arg(&socket).start();
        running.wait_for("probe: ok");
        let inject = |index: u64| {
            let gpa = format!("{:#x}", 0x200_0000 + index * 0x2000);
            let inject = ["inject", "--gpa", &gpa, "--kind", "ao", "--via", "notice"];
            Ghest::new(["ctl"]).arg(&socket).args(inject).finish().expect(0);
        };
        (0..errors).for_each(inject);
        // The first of them are in the file, or the thread has not had a moment since.
        let deadline = std::time::Instant::now() + crate::harness::ghest::TIME_LIMIT;
        while saved(&scratch)["entries"].as_array().is_none_or(|entries| entries.len() < 2) {
            assert!(std::time::Instant::now() < deadline, "nothing is written");
        }
        running.signal(Signal::KILL);
        running.finish().expect_ended_by(Signal::KILL);
        let ledger = saved(&scratch);
        let entries = ledger["entries"].as_array().expect("a list");
        assert!((2..=errors as usize).contains(&entries.len()), "{ledger}");
    }
    // Neither the lock nor a part of a record is left.
    boot(&scratch, &profile).set("boot.cmdline=").finish().expect_ok();
    Ok(())
}

/// By RLIMIT_FSIZE, as on a full disk.
fn a_file_that_cannot_be_written_costs_the_guest_nothing() -> Checked {
    needs::kvm()?;
    needs::works("prlimit", Command::new("prlimit").arg("--version"))?;
    let scratch = Scratch::new();
    let profile = profile(&scratch, None, "", "");
    poison(&scratch, &profile, "0x2000000");
    let before = saved(&scratch);
    let mut prlimit = Command::new("prlimit");
    prlimit.args(["--fsize=4096", GHEST, "boot"]);
    let guest = Ghest::within(prlimit).arg(&profile.path).arg("-v").finish().expect_ok();
    guest.expect_said("the file of the ledger cannot be written");
    assert_eq!(saved(&scratch), before, "what it had is still there");
    Ok(())
}

fn files_of_others_are_left_alone() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let profile = profile(&scratch, None, "cmdline = \"probe.exit=hang\"", "");
    scratch.file("ledger", "notes");
    let refused = Ghest::boot(&profile).finish().expect(2);
    refused.expect_said(&profile.place("ledger")).expect_said("it is not a ledger of poisoned pages");
    assert_eq!(fs::read(scratch.path("ledger")).expect("a file"), b"notes");
    fs::remove_file(scratch.path("ledger")).expect("a file");
    let mut running = Ghest::boot(&profile).start();
    running.wait_for("probe: ok");
    Ghest::boot(&profile).finish().expect(2).expect_said("another machine has this ledger of poisoned pages");
    running.signal(Signal::TERM);
    running.finish().expect(143);
    // Damaged: said, and replaced.
    let mut bytes = fs::read(scratch.path("ledger")).expect("a ledger");
    bytes.iter_mut().skip(0x1000).for_each(|byte| *byte ^= 0x55);
    scratch.file("ledger", &bytes);
    let decoded = Ghest::new(["decode"]).arg(scratch.path("ledger")).finish().expect(2);
    decoded.expect_said("has none that is complete");
    boot(&scratch, &profile).set("boot.cmdline=").finish().expect_ok();
    assert!(events(&scratch, "ledger-read")[0]["because"].to_string().contains("no complete ledger"));
    let text = Ghest::new(["decode"]).arg(scratch.path("ledger")).finish().expect(0).stdout();
    assert!(text.starts_with("ledger of poisoned pages of the machine web\n"), "{text}");
    Ok(())
}

fn memory_in_files_that_cannot_hold_it() -> Checked {
    needs::kvm()?;
    let (scratch, memory) = (Scratch::new(), MemoryFile::new()?);
    let profile = profile(&scratch, Some(&memory), "cmdline = \"probe.exit=hang\"", "");
    let refused = |boot: Ghest, said: &str| {
        boot.finish().expect(2).expect_said("memory.path").expect_said(said);
    };
    let mut running = Ghest::boot(&profile).start();
    running.wait_for("probe: ok");
    let other = |boot: Ghest| boot.set("ras.ledger=");
    refused(other(Ghest::boot(&profile)), "another machine has this memory (flock(2))");
    running.signal(Signal::TERM);
    running.finish().expect(143);
    refused(Ghest::boot(&profile).set("machine.memory=128MiB"), "the file has 67108864 bytes");
    refused(Ghest::boot(&profile).set("memory.path=/proc/version"), "memory.path");
    refused(Ghest::boot(&profile).set("memory.backing=anonymous"), "anonymous memory is in no file");
    Ok(())
}
