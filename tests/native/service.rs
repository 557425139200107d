//! A machine as a service of systemd: the unit and its drop-ins, what the machine notifies its manager of, how it is stopped.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;

use libtest_mimic::Trial;
use rustix::process::Signal;

use crate::harness::ghest::{GHEST, TIME_LIMIT};
use crate::harness::{Checked, Ghest, Scratch, needs, trials};

pub(crate) fn trials() -> Vec<Trial> {
    trials![
        a_manager_is_notified,
        the_unit_starts_and_stops_a_machine,
        units_are_valid,
        the_unit_permits_little,
        the_unit_knows_the_exit_statuses,
    ]
}

const UNIT: &str = "ghest@.service";
/// Drop-ins for what not every machine needs.
const DROP_INS: [&str; 4] = ["credential.conf", "passt.conf", "retire.conf", "tap.conf"];

fn distributed(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("dist").join(name)
}

/// The values of a key of the unit.
fn unit(key: &str) -> Vec<String> {
    let text = fs::read_to_string(distributed(UNIT)).expect("the unit");
    let lines = text.lines().filter_map(|line| Some(line.strip_prefix(key)?.strip_prefix('=')?.to_owned()));
    lines.collect()
}

/// A service manager's socket.
struct Manager(UnixDatagram);

impl Manager {
    fn listen(path: &Path) -> Self {
        let socket = UnixDatagram::bind(path).expect("a socket");
        socket.set_read_timeout(Some(TIME_LIMIT)).expect("a socket");
        Manager(socket)
    }

    fn next(&self) -> String {
        let mut bytes = [0; 256];
        let len = self.0.recv(&mut bytes).expect("a notification");
        String::from_utf8_lossy(&bytes[..len]).into_owned()
    }

    /// The next notification that is not that of the watchdog.
    fn next_state(&self) -> String {
        std::iter::repeat_with(|| self.next()).find(|text| text != "WATCHDOG=1").expect("there is no end")
    }
}

fn a_manager_is_notified() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let manager = Manager::listen(&scratch.path("notify"));
    let notified = |ghest: Ghest| ghest.env("NOTIFY_SOCKET", &scratch.path("notify").to_string_lossy());
    let hangs = scratch.machine("cmdline = \"probe.exit=hang\"");
    let running = notified(Ghest::boot(&hangs)).env("WATCHDOG_USEC", "400000").start();
    assert_eq!(manager.next_state(), "READY=1\nSTATUS=The guest runs.");
    assert_eq!([manager.next(), manager.next()], ["WATCHDOG=1", "WATCHDOG=1"]);
    running.signal(Signal::TERM);
    assert_eq!(manager.next_state(), "STOPPING=1\nSTATUS=The machine has stopped.");
    running.finish().expect(143);
    // The watchdog of another process.
    let running =
        notified(Ghest::boot(&hangs)).env("WATCHDOG_USEC", "400000").env("WATCHDOG_PID", "1").start();
    assert_eq!(manager.next(), "READY=1\nSTATUS=The guest runs.");
    running.signal(Signal::TERM);
    assert_eq!(manager.next(), "STOPPING=1\nSTATUS=The machine has stopped.");
    running.finish().expect(143);
    // A machine that cannot start.
    notified(Ghest::boot(&scratch.machine("kernel = \"missing\""))).finish().expect(2);
    manager.0.set_nonblocking(true).expect("a socket");
    assert!(manager.0.recv(&mut [0]).is_err());
    Ok(())
}

/// The command of a key of the unit, with the paths of a test.
fn command(scratch: &Scratch, key: &str) -> Ghest {
    let [line] = &unit(key)[..] else { panic!("{key} is not one line") };
    let root = scratch.path("");
    let root = root.to_string_lossy();
    let line = line
        .trim_start_matches('-')
        .replace("%t", &format!("{root}run"))
        .replace("%i", "web-1")
        .replace("/etc/", &format!("{root}etc/"));
    let words: Vec<_> = line.split(' ').collect();
    assert_eq!(words[0], "/usr/bin/ghest");
    Ghest::new(&words[1..])
}

