//! Networks: what a profile may name, and what the host lacks for it. Guests that use them are those of the lab.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use rustix::process::Signal;

use crate::harness::{Checked, Ghest, Profile, Scratch, needs, trials};

pub(crate) fn trials() -> Vec<Trial> {
    trials![
        missing_tap,
        interface_that_is_no_tap,
        taps_of_another_kind,
        missing_vhost_net,
        descriptor_that_is_not_open,
        missing_passt,
        passt_that_cannot_start,
        passt_ends_with_the_machine,
        socket_that_refuses,
        networks_that_the_host_lacks_pass_the_check,
    ]
}

/// A machine with networks of these keys, whose guest stays.
fn machine(scratch: &Scratch, networks: &[&str]) -> Profile {
    let devices: String =
        networks.iter().map(|keys| format!("\n[[device]]\ntype = \"virtio-net\"\n{keys}\n")).collect();
    scratch.profile(&format!(
        "[machine]\nvcpus = 1\nmemory = \"64MiB\"\nfirmware = \"acpi\"\n\n[boot]\ncmdline = \"probe.exit=hang\"\n{devices}"
    ))
}

/// The machine does not start, because of this key.
fn refused(boot: Ghest, profile: &Profile, key: &str, what: &str, help: &str) {
    boot.finish()
        .expect(2)
        .expect_said(&format!("--> {}\n", profile.place(key)))
        .expect_said(help)
        .expect_last(&format!("ghest: the machine cannot start: {what}"));
}

fn missing_tap() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let profile = machine(&scratch, &["tap = \"ghest-none0\""]);
    let what = "this host has no network interface ghest-none0";
    refused(Ghest::boot(&profile), &profile, "tap", what, "`ip tuntap add ghest-none0 mode tap user $USER`");
    Ok(())
}

fn interface_that_is_no_tap() -> Checked {
    let scratch = Scratch::new();
    let profile = machine(&scratch, &["tap = \"lo\""]);
    let what = "lo is a network interface, but not a tap";
    let checked = Ghest::new(["check"]).arg(&profile.path).finish().expect(2);
    checked.expect_said(what).expect_said(&profile.place("tap"));
    Ok(())
}

/// `ghest boot` in a network namespace with interfaces of its own.
fn with_interfaces(commands: &str, profile: &Profile) -> Ghest {
    let mut command = Command::new("unshare");
    let script = format!("mount -t sysfs sysfs /sys && {commands} && exec \"$@\"");
    command.args(["--net", "--mount", "sh", "-ec", &script, "sh", crate::harness::ghest::GHEST, "boot"]);
    Ghest::within(command).arg(&profile.path)
}

fn taps_of_another_kind() -> Checked {
    needs::kvm()?;
    needs::mounts()?;
    let add = "ip tuntap add tap0 mode tap";
    let mut probe = Command::new("unshare");
    needs::works("network namespaces with taps", probe.args(["--net", "sh", "-c", add]))?;
    let scratch = Scratch::new();
    let profile = machine(&scratch, &["tap = \"tap0\""]);
    let mut running = with_interfaces(add, &profile).start();
    running.wait_for("probe: ok");
    running.signal(Signal::TERM);
    running.finish().expect(143);
    // One queue of several is enough.
    let multi = format!("{add} multi_queue");
    let mut running = with_interfaces(&multi, &profile).start();
    running.wait_for("probe: ok");
    running.signal(Signal::TERM);
    running.finish().expect(143);

    let tun = with_interfaces("ip tuntap add tap0 mode tun", &profile);
    refused(tun, &profile, "tap", "tap0 is a network interface, but not a tap", "`ip tuntap list`");

    let profile = machine(&scratch, &["queues = 2\ntap = \"tap0\""]);
    let help = "`ip tuntap add tap0 mode tap multi_queue user $USER`, or remove `queues`";
    refused(with_interfaces(add, &profile), &profile, "tap", "tap0 is a tap with one queue", help);
    let mut running = with_interfaces(&multi, &profile).start();
    running.wait_for("probe: ok");
    running.signal(Signal::TERM);
    running.finish().expect(143);

    let profile = machine(&scratch, &["mtu = 1400\ntap = \"tap0\"", "tap = \"tap0\""]);
    let outcome = with_interfaces(add, &profile).finish().expect(2);
    outcome
        .expect_said("device.1.tap")
        .expect_last("ghest: the machine cannot start: tap0 is in use by another program (TUNSETIFF)");
    Ok(())
}

/// A host that has it gets a file in its place that is not one.
fn missing_vhost_net() -> Checked {
    needs::kvm()?;
    needs::mounts()?;
    let add = "ip tuntap add tap0 mode tap";
    let mut probe = Command::new("unshare");
    needs::works("network namespaces with taps", probe.args(["--net", "sh", "-c", add]))?;
    let scratch = Scratch::new();
    let profile = machine(&scratch, &["vhost = true\ntap = \"tap0\""]);
    let device = Path::new("/dev/vhost-net");
    if device.exists() {
        let boot =
            with_interfaces(&format!("{add} && mount --bind /dev/null {}", device.display()), &profile);
        let what = "/dev/vhost-net: VHOST_GET_FEATURES: failure in vhost ioctl: Inappropriate ioctl for device (os error 25)";
        refused(boot, &profile, "vhost", what, "remove `vhost`");
    } else {
        let what = "/dev/vhost-net: No such file or directory (os error 2)";
        refused(with_interfaces(add, &profile), &profile, "vhost", what, "`modprobe vhost_net`");
    }
    Ok(())
}

