//! The control socket of a running machine: with hostile clients, and its file.

use std::fs;
use std::io::{BufRead, BufReader, Lines, Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::process::Command;
use std::time::Duration;

use libtest_mimic::Trial;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with,
};
use rustix::process::Signal;
use serde_json::Value;

use crate::harness::ghest::{GHEST, Running, TIME_LIMIT};
use crate::harness::{Checked, Ghest, Profile, Scratch, kernels, needs, trials};

pub(crate) fn trials() -> Vec<Trial> {
    trials![
        silent_clients,
        more_clients_than_descriptors,
        clients_that_send_a_byte_now_and_then,
        a_client_that_has_gone,
        many_requests_on_a_connection,
        invalid_requests,
        machines_without_a_balloon_or_with_several,
        pause_while_the_machine_is_reset,
        clients_across_resets,
        mode_under_every_umask,
        a_datagram_socket_is_left,
        a_full_backlog,
        starts_at_the_same_time,
        a_socket_of_another_process_is_left,
        a_start_that_fails_leaves_no_socket,
        no_machine,
    ]
}

/// A machine that runs until it is stopped, and listens at `control`.
fn machine(scratch: &Scratch) -> Running {
    let mut running = boot(&scratch.machine("cmdline = \"probe.exit=hang\""), scratch).start();
    running.wait_for("probe: ok");
    running
}

fn boot(profile: &Profile, scratch: &Scratch) -> Ghest {
    Ghest::boot(profile).arg("--control").arg(scratch.path("control"))
}

/// `ghest ctl`, with a timeout that is far longer than any response takes.
fn ctl(scratch: &Scratch, command: &str, status: i32) -> Value {
    let ctl = Ghest::new(["ctl", "--timeout", "20s"]).arg(scratch.path("control"));
    ctl.arg(command).finish().expect(status).json()
}

/// A client that has read nothing yet.
fn client(scratch: &Scratch) -> UnixStream {
    let stream = UnixStream::connect(scratch.path("control")).expect("listens");
    stream.set_read_timeout(Some(TIME_LIMIT)).expect("a socket");
    stream
}

/// The responses to a client, behind the greeting.
fn responses(client: &UnixStream) -> Lines<BufReader<&UnixStream>> {
    let mut lines = BufReader::new(client).lines();
    let greeting = lines.next().expect("a greeting").expect("a greeting");
    assert!(greeting.starts_with("{\"version\":1,"), "{greeting}");
    lines
}

fn stop(scratch: &Scratch, running: Running) {
    ctl(scratch, "stop", 0);
    running.finish().expect(0).expect_last("ghest: stopped by the control socket");
    assert!(fs::symlink_metadata(scratch.path("control")).is_err(), "the socket is left");
}

/// The command is for one balloon of a machine.
fn machines_without_a_balloon_or_with_several() -> Checked {
    needs::kvm()?;
    let section = "[[device]]\ntype = \"virtio-balloon\"\n";
    for (balloons, reason) in [
        (0, "this machine has no balloon: a `[[device]]` of type `virtio-balloon` in its profile adds one"),
        (2, "this machine has several balloons: choose one by `device`, 0 or 1"),
    ] {
        let scratch = Scratch::new();
        let profile = format!("cmdline = \"probe.exit=hang\"\n\n{}", section.repeat(balloons));
        let mut running = boot(&scratch.machine(&profile), &scratch).start();
        running.wait_for("probe: ok");
        assert_eq!(ctl(&scratch, "balloon", 1)["error"], reason);
        if balloons > 1 {
            let ctl = Ghest::new(["ctl"]).arg(scratch.path("control")).args(["balloon", "--device", "1"]);
            assert_eq!(ctl.finish().expect(0).json()["target"], 0);
        }
        stop(&scratch, running);
    }
    Ok(())
}

fn silent_clients() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let running = machine(&scratch);
    let silent: Vec<_> = (0..200).map(|_| client(&scratch)).collect();
    assert_eq!(ctl(&scratch, "status", 0)["state"], "running");
    stop(&scratch, running);
    drop(silent);
    Ok(())
}

/// accept(2) fails before the limit of clients is reached: the process does not spin, and new clients are served.
fn more_clients_than_descriptors() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let mut shell = Command::new("sh");
    shell.args(["-c", "ulimit -n 48; exec \"$0\" \"$@\"", GHEST, "boot"]);
    let profile = scratch.machine("cmdline = \"probe.exit=hang\"");
    let boot = Ghest::within(shell).arg(&profile.path).arg("--control").arg(scratch.path("control"));
    let mut running = boot.start();
    running.wait_for("probe: ok");
    let silent: Vec<_> = (0..60).map(|_| client(&scratch)).collect();
    assert_eq!(ctl(&scratch, "status", 0)["state"], "running");
    stop(&scratch, running);
    drop(silent);
    Ok(())
}

