//! The socket of virtio-vsock: its file, from the start of a machine to its end.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixListener, UnixStream};

use libtest_mimic::Trial;
use rustix::process::Signal;

use crate::harness::{Checked, Ghest, Profile, Scratch, needs, trials};

pub(crate) fn trials() -> Vec<Trial> {
    trials![
        a_socket_is_of_one_machine_and_is_removed_at_its_end,
        a_socket_is_kept_across_resets,
        what_is_not_a_stale_socket_is_left_alone,
    ]
}

fn machine(scratch: &Scratch, name: &str, more: &str) -> Profile {
    let text = format!(
        "[machine]\nvcpus = 1\nmemory = \"64MiB\"\nfirmware = \"acpi\"\n\n[boot]\ncmdline = \"probe.exit=hang\"\n\n\
         [[device]]\ntype = \"virtio-vsock\"\ncid = 3\nsocket = \"vsock\"\n{more}"
    );
    Profile { path: scratch.file(name, &text), text }
}

fn refused(scratch: &Scratch, why: &str) {
    let profile = machine(scratch, "second.toml", "");
    let what = format!("{}: {why}", scratch.path("vsock").display());
    Ghest::boot(&profile)
        .finish()
        .expect(2)
        .expect_said(&profile.place("socket"))
        .expect_last(&format!("ghest: the machine cannot start: {what}"));
}

fn a_socket_is_of_one_machine_and_is_removed_at_its_end() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    // Left behind by a machine that was killed.
    drop(UnixListener::bind(scratch.path("vsock")).expect("a socket"));
    let mut running = Ghest::boot(&machine(&scratch, "first.toml", "")).start();
    running.wait_for("probe: ok");
    let file = fs::symlink_metadata(scratch.path("vsock")).expect("a socket");
    assert_eq!(file.mode() & 0o777, 0o600);
    UnixStream::connect(scratch.path("vsock")).expect("ghest listens");
    refused(&scratch, "another process listens there: stop it, or choose another path");
    running.signal(Signal::TERM);
    running.finish().expect(143);
    assert!(fs::symlink_metadata(scratch.path("vsock")).is_err(), "the socket is left");
    Ghest::boot(&machine(&scratch, "first.toml", "")).set("boot.cmdline=").finish().expect_ok();
    assert!(fs::symlink_metadata(scratch.path("vsock")).is_err(), "the socket is left");
    Ok(())
}

fn a_socket_is_kept_across_resets() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let reboots = ["machine.on-reboot=restart", "boot.cmdline=probe.exit=reset"];
    let profile = machine(&scratch, "first.toml", "");
    let mut running = Ghest::boot(&profile).set(reboots[0]).set(reboots[1]).start();
    running.wait_for("probe: ok");
    let inode = || fs::symlink_metadata(scratch.path("vsock")).expect("a socket").ino();
    let first = inode();
    running.wait_for_times("probe: ok", 3);
    assert_eq!(inode(), first);
    running.signal(Signal::TERM);
    running.finish().expect(143);
    Ok(())
}

fn what_is_not_a_stale_socket_is_left_alone() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    scratch.file("vsock", "data");
    refused(&scratch, "a file is there that is not a socket: remove it, or choose another path");
    assert_eq!(fs::read_to_string(scratch.path("vsock")).expect("still there"), "data");
    fs::remove_file(scratch.path("vsock")).expect("removed");
    let _listener = UnixListener::bind(scratch.path("vsock")).expect("a socket");
    refused(&scratch, "another process listens there: stop it, or choose another path");
    UnixStream::connect(scratch.path("vsock")).expect("still there");
    Ok(())
}
