//! Output that cannot be written: on a full disk, to a reader that is gone, or to one that stands still. It costs the guest nothing,
//! and is counted.

use std::fs::File;
use std::io::{BufReader, Read, pipe};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::pipe::fcntl_setpipe_size;
use rustix::process::Signal;
use serde_json::Value;

use crate::harness::ghest::{GHEST, Outcome, Running};
use crate::harness::{Checked, Ghest, Profile, Scratch, kernels, needs, trials};

pub(crate) fn trials() -> Vec<Trial> {
    trials![
        a_log_on_a_full_disk,
        a_log_whose_reader_is_gone,
        commands_on_a_full_disk,
        commands_whose_reader_is_gone,
        readers_that_stand_still,
        a_fatal_signal_while_readers_stand_still,
        an_event_file_on_a_full_disk,
        an_event_file_that_is_full_for_a_while,
        an_event_file_that_is_truncated,
        events_for_a_reader_that_comes_late,
        timings_that_nobody_reads,
        many_lines_of_one_kind,
    ]
}

/// A shell that runs `ghest` by a line, for the redirections there.
fn in_shell<A: AsRef<std::ffi::OsStr>>(line: &str, arguments: impl IntoIterator<Item = A>) -> Ghest {
    let mut shell = Command::new("sh");
    shell.args(["-c", line, GHEST]);
    Ghest::within(shell).args(arguments)
}

/// A guest that offlines a page that it consumes, and is then notified of another one.
fn notified(scratch: &Scratch) -> (Profile, Vec<String>) {
    let profile = scratch.profile(
        "[machine]\nvcpus = 2\nmemory = \"64MiB\"\nfirmware = \"acpi\"\n\n\
         [boot]\ncmdline = \"probe.touch=0x2000000 probe.await-errors=2 probe.timeout=20000\"\n",
    );
    let inject = ["ar@0x2000000,when=probe: touching", "ao@0x3000000,when=probe: awaiting"];
    let mut arguments = vec!["boot".into(), profile.path.display().to_string(), "-vv".into()];
    inject.iter().for_each(|spec| arguments.extend(["--inject".into(), (*spec).into()]));
    arguments.extend(["--events".into(), scratch.path("events").display().to_string()]);
    (profile, arguments)
}

/// Asserts the end of [`notified`].
fn expect_notified(scratch: &Scratch, outcome: Outcome) {
    let outcome = outcome.expect_ok();
    assert_eq!(outcome.probe("error offlined"), ["0x2000000"], "{outcome}");
    let events = events(&scratch.path("events"));
    assert_eq!(count(&events, "memory-error"), 2, "{events:?}");
    let last = events.last().expect("events");
    assert_eq!((&last["event"], &last["status"]), (&"stopped".into(), &0.into()), "{events:?}");
}

fn a_log_on_a_full_disk() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let (_profile, arguments) = notified(&scratch);
    expect_notified(&scratch, in_shell("exec \"$0\" \"$@\" 2>/dev/full", arguments).finish());
    Ok(())
}

fn a_log_whose_reader_is_gone() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let (_profile, arguments) = notified(&scratch);
    let (reader, writer) = pipe().expect("a pipe");
    drop(reader);
    expect_notified(&scratch, Ghest::new(arguments).stderr(writer).finish());
    Ok(())
}

/// A broken profile, and a valid one.
fn profiles(scratch: &Scratch) -> (PathBuf, PathBuf) {
    let broken = scratch.file("broken.toml", "[machine]\nvcpus = 0\n");
    (broken, scratch.machine("").path)
}