fn clients_that_send_a_byte_now_and_then() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let running = machine(&scratch);
    let slow: Vec<_> = (0..100).map(|_| client(&scratch)).collect();
    for byte in b"{\"co" {
        for mut client in &slow {
            // Fails for those that were disconnected.
            let _ = client.write_all(&[*byte]);
        }
        assert_eq!(ctl(&scratch, "status", 0)["state"], "running");
    }
    stop(&scratch, running);
    Ok(())
}

/// The client closes its connection while the machine cannot look at it.
fn a_client_that_has_gone() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let running = machine(&scratch);
    running.signal(Signal::STOP);
    // The signal is delivered at some time: until then the machine would handle the request.
    let stat = format!("/proc/{}/stat", running.pid());
    let deadline = std::time::Instant::now() + TIME_LIMIT;
    while !fs::read_to_string(&stat).expect("a process").contains(") T ") {
        assert!(std::time::Instant::now() < deadline, "the machine does not stop");
    }
    let mut gone = client(&scratch);
    gone.write_all(b"{\"command\":\"stop\"}\n").expect("a socket");
    drop(gone);
    // One that only sends no more is still there.
    let mut patient = client(&scratch);
    patient.write_all(b"{\"command\":\"pause\"}\n").expect("a socket");
    patient.shutdown(Shutdown::Write).expect("a socket");
    running.signal(Signal::CONT);
    let mut response = String::new();
    patient.read_to_string(&mut response).expect("a response");
    assert!(response.contains("\"state\":\"paused\""), "{response}");
    assert_eq!(ctl(&scratch, "resume", 0)["state"], "running");
    stop(&scratch, running);
    Ok(())
}

fn many_requests_on_a_connection() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let running = machine(&scratch);
    let client = client(&scratch);
    let mut responses = responses(&client);
    for (request, response) in
        [("pause", "paused"), ("status", "paused"), ("resume", "running"), ("stop", "stopping")]
    {
        writeln!(&client, "{{\"command\":\"{request}\"}}").expect("a socket");
        let line = responses.next().expect("a response").expect("a response");
        let value: Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!((&value["ok"], &value["state"]), (&true.into(), &response.into()), "{line}");
    }
    assert!(responses.next().is_none_or(|end| end.is_err()), "the machine has ended");
    running.finish().expect(0);
    Ok(())
}

fn invalid_requests() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let running = machine(&scratch);
    let client = client(&scratch);
    let mut responses = responses(&client);
    for (request, said) in [
        (&b"\xff\xfe\xfd"[..], "invalid request: expected value"),
        (b"{\"command\":\"\xff\"}", "invalid request: invalid unicode"),
        (b"{\"command\":\"self-destruct\"}", "self-destruct"),
        (
            br#"{"command":"inject","gpa":33554432,"log2-len":255,"kind":"AO","via":"notice"}"#,
            "`log2-len` is 255: expected 12 to 30",
        ),
        (
            br#"{"command":"inject","gpa":33554432,"log2-len":300,"kind":"AO","via":"notice"}"#,
            "`log2-len` is 300: expected 12 to 30",
        ),
    ] {
        (&client).write_all(&[request, b"\n"].concat()).expect("a socket");
        let line = responses.next().expect("a response").expect("a response");
        assert!(line.starts_with("{\"ok\":false,") && line.contains(said), "{line}");
    }
    assert_eq!(ctl(&scratch, "ledger", 0)["bytes_lost"], 0);
    stop(&scratch, running);
    Ok(())
}

/// A guest that resets its machine all the time.
fn resetting(scratch: &Scratch) -> Running {
    scratch.file("kernel", kernels::counts_boots());
    let profile = scratch.profile(
        "[machine]\nvcpus = 1\nmemory = \"64MiB\"\nfirmware = \"acpi\"\non-reboot = \"restart\"\n\n\
         [boot]\nkernel = \"kernel\"\n",
    );
    let mut running = boot(&profile, scratch).start();
    running.wait_for("000");
    running
}

/// The vCPUs pause, or the reason is the reset, and not a time that has not passed.
fn pause_while_the_machine_is_reset() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let running = resetting(&scratch);
    for _ in 0..60 {
        let pause =
            Ghest::new(["ctl", "--timeout", "20s"]).arg(scratch.path("control")).arg("pause").finish();
        let response = pause.json();
        if response["ok"] == true {
            ctl(&scratch, "resume", 0);
        } else {
            assert_eq!(response["error"], "the machine is stopping or being reset", "{pause}");
        }
    }
    stop(&scratch, running);
    Ok(())
}

/// A connection outlives the boots of its machine, and no request is lost between them.
fn clients_across_resets() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let running = resetting(&scratch);
    let client = client(&scratch);
    let mut responses = responses(&client);
    for _ in 0..200 {
        (&client).write_all(b"{\"command\":\"memory-map\"}\n").expect("a socket");
        let line = responses.next().expect("a response").expect("a response");
        assert!(line.starts_with("{\"ok\":true,"), "{line}");
    }
    stop(&scratch, running);
    Ok(())
}