fn descriptor_that_is_not_open() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let profile = machine(&scratch, &["fd = 999"]);
    let what = "descriptor 999 cannot be taken over (pidfd_getfd(2)): Bad file descriptor (os error 9)";
    refused(Ghest::boot(&profile), &profile, "fd", what, "without FD_CLOEXEC");
    Ok(())
}

/// A directory with a `passt` that is this script.
fn fake_passt(scratch: &Scratch, script: &str) -> PathBuf {
    fs::create_dir_all(scratch.path("bin")).expect("a directory");
    let path = scratch.file("bin/passt", format!("#!/bin/sh\n{script}\n"));
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("a file of ours");
    scratch.path("bin")
}

fn boot_with_path(profile: &Profile, path: &str) -> Ghest {
    Ghest::boot(profile).env("PATH", path)
}

fn missing_passt() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let profile = machine(&scratch, &["passt = true"]);
    let boot = boot_with_path(&profile, &scratch.path("none").to_string_lossy());
    refused(boot, &profile, "passt", "this host has no program passt", "`apt install passt`");
    Ok(())
}

fn passt_that_cannot_start() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let profile = machine(&scratch, &["passt = true"]);
    let directory = fake_passt(&scratch, "echo External interface not usable >&2\nexit 1");
    let boot = boot_with_path(&profile, &format!("{}:/bin:/usr/bin", directory.display()));
    refused(boot, &profile, "passt", "passt has ended: External interface not usable", "a default route");
    Ok(())
}

/// Also if the machine is killed: passt ends when its socket is closed, as `cat` does here.
fn passt_ends_with_the_machine() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let profile = machine(&scratch, &["passt = true\nmtu = 9000"]);
    let (arguments, descriptors) = (scratch.path("arguments"), scratch.path("descriptors"));
    let script = format!(
        "echo \"$*\" >{}\nls -l /proc/$$/fd >{}\necho $$\nwhile [ \"$1\" != --fd ]; do shift; done\n\
         exec bash -c \"exec cat <&$2 >/dev/null\"",
        arguments.display(),
        descriptors.display()
    );
    let directory = fake_passt(&scratch, &script);
    for signal in [Signal::TERM, Signal::KILL] {
        let path = format!("{}:/bin:/usr/bin", directory.display());
        let mut running = boot_with_path(&profile, &path).start();
        running.wait_for("probe: ok");
        let children = children(running.pid());
        assert_eq!(children.len(), 1, "{children:?}");
        let descriptors = fs::read_to_string(&descriptors).expect("a list");
        assert!(!descriptors.contains("anon_inode") && !descriptors.contains("/dev/kvm"), "{descriptors}");
        running.signal(signal);
        let outcome = running.finish();
        if signal == Signal::TERM {
            outcome.expect(143);
        }
        let deadline = Instant::now() + Duration::from_secs(20);
        while children.iter().any(|child| is_cat(*child)) {
            assert!(Instant::now() < deadline, "{signal:?}: passt is still running");
            thread::sleep(Duration::from_millis(1));
        }
    }
    let arguments = fs::read_to_string(arguments).expect("passt was started");
    let (before, after) = arguments.split_once("--fd ").expect("a descriptor");
    assert_eq!(before, "--foreground --quiet --pid /proc/self/fd/1 ");
    let (descriptor, after) = after.split_once(' ').expect("more arguments");
    // passt of Debian 13 closes the standard streams above it.
    assert!(descriptor.parse::<u32>().is_ok_and(|descriptor| descriptor > 2), "{arguments}");
    assert_eq!(after, "--mtu 9000\n");
    Ok(())
}

fn children(parent: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{parent}/task")).expect("a process");
    let children =
        tasks.flatten().map(|task| fs::read_to_string(task.path().join("children")).unwrap_or_default());
    children
        .flat_map(|line| {
            line.split_whitespace().map(|pid| pid.parse().expect("a number")).collect::<Vec<_>>()
        })
        .collect()
}

fn is_cat(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "cat\n")
}

fn socket_that_refuses() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let profile = machine(&scratch, &["socket = \"passt.socket\""]);
    let path = scratch.path("passt.socket");
    let what =
        |error: &str| format!("{}: there is no connection to passt: connect(2): {error}", path.display());
    let help = format!("`passt --socket {}`", path.display());
    let boot = || Ghest::boot(&profile);
    refused(boot(), &profile, "socket", &what("No such file or directory (os error 2)"), &help);
    drop(UnixListener::bind(&path).expect("a socket"));
    refused(boot(), &profile, "socket", &what("Connection refused (os error 111)"), &help);
    fs::remove_file(&path).expect("a socket of ours");
    scratch.file("passt.socket", []);
    Ghest::new(["check"]).arg(&profile.path).finish().expect(2).expect_said("this is not a socket");
    Ok(())
}

/// The profile may be meant for another host.
fn networks_that_the_host_lacks_pass_the_check() -> Checked {
    let scratch = Scratch::new();
    for keys in [
        "tap = \"ghest-none0\"",
        "fd = 999",
        "passt = true",
        "socket = \"passt.socket\"",
        "tap = \"ghest-none0\"\nvhost = true",
    ] {
        let check = Ghest::new(["check"]).arg(&machine(&scratch, &[keys]).path).env("PATH", "/none");
        check.finish().expect(0);
    }
    Ok(())
}