/// As systemd does it: READY, the commands of ExecStart and ExecStop, the end.
fn the_unit_starts_and_stops_a_machine() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    for directory in ["run/ghest/web-1", "etc/ghest"] {
        fs::create_dir_all(scratch.path(directory)).expect("a directory");
    }
    let profile = "[machine]\nmemory = \"64MiB\"\n\n[boot]\ncmdline = \"probe.exit=power-button\"\n";
    scratch.file("etc/ghest/web-1.toml", profile);
    let manager = Manager::listen(&scratch.path("notify"));
    let start =
        command(&scratch, "ExecStart").env("NOTIFY_SOCKET", &scratch.path("notify").to_string_lossy());
    let mut running = start.start();
    assert_eq!(manager.next(), "READY=1\nSTATUS=The guest runs.");
    running.wait_for("probe: ok");
    command(&scratch, "ExecStop").finish().expect(0);
    running.finish().expect(0);
    // The machine has ended by itself.
    command(&scratch, "ExecStop").finish().expect(1).expect_said("no machine listens there");
    Ok(())
}

fn systemd() -> Checked {
    needs::works("systemd-analyze", Command::new("systemd-analyze").arg("--version"))
}

/// `systemd-analyze` of a copy of the unit, which runs the built command, with a drop-in.
fn analyze(arguments: &[&str], drop_in: Option<&str>) -> (bool, String) {
    let scratch = Scratch::new();
    let name = "ghest@test.service";
    let copy = |from: &str, to: &str| {
        let text = fs::read_to_string(distributed(from)).expect("a part of the unit");
        scratch.file(to, text.replace("/usr/bin/ghest", GHEST))
    };
    let path = copy(UNIT, name);
    if let Some(drop_in) = drop_in {
        fs::create_dir(scratch.path("ghest@test.service.d")).expect("a directory");
        copy(drop_in, &format!("ghest@test.service.d/{drop_in}"));
    }
    let analyzed = Command::new("systemd-analyze")
        .args(arguments)
        .arg(&path)
        .env("SYSTEMD_UNIT_PATH", format!("{}:", scratch.path("").display()))
        .output()
        .expect("systemd-analyze runs");
    let text = [analyzed.stdout, analyzed.stderr].concat();
    (analyzed.status.success(), String::from_utf8_lossy(&text).into_owned())
}

/// systemd reads the unit without a warning, alone and with each drop-in.
fn units_are_valid() -> Checked {
    systemd()?;
    for drop_in in [None].into_iter().chain(DROP_INS.map(Some)) {
        let (is_valid, text) = analyze(&["verify", "--man=no"], drop_in);
        let about_it: Vec<_> =
            text.lines().filter(|line| line.contains("ghest") || line.contains(".conf")).collect();
        assert!(is_valid && about_it.is_empty(), "{drop_in:?}: {text}");
    }
    Ok(())
}

/// The exposure that systemd computes, in tenths: 0 is nothing, 100 everything.
fn the_unit_permits_little() -> Checked {
    systemd()?;
    for (drop_in, threshold) in
        [(None, 12), (Some("passt.conf"), 27), (Some("retire.conf"), 14), (Some("tap.conf"), 17)]
    {
        let threshold = format!("--threshold={threshold}");
        let (is_low, text) = analyze(&["security", "--offline=true", &threshold, "--no-pager"], drop_in);
        assert!(is_low, "{drop_in:?}: {text}");
    }
    Ok(())
}

/// Each status whose cause another start on this host meets again is in the unit, and no other.
fn the_unit_knows_the_exit_statuses() -> Checked {
    assert_eq!(unit("RestartPreventExitStatus"), ["2 3 10 11 12"]);
    assert_eq!((unit("Restart"), unit("SuccessExitStatus")), (vec!["on-failure".into()], vec!["143".into()]));
    let scratch = Scratch::new();
    let broken = scratch.profile("[machine]\nvcpus = 0\n");
    Ghest::boot(&broken).finish().expect(2);
    Ok(())
}
