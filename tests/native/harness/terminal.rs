//! `ghest` in a pseudo-terminal that is the controlling terminal of a session, as under a shell.
//!
//! The session has a leader between the test and `ghest`: when a leader ends, the kernel hangs up its terminal and resets its modes, so
//! that a test could not see the modes after `ghest`. The leader is this program itself, started with [`LEADER`].

use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Write, stdin, stdout};
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Instant;

use rustix::process::{Pid, Signal, ioctl_tiocsctty, kill_process, setsid};
use rustix::termios::{
    LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr, tcsetpgrp,
};

use super::Profile;
use super::ghest::{GHEST, TIME_LIMIT};
use super::pty::Pty;
use super::stream::Stream;

/// First argument of this program if it leads a session.
pub(crate) const LEADER: &str = "--lead-session";

/// A `ghest` in a terminal.
pub(crate) struct Terminal {
    leader: Child,
    /// `pid N`, then `status N`, from the leader.
    leader_output: Stream,
    pid: Pid,
    keyboard: File,
    pub(crate) screen: Stream,
    pub(crate) stderr: Stream,
    /// Keeps the terminal from being hung up, and shows its modes.
    line: OwnedFd,
    before: Termios,
    deadline: Instant,
}

impl Terminal {
    /// `ghest boot` of a profile, with standard input and output on a new terminal.
    pub(crate) fn boot(profile: &Profile) -> Self {
        let Pty { master: keyboard, line, path } = Pty::open();
        let before = unusual_modes(&line);
        let mut leader = Command::new(std::env::current_exe().expect("this program"))
            .args([LEADER, GHEST, "boot"])
            .arg(&profile.path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .env("GHEST_TEST_TERMINAL", path)
            .spawn()
            .expect("a child process");
        let stderr = leader.stderr.take().map_or_else(Stream::empty, Stream::read);
        let leader_output = leader.stdout.take().map_or_else(Stream::empty, Stream::read);
        let deadline = Instant::now() + TIME_LIMIT;
        let pid = number(&leader_output, "pid ", deadline)
            .and_then(Pid::from_raw)
            .expect("the leader reports ghest's pid");
        let screen = Stream::read(keyboard.try_clone().expect("a descriptor"));
        Terminal { leader, leader_output, pid, keyboard, screen, stderr, line, before, deadline }
    }

    /// Waits until `text` is on the screen.
    pub(crate) fn wait_for(&self, text: &str) {
        self.wait_for_times(text, 1);
    }

    /// Waits until `text` is on the screen that number of times.
    pub(crate) fn wait_for_times(&self, text: &str, times: usize) {
        assert!(self.screen.wait_for(text, times, self.deadline), "{text:?} did not come\n{}", self.shown());
    }

    pub(crate) fn type_keys(&mut self, keys: &[u8]) {
        self.keyboard.write_all(keys).expect("a terminal takes keys");
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid, signal).expect("a signal to ghest");
    }

    /// Makes another process group the terminal's foreground.
    pub(crate) fn move_to_background(&mut self) {
        let leader = self.leader.stdin.as_mut().expect("a pipe until the end");
        leader.write_all(b"\n").expect("the leader reads");
        let moved = self.leader_output.wait_for("background", 1, self.deadline);
        assert!(moved, "ghest is not in the background\n{}", self.shown());
    }

    /// Whether `ghest` reads each key immediately, without echo, and no key raises a signal.
    pub(crate) fn is_raw(&self) -> bool {
        let cooked = LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG;
        !tcgetattr(&self.line).expect("modes").local_modes.intersects(cooked)
    }

    /// Waits for the end and asserts that the terminal's modes are restored. Returns the status (128 + signal if a signal ended it), the
    /// screen and stderr.
    #[track_caller]
    pub(crate) fn finish(mut self) -> (i32, String, String) {
        let status = number(&self.leader_output, "status ", self.deadline);
        let after = tcgetattr(&self.line).expect("modes");
        assert_eq!(format!("{after:?}"), format!("{:?}", self.before), "modes changed\n{}", self.shown());
        let status = status.unwrap_or_else(|| panic!("ghest does not end\n{}", self.shown()));
        // The leader, the last writer to stderr, ends.
        drop(self.leader.stdin.take());
        let stderr = String::from_utf8_lossy(&self.stderr.to_end(self.deadline)).into_owned();
        (status, String::from_utf8_lossy(&self.screen.so_far()).into_owned(), stderr)
    }

    fn shown(&self) -> String {
        let [screen, stderr] =
            [&self.screen, &self.stderr].map(|stream| String::from_utf8_lossy(&stream.so_far()).into_owned());
        format!("--- screen\n{screen}\n--- stderr\n{stderr}")
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Its end hangs up the terminal, which ends a ghest that is still running. Errors mean that it has ended.
        let _ = self.leader.kill();
        let _ = self.leader.wait();
    }
}

/// Modes that no program sets, so that defaults are not mistaken for restored modes.
fn unusual_modes(line: &OwnedFd) -> Termios {
    let mut modes = tcgetattr(line).expect("modes");
    modes.local_modes.remove(LocalModes::ECHOK);
    modes.special_codes[SpecialCodeIndex::VINTR] = 0x07;
    tcsetattr(line, OptionalActions::Now, &modes).expect("modes are taken");
    tcgetattr(line).expect("modes")
}

/// The number in the line `WHAT N` of the leader's output.
fn number(output: &Stream, what: &str, deadline: Instant) -> Option<i32> {
    output.wait_for(what, 1, deadline);
    let output = String::from_utf8(output.so_far()).ok()?;
    output.lines().find_map(|line| line.strip_prefix(what)?.parse().ok())
}

/// Leads a session with a controlling terminal, runs the command in it, and reports its pid and status on stdout. A byte on its standard
/// input moves the command to the background. Runs until its standard input ends, so that the terminal stays open.
pub(crate) fn lead_session(mut command: impl Iterator<Item = OsString>) -> ExitCode {
    setsid().expect("a child leads no process group");
    let path = std::env::var_os("GHEST_TEST_TERMINAL").expect("the path of a terminal");
    let line = File::options().read(true).write(true).open(path).expect("a terminal that opens");
    ioctl_tiocsctty(&line).expect("a controlling terminal");
    let copy = || line.try_clone().expect("a descriptor");
    let mut child = Command::new(command.next().expect("a command"))
        .args(command)
        .stdin(copy())
        .stdout(copy())
        .spawn()
        .expect("a child process");
    println!("pid {}", child.id());
    let requests = std::thread::spawn(move || {
        let mut foreground = None;
        // An error is an end too.
        while stdin().read(&mut [0]).is_ok_and(|count| count > 0) {
            foreground = Some(foreground_group(&line));
            println!("background");
        }
        foreground.map(drop)
    });
    let status = child.wait().expect("a child to wait for");
    // As a shell shows it.
    let number = status.code().or(status.signal().map(|signal| 128 + signal));
    println!("status {}", number.expect("an exit status or a signal"));
    stdout().flush().expect("a pipe that is read");
    requests.join().expect("no panic");
    ExitCode::SUCCESS
}

/// A process in a process group of its own, which is the terminal's foreground. It ends with its standard input.
fn foreground_group(line: &File) -> Child {
    let child = Command::new("cat").stdin(Stdio::piped()).process_group(0).spawn().expect("a child process");
    tcsetpgrp(line, Pid::from_child(&child)).expect("a process group of this session");
    child
}