/// The status reports what cannot be printed.
fn commands_on_a_full_disk() -> Checked {
    let scratch = Scratch::new();
    let (broken, valid) = profiles(&scratch);
    for format in ["text", "json"] {
        let check = ["check", "--log-format", format, &broken.to_string_lossy()].map(str::to_owned);
        in_shell("exec \"$0\" \"$@\" 2>/dev/full", check).finish().expect(2);
    }
    for arguments in
        [vec!["plan".into(), valid.into_os_string()], vec!["probe".into()], vec!["schema".into()]]
    {
        in_shell("exec \"$0\" \"$@\" >/dev/full", &arguments)
            .finish()
            .expect(1)
            .expect_last("ghest: write(2) to standard output: No space left on device (os error 28)");
        in_shell("exec \"$0\" \"$@\" >/dev/full 2>&1", &arguments).finish().expect(1);
    }
    in_shell("exec \"$0\" \"$@\" >/dev/full 2>&1", ["--help"]).finish().expect(1);
    in_shell("exec \"$0\" \"$@\" >/dev/full 2>&1", ["no-such-command"]).finish().expect(1);
    Ok(())
}

/// As behind `head`: no message.
fn commands_whose_reader_is_gone() -> Checked {
    let scratch = Scratch::new();
    let (broken, valid) = profiles(&scratch);
    let closed = || pipe().expect("a pipe").1;
    let outcome = Ghest::new(["plan"]).arg(&valid).stdout(closed()).finish().expect(1);
    assert_eq!(outcome.stderr, "", "{outcome}");
    Ghest::new(["check"]).arg(&broken).stderr(closed()).finish().expect(2);
    Ok(())
}

/// Opens a new FIFO for reading, and reads nothing.
fn idle_fifo(scratch: &Scratch) -> (PathBuf, File) {
    let path = scratch.path("fifo");
    mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a FIFO");
    let reader = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(&path).expect("the FIFO");
    (path, reader)
}

/// What is in a pipe now.
fn drained(mut reader: impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    // The error is EAGAIN.
    let _ = reader.read_to_end(&mut bytes);
    bytes
}

const ERRORS: u64 = 250;

/// A guest that is notified of [`ERRORS`] pages and then halts, with a log and events that nobody reads. They are far more than a pipe
/// holds.
fn flooded(scratch: &Scratch, stderr: impl Into<std::process::Stdio>, events: &Path) -> Running {
    let profile = scratch.profile(&format!(
        "[machine]\nvcpus = 2\nmemory = \"64MiB\"\nfirmware = \"acpi\"\n\n[boot]\n\
         cmdline = \"probe.await-errors={ERRORS} probe.timeout=25000 probe.exit=hang\"\n"
    ));
    let boot = Ghest::boot(&profile).arg("-vv").arg("--control").arg(scratch.path("control"));
    let mut running = boot.arg("--events").arg(events).stderr(stderr).start();
    running.wait_for("probe: awaiting");
    for n in 0..ERRORS {
        inject(scratch, 0x200_0000 + n * 0x1000);
    }
    running
}

fn ctl(scratch: &Scratch, words: &[&str]) -> Value {
    Ghest::new(["ctl"]).arg(scratch.path("control")).args(words).finish().expect(0).json()
}

fn inject(scratch: &Scratch, gpa: u64) {
    ctl(scratch, &["inject", "--gpa", &format!("{gpa:#x}"), "--kind", "ao", "--via", "notice"]);
}

/// The events of a file. Every line is whole, and times do not decrease.
fn events(path: &Path) -> Vec<Value> {
    parsed(&std::fs::read_to_string(path).expect("an event file"))
}

fn parsed(text: &str) -> Vec<Value> {
    assert!(text.ends_with('\n'), "{text}");
    let parse =
        |line| serde_json::from_str::<Value>(line).unwrap_or_else(|error| panic!("{error}: {line}\n{text}"));
    let events: Vec<_> = text.lines().map(parse).collect();
    assert!(events.iter().map(|event| event["t_ns"].as_u64().expect("t_ns")).is_sorted(), "{text}");
    events
}

fn count(events: &[Value], name: &str) -> usize {
    events.iter().filter(|event| event["event"] == name).count()
}

/// The events that `dropped` events report as missing.
fn missing(events: &[Value]) -> u64 {
    let dropped = events.iter().filter(|event| event["event"] == "dropped");
    dropped.map(|event| event["missing"].as_u64().expect("a number")).sum()
}

