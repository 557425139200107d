//! Disks: a guest starts with the maximum number, and what is not a disk is refused with its key.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, symlink};
use std::path::Path;
use std::process::Command;

use libtest_mimic::Trial;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::Signal;

use crate::harness::needs::Missing;
use crate::harness::{Checked, Ghest, Profile, Scratch, needs, trials};

pub(crate) fn trials() -> Vec<Trial> {
    trials![
        thirteen_disks,
        command_line_of_an_mp_table,
        command_line_that_disks_make_too_long,
        missing_disk,
        disk_is_a_directory,
        disk_of_part_of_a_sector,
        missing_disks_pass_the_check,
        too_many_disks,
        two_machines_cannot_write_one_disk,
        a_disk_stays_locked_across_resets,
        a_disk_by_two_paths_in_one_machine,
        a_block_device_is_written_by_one_machine,
        images_of_other_formats,
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

/// The profile may be meant for another host.
fn missing_disks_pass_the_check() -> Checked {
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

/// A machine with a disk by this path, in a profile of this name.
fn with_disk(scratch: &Scratch, name: &str, path: &str, more: &str) -> Profile {
    let text = format!(
        "[machine]\nvcpus = 1\nmemory = \"64MiB\"\nfirmware = \"acpi\"\n\n[boot]\ncmdline = \"probe.exit=hang\"\n\n\
         [[device]]\ntype = \"virtio-block\"\npath = \"{path}\"\n{more}\n"
    );
    Profile { path: scratch.file(name, &text), text }
}

fn two_machines_cannot_write_one_disk() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    scratch.file("disk", [0; 1024]);
    symlink(scratch.path("disk"), scratch.path("link")).expect("a link");
    let boot = |name: &str, path: &str, more: &str| {
        let mut running = Ghest::boot(&with_disk(&scratch, name, path, more)).start();
        running.wait_for("probe: ok");
        running
    };
    let end = |running: crate::harness::ghest::Running| {
        running.signal(Signal::TERM);
        running.finish().expect(143);
    };
    let refused = |path: &str, more: &str, why: &str| {
        let profile = with_disk(&scratch, "second.toml", path, more);
        let what =
            format!("{}: the disk is in use: {why} (fcntl(2), F_OFD_SETLK)", scratch.path(path).display());
        Ghest::boot(&profile)
            .finish()
            .expect(2)
            .expect_said(&profile.place("path"))
            .expect_said("end the machine that uses it")
            .expect_last(&format!("ghest: the machine cannot start: {what}"));
        // A running machine is no problem of a profile.
        Ghest::new(["check"]).arg(&profile.path).finish().expect(0);
    };
    let writer = boot("first.toml", "disk", "");
    refused("disk", "", "another program has locked it");
    refused("link", "", "another program has locked it");
    refused("link", "read-only = true", "another program has locked it for writing");
    end(writer);
    let readers = ["first.toml", "third.toml"].map(|name| boot(name, "disk", "read-only = true"));
    refused("link", "", "another program has locked it");
    readers.into_iter().for_each(end);
    end(boot("first.toml", "link", ""));
    Ok(())
}

/// The second machine is refused at every moment of the first one's resets.
fn a_disk_stays_locked_across_resets() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    scratch.file("disk", [0; 1024]);
    let profile = with_disk(&scratch, "first.toml", "disk", "");
    let reboots = ["machine.on-reboot=restart", "boot.cmdline=probe.exit=reset"];
    let mut running = Ghest::boot(&profile).set(reboots[0]).set(reboots[1]).start();
    running.wait_for("probe: ok");
    for _ in 0..20 {
        let second = with_disk(&scratch, "second.toml", "disk", "");
        Ghest::boot(&second).finish().expect(2).expect_said("the disk is in use");
    }
    running.wait_for_times("probe: ok", 3);
    running.signal(Signal::TERM);
    running.finish().expect(143);
    Ok(())
}

fn a_disk_by_two_paths_in_one_machine() -> Checked {
    let scratch = Scratch::new();
    fs::create_dir(scratch.path("real")).expect("a new directory");
    scratch.file("real/disk", [0; 1024]);
    symlink(scratch.path("real"), scratch.path("directory")).expect("a link");
    symlink("real/disk", scratch.path("soft")).expect("a link");
    fs::hard_link(scratch.path("real/disk"), scratch.path("hard")).expect("a link");
    for other in ["directory/disk", "soft", "hard"] {
        let second = format!("[[device]]\ntype = \"virtio-block\"\npath = \"{other}\"\nread-only = true\n");
        let profile = with_disk(&scratch, "machine.toml", "real/disk", &second);
        let why = format!("`device.1.path` cannot be `\"{other}\"`: another device uses that file");
        for command in ["check", "boot"] {
            let outcome = Ghest::new([command]).arg(&profile.path).finish().expect(2);
            outcome.expect_said(&why).expect_said("machine.toml:14:8\n");
        }
        // Both may read it.
        Ghest::new(["check"]).arg(&profile.path).set("device.0.read-only=true").finish().expect(0);
    }
    Ok(())
}

/// A loop device of an image, detached when this is dropped.
struct LoopDevice(String);

impl LoopDevice {
    fn new(image: &Path) -> Result<Self, Missing> {
        needs::root()?;
        let output = Command::new("losetup").args(["--find", "--show"]).arg(image).output();
        match output {
            Ok(output) if output.status.success() => {
                Ok(LoopDevice(String::from_utf8(output.stdout).expect("a path").trim().to_owned()))
            }
            Ok(output) => Err(Missing(format!("loop devices: {}", String::from_utf8_lossy(&output.stderr)))),
            Err(error) => Err(Missing(format!("losetup(8): {error}"))),
        }
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        let _ = Command::new("losetup").args(["--detach", &self.0]).status();
    }
}

/// By whatever node, and not while the host uses it.
fn a_block_device_is_written_by_one_machine() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    scratch.file("image", [0; 4096]);
    let device = LoopDevice::new(&scratch.path("image"))?;
    let number = fs::metadata(&device.0).expect("a device").rdev();
    let node = scratch.path("node");
    let (mode, kind) = (Mode::RUSR | Mode::WUSR, FileType::BlockDevice);
    mknodat(CWD, &node, kind, mode, number).expect("mknod(2)");
    let node = node.display().to_string();

    let in_use = |profile: &Profile, path: &str| {
        Ghest::boot(profile)
            .finish()
            .expect(2)
            .expect_said(&profile.place("path"))
            .expect_said("unmount it")
            .expect_last(&format!(
                "ghest: the machine cannot start: {path}: the block device is in use: it is mounted, part of another device, or \
                 open in another machine (open(2), O_EXCL)"
            ));
    };
    let mut first = Ghest::boot(&with_disk(&scratch, "first.toml", &device.0, "")).start();
    first.wait_for("probe: ok");
    for path in [&device.0, &node] {
        in_use(&with_disk(&scratch, "second.toml", path, ""), path);
    }
    first.signal(Signal::TERM);
    first.finish().expect(143);

    // The host uses a device by the same flag.
    let mount = File::options().read(true).custom_flags(libc::O_EXCL).open(&device.0).expect("a device");
    in_use(&with_disk(&scratch, "second.toml", &node, ""), &node);
    let reader = with_disk(&scratch, "reader.toml", &node, "read-only = true");
    Ghest::boot(&reader).set("boot.cmdline=").finish().expect_ok();
    drop(mount);

    // Two nodes in one machine.
    let second = format!("[[device]]\ntype = \"virtio-block\"\npath = \"{node}\"\n");
    let both = with_disk(&scratch, "both.toml", &device.0, &second);
    Ghest::new(["check"]).arg(&both.path).finish().expect(2).expect_said("another device uses that file");
    Ok(())
}

fn images_of_other_formats() -> Checked {
    let scratch = Scratch::new();
    let mut image = [0; 1024];
    image[..4].copy_from_slice(b"QFI\xfb");
    scratch.file("disk", image);
    let profile = with_disk(&scratch, "machine.toml", "disk", "");
    let what = format!(
        "{}: the file has the signature of a qcow2 image, and a disk is read as raw bytes",
        scratch.path("disk").display()
    );
    let check = || Ghest::new(["check"]).arg(&profile.path);
    check()
        .finish()
        .expect(2)
        .expect_said(&what)
        .expect_said(&profile.place("path"))
        .expect_said("format = \"raw\"");
    check().set("device.0.format=raw").finish().expect(0);
    check().set("device.0.format=qcow2").finish().expect(2).expect_said("write \"raw\"");
    needs::kvm()?;
    Ghest::boot(&profile).finish().expect(2).expect_last(&format!("ghest: the machine cannot start: {what}"));
    Ghest::boot(&profile).set("device.0.format=raw").set("boot.cmdline=").finish().expect_ok();
    Ok(())
}
