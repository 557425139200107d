//! Signals at every moment of a machine, blocked and ignored ones, and what a signal that ends the process leaves behind.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use libtest_mimic::Trial;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::Signal;

use crate::harness::ghest::{GHEST, Outcome};
use crate::harness::terminal::Terminal;
use crate::harness::{Checked, Ghest, Scratch, kernels, needs, trial, trials};

pub(crate) fn trials() -> Vec<Trial> {
    let mut all = trials![
        a_start_that_waits_for_a_fifo,
        a_signal_at_any_moment,
        timings_that_nobody_reads,
        a_stop_that_takes_too_long,
        blocked_signals,
        sigbus_blocked_by_the_parent,
        sigalrm_ignored_by_the_parent,
        a_fatal_signal_in_the_background,
        no_pending_signals,
        ignored_signals,
        nohup,
        a_disk_write_beyond_the_limit,
    ];
    let fatal = [
        ("SIGABRT", Signal::ABORT),
        ("SIGALRM", Signal::ALARM),
        ("SIGSEGV", Signal::SEGV),
        ("SIGSYS", Signal::SYS),
        ("SIGTRAP", Signal::TRAP),
        ("SIGUSR1", Signal::USR1),
        ("SIGUSR2", Signal::USR2),
        ("SIGVTALRM", Signal::VTALARM),
        ("SIGXCPU", Signal::XCPU),
        ("SIGBUS", Signal::BUS),
        ("SIGQUIT", Signal::QUIT),
        ("SIGINT", Signal::INT),
    ];
    all.extend(fatal.map(|(name, signal)| {
        trial(format!("signals::{name}_leaves_nothing_behind"), move || leaves_nothing_behind(name, signal))
    }));
    all
}

fn fifo(path: &Path) {
    mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o600), 0).expect("a FIFO");
}

/// Time in which a start reaches the FIFO: if it takes longer, the signal arrives in an earlier phase, where it ends the start as well.
const UNTIL_IT_WAITS: Duration = Duration::from_millis(300);

/// Commands with a FIFO, which has no other end, as profile.
fn a_start_that_waits_for_a_fifo() -> Checked {
    let scratch = Scratch::new();
    let waiting = scratch.path("fifo");
    fifo(&waiting);
    for signal in [Signal::TERM, Signal::INT] {
        for start in [
            Ghest::new(["boot"]).arg(&waiting),
            Ghest::new(["check"]).arg(&waiting),
            Ghest::new(["compare"]).arg(&waiting),
        ] {
            let mut running = start.start();
            std::thread::sleep(UNTIL_IT_WAITS);
            if running.is_running() {
                running.signal(signal);
                running.finish().expect_ended_by(signal);
            } else {
                // It does not wait for the other end.
                running.finish().expect_refused();
            }
        }
    }
    Ok(())
}

/// From before the handlers are installed until the guest runs: it ends with the signal's status, and the event file, if there is one
/// by then, with the last event.
fn a_signal_at_any_moment() -> Checked {
    needs::kvm()?;
    for delay in 0..40 {
        let scratch = Scratch::new();
        let events = scratch.path("events");
        let boot = Ghest::boot(&scratch.machine("cmdline = \"probe.exit=hang\""));
        let running = boot.arg("--events").arg(&events).start();
        std::thread::sleep(Duration::from_millis(delay));
        running.signal(Signal::TERM);
        let outcome = running.finish().expect_ended_by(Signal::TERM);
        let events = fs::read_to_string(events).unwrap_or_default();
        if let Some(last) = events.lines().last() {
            let stopped = r#""event":"stopped","reason":"stopped by signal SIGTERM","status":143}"#;
            assert!(last.ends_with(stopped), "{events}{outcome}");
            outcome.expect_last("ghest: stopped by signal SIGTERM");
        }
    }
    Ok(())
}

/// The machine has ended by itself, and its timings wait for a reader.
fn timings_that_nobody_reads() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let timings = scratch.path("fifo");
    fifo(&timings);
    let mut running = Ghest::boot(&scratch.machine("")).arg("--timings").arg(&timings).start();
    running.wait_for("probe: ok");
    std::thread::sleep(UNTIL_IT_WAITS);
    if running.is_running() {
        running.signal(Signal::TERM);
        running.finish().expect_ended_by(Signal::TERM);
    } else {
        running.finish();
    }
    Ok(())
}