fn until(what: &str, mut is_true: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_true() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The guest takes every error, the control socket answers, and SIGTERM ends the machine.
fn readers_that_stand_still() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let (path, reader) = idle_fifo(&scratch);
    let (log, stderr) = pipe().expect("a pipe");
    fcntl_setpipe_size(&stderr, 4096).expect("a small pipe");
    let mut running = flooded(&scratch, stderr, &path);
    running.wait_for("probe: ok");
    assert_eq!(ctl(&scratch, &["status"])["state"], "running");
    assert_eq!(ctl(&scratch, &["metrics"])["events"]["memory-error"], ERRORS);
    running.signal(Signal::TERM);
    let guest = running.finish().expect(143);
    assert_eq!(guest.probe("error total"), [ERRORS.to_string()], "{guest}");
    let text = String::from_utf8(drained(reader)).expect("UTF-8");
    let whole = text.rfind('\n').map_or(0, |end| end + 1);
    assert_eq!(parsed(&text[..whole])[0]["event"], "plan", "{text}");
    let mut text = String::new();
    BufReader::new(log).read_to_string(&mut text).expect("a pipe whose writers have ended");
    assert!(text.contains("INFO"), "{text}");
    Ok(())
}

/// The report of a fatal signal does not wait for readers either.
fn a_fatal_signal_while_readers_stand_still() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let (path, reader) = idle_fifo(&scratch);
    let (log, stderr) = pipe().expect("a pipe");
    fcntl_setpipe_size(&stderr, 4096).expect("a small pipe");
    let running = flooded(&scratch, stderr, &path);
    running.signal(Signal::BUS);
    running.finish().expect(135);
    drop((log, reader));
    Ok(())
}

fn an_event_file_on_a_full_disk() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let boot = Ghest::boot(&scratch.machine("")).args(["--events", "/dev/full"]);
    let outcome = boot.finish().expect_ok();
    let outcome = outcome.expect_last("ghest: the guest switched its machine off");
    let failed =
        outcome.stderr.matches("write(2) to the event file failed: events are missing there from now on");
    assert_eq!(failed.count(), 1, "{outcome}");
    // plan, vcpu-started, first-exit, guest-shutdown, stopped
    outcome.expect_said("ghest: not written: 5 events of the event file, 0 lines of the log");
    Ok(())
}

/// When there is space again, a `dropped` event has the number of those that are missing in its place.
fn an_event_file_that_is_full_for_a_while() -> Checked {
    needs::kvm()?;
    needs::mounts()?;
    let scratch = Scratch::new();
    let profile = scratch.machine("cmdline = \"probe.exit=hang\"");
    let disk = scratch.path("disk");
    std::fs::create_dir(&disk).expect("a directory");
    let mut command = Command::new("unshare");
    let script =
        "mount -t tmpfs -o size=32k none \"$0\" && head -c 16384 /dev/zero > \"$0/filler\" && exec \"$@\"";
    command.args(["--mount", "sh", "-c", script]).arg(&disk).args([GHEST, "boot"]).arg(&profile.path);
    let boot = Ghest::within(command).arg("--control").arg(scratch.path("control"));
    let mut running = boot.arg("--events").arg(disk.join("events")).start();
    running.wait_for("probe: ok");
    let root = PathBuf::from(format!("/proc/{}/root", running.pid()));
    let seen = |path: &Path| root.join(path.strip_prefix("/").expect("absolute"));
    let not_written = || ctl(&scratch, &["metrics"])["events_not_written"].as_u64().expect("a number");
    let mut gpas = (0x200_0000..).step_by(0x1000);
    let mut inject_next = || inject(&scratch, gpas.next().expect("an address"));
    until("the disk is not full", || {
        inject_next();
        not_written() > 20
    });
    assert_eq!(ctl(&scratch, &["status"])["state"], "running");
    // The last of them may be `dropped`: that is shorter than others, and may fit where they do not.
    let full = events(&seen(&disk.join("events")));

    std::fs::remove_file(seen(&disk.join("filler"))).expect("the filler");
    inject_next();
    let file = seen(&disk.join("events"));
    until("no event is written", || events(&file).len() > full.len());
    inject_next();
    let metrics = ctl(&scratch, &["metrics"]);
    let total: u64 = metrics["events"].as_object().expect("counts").values().filter_map(Value::as_u64).sum();
    let written = |events: &[Value]| (events.len() - count(events, "dropped")) as u64;
    until("not all events are written or counted", || {
        let events = events(&file);
        written(&events) + missing(&events) == total
    });
    let events = events(&file);
    assert_eq!(missing(&events), metrics["events_not_written"].as_u64().expect("a number"), "{events:?}");
    assert_eq!(events[full.len()]["event"], "dropped", "{events:?}");
    running.signal(Signal::TERM);
    running.finish().expect(143).expect_said("WARN").expect_said("ghest: not written: ");
    Ok(())
}

