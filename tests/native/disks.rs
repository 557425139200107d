//! Disks: a guest starts with the maximum number, and what is not a disk is refused with its key.

use std::fmt::Write as _;
use std::fs;

use libtest_mimic::Trial;

use crate::harness::{Checked, Ghest, Profile, Scratch, needs, trials};

pub(crate) fn trials() -> Vec<Trial> {
    trials![
        thirteen_disks,
        command_line_of_an_mp_table,
        command_line_that_disks_make_too_long,
        missing_disk,
        disk_is_a_directory,
        disk_of_part_of_a_sector,
        check_opens_no_disk,
        too_many_disks,
    ]
}

fn disks(scratch: &Scratch, firmware: &str, count: usize) -> Profile {
    let mut text = format!("[machine]\nvcpus = 1\nmemory = \"64MiB\"\nfirmware = \"{firmware}\"\n");
    for index in 0..count {
        write!(text, "\n[[device]]\ntype = \"virtio-block\"\npath = \"disk{index}\"\n").expect("a string");
    }
    scratch.profile(&text)
}

fn thirteen_disks() -> Checked {
    needs::kvm()?;
    for firmware in ["acpi", "mptable"] {
        let scratch = Scratch::new();
        for index in 0..13 {
            scratch.file(&format!("disk{index}"), [0x5a; 1024]);
        }
        Ghest::boot(&disks(&scratch, firmware, 13)).finish().expect_ok();
        assert_eq!(fs::read(scratch.path("disk12")).expect("a disk"), [0x5a; 1024]);
    }
    Ok(())
}

fn command_line_of_an_mp_table() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    for disk in ["disk0", "disk1"] {
        scratch.file(disk, []);
    }
    let cmdline = |firmware, line| {
        let profile = disks(&scratch, firmware, 2);
        let outcome = Ghest::boot(&profile).set(&format!("boot.cmdline=\"{line}\"")).finish().expect_ok();
        outcome.probe("cmdline")
    };
    let devices = "virtio_mmio.device=4K@0xd0000000:5 virtio_mmio.device=4K@0xd0001000:10";
    assert_eq!(cmdline("mptable", "quiet"), [format!("\"quiet {devices}\"")]);
    // Linux hands what follows `--` to init.
    assert_eq!(cmdline("mptable", "quiet -- single"), [format!("\"quiet {devices} -- single\"")]);
    assert_eq!(cmdline("acpi", "quiet -- single"), ["\"quiet -- single\""]);
    Ok(())
}

/// The profile's own line fits; with the disks it does not.
fn command_line_that_disks_make_too_long() -> Checked {
    let scratch = Scratch::new();
    for index in 0..13 {
        scratch.file(&format!("disk{index}"), []);
    }
    let profile = disks(&scratch, "mptable", 13);
    let line = |len: usize| format!("boot.cmdline=\"{}\"", "x".repeat(len));
    let what = "the command line has 2167 bytes, of which 467 describe 13 devices, and Linux takes 2047";
    Ghest::new(["check"]).arg(&profile.path).set(&line(1700)).finish().expect(2).expect_said(what);
    Ghest::new(["check"]).arg(&profile.path).set(&line(1580)).finish().expect(0);
    needs::kvm()?;
    Ghest::boot(&profile)
        .set(&line(1700))
        .finish()
        .expect(2)
        .expect_said("remove devices")
        .expect_last(&format!("ghest: the machine cannot start: {what}"));
    Ghest::boot(&profile).set(&line(1580)).finish().expect_ok();
    Ok(())
}

fn missing_disk() -> Checked {
    let scratch = Scratch::new();
    let what = "the disk cannot be opened for writing: No such file or directory (os error 2)";
    refused(&scratch, what, "or write `read-only = true`")
}

fn disk_is_a_directory() -> Checked {
    let scratch = Scratch::new();
    fs::create_dir(scratch.path("disk0")).expect("a new directory");
    refused(&scratch, "a disk is a file or a block device, and this is neither", "a raw disk image")
}

fn disk_of_part_of_a_sector() -> Checked {
    let scratch = Scratch::new();
    scratch.file("disk0", [0; 1000]);
    refused(&scratch, "a disk is a multiple of 512 bytes, and this has 1000", "truncate(1)")
}

fn refused(scratch: &Scratch, what: &str, help: &str) -> Checked {
    needs::kvm()?;
    let profile = disks(scratch, "acpi", 1);
    let what = format!("{}: {what}", scratch.path("disk0").display());
    Ghest::boot(&profile)
        .finish()
        .expect(2)
        .expect_said(&format!("error: {what}\n"))
        .expect_said(&format!("--> {}\n", profile.place("path")))
        .expect_said(help)
        .expect_last(&format!("ghest: the machine cannot start: {what}"));
    Ok(())
}

fn check_opens_no_disk() -> Checked {
    let scratch = Scratch::new();
    Ghest::new(["check"]).arg(&disks(&scratch, "acpi", 1).path).finish().expect(0);
    Ok(())
}

/// An aarch64 machine has 32 slots; the profile's own check knows the 13 of x86_64.
fn too_many_disks() -> Checked {
    let scratch = Scratch::new();
    for (firmware, arch, most, status) in [("devicetree", "aarch64", 32, 3), ("mptable", "x86_64", 13, 2)] {
        let plan =
            |count| Ghest::new(["plan", "--arch", arch]).arg(&disks(&scratch, firmware, count).path).finish();
        plan(most).expect(0);
        plan(most + 1).expect(status).expect_said(&format!("device.{most}"));
    }
    Ok(())
}