fn mode_under_every_umask() -> Checked {
    needs::kvm()?;
    for umask in ["000", "077", "277", "777"] {
        let scratch = Scratch::new();
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("umask {umask}; exec \"$0\" \"$@\""), GHEST, "boot"]);
        let profile = scratch.machine("cmdline = \"probe.exit=hang\"");
        let boot = Ghest::within(shell).arg(&profile.path).arg("--control").arg(scratch.path("control"));
        let mut running = boot.start();
        running.wait_for("probe: ok");
        let mode = fs::symlink_metadata(scratch.path("control")).expect("a socket").mode();
        assert_eq!(mode & 0o7777, 0o600, "umask {umask}");
        stop(&scratch, running);
    }
    Ok(())
}

fn a_datagram_socket_is_left() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let path = scratch.path("control");
    let living = UnixDatagram::bind(&path).expect("a socket");
    let said = "another process uses it as a socket of another type than a stream: choose another path";
    refused(&scratch, said);
    UnixDatagram::unbound().expect("a socket").send_to(b"log", &path).expect("the socket is left");
    assert_eq!(living.recv(&mut [0; 3]).expect("a datagram"), 3);
    Ok(())
}

/// Asserts that a machine is refused because of its control socket.
fn refused(scratch: &Scratch, said: &str) {
    let profile = scratch.machine("");
    let last = format!("ghest: control socket {}: {said}", scratch.path("control").display());
    boot(&profile, scratch).finish().expect(1).expect_last(&last);
}

fn a_full_backlog() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let path = scratch.path("control");
    let address = SocketAddrUnix::new(&path).expect("an address");
    let new = || {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).expect("a socket")
    };
    let living = new();
    bind(&living, &address).expect("an address");
    listen(&living, 1).expect("a socket");
    let mut waiting = Vec::new();
    while let Some(client) = Some(new()).filter(|client| connect(client, &address).is_ok()) {
        waiting.push(client);
    }
    refused(&scratch, "another process listens there: stop it, or choose another path");
    let ctl = Ghest::new(["ctl", "--timeout", "100ms"]).arg(&path).arg("status").finish();
    ctl.expect(1).expect_last(&format!("ghest: {}: no response within 100ms", path.display()));
    Ok(())
}

/// Whether nothing is at the path, or a socket at which nobody listens: one machine starts, and the others are refused.
fn starts_at_the_same_time() -> Checked {
    needs::kvm()?;
    for is_stale in [false, true] {
        let scratch = Scratch::new();
        if is_stale {
            drop(UnixListener::bind(scratch.path("control")).expect("a socket"));
        }
        let profile = scratch.machine("cmdline = \"probe.exit=hang\"");
        let mut machines: Vec<_> = (0..4).map(|_| boot(&profile, &scratch).start()).collect();
        let deadline = std::time::Instant::now() + TIME_LIMIT;
        while machines.iter_mut().filter_map(|machine| machine.is_running().then_some(())).count() > 1 {
            assert!(std::time::Instant::now() < deadline, "more than one machine runs");
            std::thread::sleep(Duration::from_millis(5));
        }
        let winner = machines.iter_mut().position(|machine| machine.is_running());
        let winner = machines.swap_remove(winner.expect("one machine runs"));
        for refused in machines {
            refused.finish().expect(1).expect_said("another process listens there");
        }
        assert_eq!(ctl(&scratch, "status", 0)["state"], "running");
        stop(&scratch, winner);
    }
    Ok(())
}

fn a_socket_of_another_process_is_left() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let path = scratch.path("control");
    let running = machine(&scratch);
    fs::remove_file(&path).expect("the socket is removed");
    let _other = UnixListener::bind(&path).expect("a socket");
    running.signal(Signal::TERM);
    running.finish().expect(143);
    UnixStream::connect(&path).expect("the other's socket is left");
    Ok(())
}

/// With every number of descriptors: the start fails somewhere, or succeeds.
fn a_start_that_fails_leaves_no_socket() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let profile = scratch.profile("[machine]\nvcpus = 2\nmemory = \"64MiB\"\nfirmware = \"acpi\"\n");
    let mut ends = std::collections::BTreeSet::new();
    for descriptors in 8..48 {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("ulimit -n {descriptors}; exec \"$0\" \"$@\""), GHEST, "boot"]);
        let boot = Ghest::within(shell).arg(&profile.path).arg("--control").arg(scratch.path("control"));
        let outcome = boot.finish();
        ends.insert(outcome.status());
        assert!(fs::symlink_metadata(scratch.path("control")).is_err(), "the socket is left\n{outcome}");
    }
    assert!(ends.contains(&Some(0)) && ends.len() > 1, "{ends:?}");
    Ok(())
}

fn no_machine() -> Checked {
    let scratch = Scratch::new();
    let path = scratch.path("control");
    let status = |what: &str| {
        let ctl = Ghest::new(["ctl"]).arg(&path).arg("status").finish();
        ctl.expect(1)
            .expect_last(&format!("ghest: {}: no machine listens there: connect(2): {what}", path.display()));
    };
    status("No such file or directory (os error 2)");
    drop(UnixListener::bind(&path).expect("a socket"));
    status("Connection refused (os error 111)");
    Ok(())
}