/// As logrotate does with `copytruncate`.
fn an_event_file_that_is_truncated() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let profile = scratch.machine("cmdline = \"probe.exit=hang\"");
    let path = scratch.path("events");
    let boot = Ghest::boot(&profile).arg("--control").arg(scratch.path("control"));
    let mut running = boot.arg("--events").arg(&path).start();
    running.wait_for("probe: ok");
    until("no event is written", || {
        std::fs::read_to_string(&path).is_ok_and(|text| text.contains("first-exit"))
    });
    File::options().write(true).truncate(true).open(&path).expect("the event file");
    inject(&scratch, 0x200_0000);
    running.signal(Signal::TERM);
    running.finish().expect(143);
    let events = events(&path);
    assert_eq!((&events[0]["event"], count(&events, "stopped")), (&"memory-error".into(), 1), "{events:?}");
    Ok(())
}

/// A FIFO needs no reader at the start, and its first reader gets what it holds.
fn events_for_a_reader_that_comes_late() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let (path, reader) = idle_fifo(&scratch);
    drop(reader);
    let profile = scratch.machine("cmdline = \"probe.exit=hang\"");
    let mut running = Ghest::boot(&profile).arg("--events").arg(&path).start();
    running.wait_for("probe: ok");
    let reader = File::open(&path).expect("the FIFO");
    running.signal(Signal::TERM);
    running.finish().expect(143);
    let mut text = String::new();
    BufReader::new(reader).read_to_string(&mut text).expect("a FIFO whose writers have ended");
    let events = parsed(&text);
    assert_eq!(
        (&events[0]["event"], &events[events.len() - 1]["event"]),
        (&"plan".into(), &"stopped".into()),
        "{events:?}"
    );
    Ok(())
}

fn timings_that_nobody_reads() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let (path, reader) = idle_fifo(&scratch);
    drop(reader);
    let said = format!("ghest: {}: No such device or address (os error 6)", path.display());
    Ghest::boot(&scratch.machine("")).arg("--timings").arg(&path).finish().expect(1).expect_last(&said);
    Ok(())
}

/// A guest cannot fill the host's disk with the log.
fn many_lines_of_one_kind() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let times = 100_000;
    scratch.file("kernel", kernels::requests_unknown_sleep_states(times));
    let outcome = Ghest::boot(&scratch.machine("kernel = \"kernel\"")).finish().expect(0);
    let logged = |line: &&str| line.contains("the guest requested a sleep state");
    let (reports, lines): (Vec<_>, Vec<_>) =
        outcome.stderr.lines().filter(logged).partition(|line| line.contains("too many lines like this one"));
    let suppressed = reports.iter().filter_map(|line| line.rsplit_once("lines=")?.1.parse::<u32>().ok());
    assert!(lines.len() < 1000, "{outcome}");
    assert_eq!(lines.len() as u32 + suppressed.sum::<u32>(), times, "{outcome}");
    assert!(outcome.stderr.len() < 200 * 1000, "{} bytes", outcome.stderr.len());
    outcome.expect_last("ghest: the guest switched its machine off");
    Ok(())
}