/// The signal stops the machine, but not what the process does after it: it ends all the same, after a time.
fn a_stop_that_takes_too_long() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let (timings, events) = (scratch.path("fifo"), scratch.path("events"));
    fifo(&timings);
    let boot = Ghest::boot(&scratch.machine("cmdline = \"probe.exit=loop\""));
    let mut running = boot.arg("--timings").arg(&timings).arg("--events").arg(&events).start();
    running.wait_for("probe: ok");
    running.signal(Signal::TERM);
    let outcome = running.finish();
    if outcome.status() != Some(1) {
        // It has waited for a reader.
        outcome.expect(143).expect_said("ghest: stopped by signal SIGTERM");
    }
    let events = fs::read_to_string(events).expect("an event file");
    assert_eq!(events.matches("\"event\":\"stopped\"").count(), 1, "{events}");
    Ok(())
}

/// The parent has blocked every signal that a machine needs to be stopped and paused.
fn blocked_signals() -> Checked {
    needs::kvm()?;
    needs::works("env --block-signal", Command::new("env").args(["--block-signal=TERM", "true"]))?;
    for (name, signal) in [("TERM", Signal::TERM), ("INT", Signal::INT), ("HUP", Signal::HUP)] {
        let mut env = Command::new("env");
        env.args([&format!("--block-signal={name},URG,ALRM,BUS,RTMIN"), GHEST, "boot"]);
        stops(env, signal);
    }
    Ok(())
}

/// A SIGBUS of a poisoned page is delivered to the thread that accessed it: no thread may block it, whatever its age.
fn sigbus_blocked_by_the_parent() -> Checked {
    needs::kvm()?;
    needs::works("env --block-signal", Command::new("env").args(["--block-signal=BUS", "true"]))?;
    let scratch = Scratch::new();
    let mut env = Command::new("env");
    env.args(["--block-signal=BUS", GHEST, "boot"]);
    let mut running = Ghest::within(env).arg(scratch.machine("cmdline = \"probe.exit=loop\"").path).start();
    running.wait_for("probe: ok");
    let tasks = fs::read_dir(format!("/proc/{}/task", running.pid())).expect("a process");
    let tasks: Vec<_> = tasks.map(|task| task.expect("a thread").path()).collect();
    assert!(tasks.len() > 2, "{tasks:?}");
    for task in tasks {
        let status = fs::read_to_string(task.join("status")).expect("a thread");
        let value = |key: &str| status.lines().find_map(|line| line.strip_prefix(key)).expect("a key").trim();
        // KVM's own thread, which never returns to the process.
        if value("Name:").starts_with("kvm-") {
            continue;
        }
        let blocked = u64::from_str_radix(value("SigBlk:"), 16).expect("a mask");
        assert_eq!(blocked & 1 << (Signal::BUS.as_raw() - 1), 0, "{status}");
    }
    running.signal(Signal::BUS);
    running.finish().expect(135).expect_said("ghest: stopped by a SIGBUS that process ");
    Ok(())
}

/// SIGALRM limits the time of a stop: it is the process's own, whatever the parent did with it.
fn sigalrm_ignored_by_the_parent() -> Checked {
    needs::kvm()?;
    needs::works("env --ignore-signal", Command::new("env").args(["--ignore-signal=ALRM", "true"]))?;
    let scratch = Scratch::new();
    let mut env = Command::new("env");
    env.args(["--ignore-signal=ALRM", GHEST, "boot"]);
    let mut running = Ghest::within(env).arg(scratch.machine("cmdline = \"probe.exit=loop\"").path).start();
    running.wait_for("probe: ok");
    running.signal(Signal::ALARM);
    running.finish().expect_ended_by(Signal::ALARM).expect_said("ghest: stopped by signal SIGALRM");
    Ok(())
}

/// The shell has moved it to the background: a change of the terminal's modes raises SIGTTOU there, unless that is blocked.
fn a_fatal_signal_in_the_background() -> Checked {
    needs::kvm()?;
    for signal in [Signal::BUS, Signal::USR1] {
        let scratch = Scratch::new();
        let mut terminal = Terminal::boot(&scratch.machine("cmdline = \"probe.echo\""));
        terminal.wait_for("probe: listening");
        assert!(terminal.is_raw());
        terminal.move_to_background();
        terminal.signal(signal);
        let (status, _, stderr) = terminal.finish();
        assert_eq!(status, 128 + signal.as_raw(), "{stderr}");
    }
    Ok(())
}

/// No signal can be queued: not even real-time signals to threads of the process itself.
fn no_pending_signals() -> Checked {
    needs::kvm()?;
    let mut prlimit = Command::new("prlimit");
    prlimit.args(["--sigpending=0", GHEST, "boot"]);
    needs::works("prlimit", Command::new("prlimit").arg("--version"))?;
    stops(prlimit, Signal::TERM).expect_said("RLIMIT_SIGPENDING is less than 64");
    Ok(())
}

