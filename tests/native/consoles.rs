//! The sockets of virtio-console, from the start of a machine to its end, and the size of its console.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixListener, UnixStream};

use libtest_mimic::Trial;
use serde_json::Value;

use crate::harness::ghest::Running;
use crate::harness::{Checked, Ghest, Profile, Scratch, needs, trials};

pub(crate) fn trials() -> Vec<Trial> {
    trials![
        sockets_are_of_one_machine_and_are_removed_at_its_end,
        a_socket_that_is_in_use_is_refused,
        the_size_of_the_only_console,
        the_size_of_one_of_several_consoles,
        a_machine_without_a_console_has_no_size,
    ]
}

const CONSOLE: &str = "\n[[device]]\ntype = \"virtio-console\"\nsocket = \"console\"\n";
const PORTS: &str =
    "\n[[device]]\ntype = \"virtio-console\"\nports = { agent = \"agent\", other = \"other\" }\n";
const SOCKETS: [&str; 3] = ["console", "agent", "other"];

fn machine(scratch: &Scratch, devices: &str) -> Profile {
    scratch.profile(&format!(
        "[machine]\nvcpus = 1\nmemory = \"64MiB\"\nfirmware = \"acpi\"\n\n[boot]\ncmdline = \"probe.exit=hang\"\n{devices}"
    ))
}

fn start(scratch: &Scratch, devices: &str) -> Running {
    let mut running =
        Ghest::boot(&machine(scratch, devices)).arg("--control").arg(scratch.path("control")).start();
    running.wait_for("probe: ok");
    running
}

fn ctl(scratch: &Scratch, words: &[&str], status: i32) -> Value {
    let ctl = Ghest::new(["ctl", "--timeout", "20s"]).arg(scratch.path("control")).args(words);
    ctl.finish().expect(status).json()
}

fn sockets_are_of_one_machine_and_are_removed_at_its_end() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let running = start(&scratch, &format!("{CONSOLE}{PORTS}"));
    let mode = |socket| fs::symlink_metadata(scratch.path(socket)).expect("a socket").mode() & 0o777;
    assert_eq!(SOCKETS.map(mode), [0o600; 3]);
    let _clients = SOCKETS.map(|socket| UnixStream::connect(scratch.path(socket)).expect("ghest listens"));
    ctl(&scratch, &["stop"], 0);
    running.finish().expect(0);
    assert!(
        SOCKETS.iter().all(|socket| fs::symlink_metadata(scratch.path(socket)).is_err()),
        "a socket is left"
    );
    Ok(())
}

fn a_socket_that_is_in_use_is_refused() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let profile = machine(&scratch, &format!("{CONSOLE}{PORTS}"));
    for (socket, key) in [("console", "socket"), ("other", "ports")] {
        let _listener = UnixListener::bind(scratch.path(socket)).expect("a socket");
        let what = format!(
            "{}: another process listens there: stop it, or choose another path",
            scratch.path(socket).display()
        );
        Ghest::boot(&profile)
            .finish()
            .expect(2)
            .expect_said(&profile.place(key))
            .expect_last(&format!("ghest: the machine cannot start: {what}"));
        fs::remove_file(scratch.path(socket)).expect("still there");
        assert!(SOCKETS.iter().all(|socket| !scratch.path(socket).exists()), "a socket is left");
    }
    Ok(())
}

fn the_size_of_the_only_console() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let running = start(&scratch, &format!("{PORTS}{CONSOLE}"));
    assert_eq!(ctl(&scratch, &["console-size", "132", "43"], 0)["state"], "running");
    ctl(&scratch, &["console-size", "80", "25", "--device", "1"], 0);
    let response = ctl(&scratch, &["console-size", "80", "25", "--device", "0"], 1);
    assert_eq!(response["error"], "device 0 is no console with a size: choose 1");
    Ghest::new(["ctl"]).arg(scratch.path("control")).args(["console-size", "80", "0"]).finish().expect(2);
    ctl(&scratch, &["stop"], 0);
    running.finish().expect(0);
    Ok(())
}

fn the_size_of_one_of_several_consoles() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let second = CONSOLE.replace("\"console\"", "\"second\"");
    let running = start(&scratch, &format!("{CONSOLE}{PORTS}{second}"));
    let response = ctl(&scratch, &["console-size", "80", "25"], 1);
    assert_eq!(response["error"], "this machine has several consoles: choose one by `device`, 0 or 2");
    ctl(&scratch, &["console-size", "80", "25", "--device", "2"], 0);
    ctl(&scratch, &["stop"], 0);
    running.finish().expect(0);
    Ok(())
}

fn a_machine_without_a_console_has_no_size() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let running = start(&scratch, PORTS);
    let response = ctl(&scratch, &["console-size", "80", "25"], 1);
    let error = "this machine has no console with a size: a `[[device]]` of type `virtio-console` with a `socket` in its \
                 profile adds one";
    assert_eq!(response["error"], error);
    ctl(&scratch, &["stop"], 0);
    running.finish().expect(0);
    Ok(())
}