/// Pauses and injects an error into a guest that computes all the time, and stops it by a signal.
fn stops(command: Command, signal: Signal) -> Outcome {
    let scratch = Scratch::new();
    let profile = scratch.profile(
        "[machine]\nvcpus = 2\nmemory = \"64MiB\"\nfirmware = \"acpi\"\n\n[boot]\ncmdline = \"probe.exit=loop\"\n",
    );
    let boot = Ghest::within(command).arg(&profile.path).arg("--control").arg(scratch.path("control"));
    let mut running = boot.start();
    running.wait_for("probe: ok");
    let ctl = |words: &[&str]| {
        let ctl = Ghest::new(["ctl", "--timeout", "20s"]).arg(scratch.path("control")).args(words);
        ctl.finish().expect(0).json()
    };
    assert_eq!(ctl(&["pause"])["state"], "paused");
    assert_eq!(ctl(&["resume"])["state"], "running");
    ctl(&["inject", "--gpa", "0x2000000", "--kind", "ao"]);
    assert_eq!(ctl(&["ledger"])["bytes_lost"], 4096);
    running.signal(signal);
    running.finish().expect_ended_by(signal)
}

/// A shell without job control ignores SIGINT and SIGQUIT for what it starts in the background.
fn ignored_signals() -> Checked {
    needs::works("env --ignore-signal", Command::new("env").args(["--ignore-signal=INT", "true"]))?;
    let mut env = Command::new("env");
    env.args(["--ignore-signal=INT,QUIT,USR1", GHEST, "boot"]);
    survives(env, &[Signal::INT, Signal::QUIT, Signal::USR1])
}

fn nohup() -> Checked {
    needs::works("nohup", Command::new("nohup").arg("--version"))?;
    let mut nohup = Command::new("nohup");
    nohup.args([GHEST, "boot"]);
    survives(nohup, &[Signal::HUP])
}

fn survives(command: Command, ignored: &[Signal]) -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let profile = scratch.machine("cmdline = \"probe.echo\"");
    let mut running = Ghest::within(command).arg(&profile.path).stdin(Stdio::piped()).start();
    running.wait_for("probe: listening");
    ignored.iter().for_each(|signal| running.signal(*signal));
    // The guest is still there.
    running.take_stdin().write_all(b"hello\nquit\n").expect("ghest reads");
    let outcome = running.finish().expect_ok();
    assert_eq!(outcome.probe("echo"), ["hello"], "{outcome}");
    Ok(())
}

/// The terminal is restored, the sockets are removed, and the status that of the signal.
fn leaves_nothing_behind(name: &str, signal: Signal) -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let profile = scratch.profile(
        "[machine]\nvcpus = 1\nmemory = \"64MiB\"\nfirmware = \"acpi\"\n\n[boot]\ncmdline = \"probe.echo\"\n\n\
         [control]\nsocket = \"control\"\n\n[[device]]\ntype = \"virtio-vsock\"\ncid = 3\nsocket = \"vsock\"\n\n\
         [[device]]\ntype = \"virtio-console\"\nports = { a = \"a\", b = \"b\" }\n",
    );
    let terminal = Terminal::boot(&profile);
    terminal.wait_for("probe: listening");
    assert!(terminal.is_raw());
    let sockets = ["control", "vsock", "a", "b"].map(|socket| scratch.path(socket));
    assert!(sockets.iter().all(|socket| socket.exists()));
    terminal.signal(signal);
    let (status, _, stderr) = terminal.finish();
    assert_eq!(status, 128 + signal.as_raw(), "{stderr}");
    assert!(sockets.iter().all(|socket| fs::symlink_metadata(socket).is_err()), "a socket is left");
    assert!(stderr.contains(name), "{stderr}");
    Ok(())
}

/// `ulimit -f`: SIGXFSZ does not end the machine, and the write is an I/O error of the guest.
fn a_disk_write_beyond_the_limit() -> Checked {
    needs::kvm()?;
    needs::works("prlimit", Command::new("prlimit").arg("--version"))?;
    let scratch = Scratch::new();
    scratch.file("kernel", kernels::writes_sectors(&[0, 100, 1, 7, 8]));
    scratch.file("disk", [0x5a; 128 * 512]);
    let profile = scratch.profile(
        "[machine]\nvcpus = 1\nmemory = \"64MiB\"\nfirmware = \"acpi\"\n\n[boot]\nkernel = \"kernel\"\n\n\
         [[device]]\ntype = \"virtio-block\"\npath = \"disk\"\n",
    );
    // VIRTIO_BLK_S_OK is 0, VIRTIO_BLK_S_IOERR 1.
    for (limit, statuses) in [("unlimited", "00000"), ("4096", "01001")] {
        let mut prlimit = Command::new("prlimit");
        prlimit.args([&format!("--fsize={limit}"), GHEST, "boot"]);
        let outcome = Ghest::within(prlimit).arg(&profile.path).finish().expect(0);
        assert_eq!(outcome.stdout(), statuses, "{outcome}");
    }
    Ok(())
}
