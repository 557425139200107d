//! `ghest` as a child process with a time limit.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::Profile;
use super::stream::Stream;

/// The command under test.
pub(crate) const GHEST: &str = env!("CARGO_BIN_EXE_ghest");
/// Far more than any of these boots takes on a busy machine.
pub(crate) const TIME_LIMIT: Duration = Duration::from_secs(30);

/// A `ghest` to be run. Its standard input is empty by default.
pub(crate) struct Ghest {
    command: Command,
    stdin: Stdio,
    stdout: Stdio,
    stderr: Stdio,
}

impl Ghest {
    pub(crate) fn new<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Self {
        Ghest::within(Command::new(GHEST)).args(arguments)
    }

    /// `ghest boot PROFILE`.
    pub(crate) fn boot(profile: &Profile) -> Self {
        Ghest::new(["boot"]).arg(&profile.path)
    }

    /// A command that executes `ghest` or waits for it; arguments are those of `ghest`.
    pub(crate) fn within(mut command: Command) -> Self {
        command.env_remove("RUST_LOG").env_remove("NO_COLOR");
        Ghest { command, stdin: Stdio::null(), stdout: Stdio::piped(), stderr: Stdio::piped() }
    }

    pub(crate) fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.command.arg(argument);
        self
    }

    pub(crate) fn args<A: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.command.args(arguments);
        self
    }

    /// `--set PATH=VALUE`.
    pub(crate) fn set(self, assignment: &str) -> Self {
        self.args(["--set", assignment])
    }

    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    pub(crate) fn directory(mut self, path: &Path) -> Self {
        self.command.current_dir(path);
        self
    }

    pub(crate) fn stdin(mut self, stdin: impl Into<Stdio>) -> Self {
        self.stdin = stdin.into();
        self
    }

    pub(crate) fn stdout(mut self, stdout: impl Into<Stdio>) -> Self {
        self.stdout = stdout.into();
        self
    }

    pub(crate) fn stderr(mut self, stderr: impl Into<Stdio>) -> Self {
        self.stderr = stderr.into();
        self
    }

    pub(crate) fn start(self) -> Running {
        let Ghest { mut command, stdin, stdout, stderr } = self;
        let mut shown = command.get_program().to_string_lossy().into_owned();
        for argument in command.get_args() {
            write!(shown, " {}", argument.to_string_lossy()).expect("a String takes everything");
        }
        let mut child = command.stdin(stdin).stdout(stdout).stderr(stderr).spawn().expect("a child process");
        let stdout = child.stdout.take().map_or_else(Stream::empty, Stream::read);
        let stderr = child.stderr.take().map_or_else(Stream::empty, Stream::read);
        Running { child, shown, stdout, stderr, deadline: Instant::now() + TIME_LIMIT }
    }

    /// Runs it to its end.
    pub(crate) fn finish(self) -> Outcome {
        self.start().finish()
    }
}

/// A running `ghest`. It is killed at the end of its test or of its time limit.
pub(crate) struct Running {
    child: Child,
    shown: String,
    pub(crate) stdout: Stream,
    pub(crate) stderr: Stream,
    deadline: Instant,
}

impl Running {
    /// Waits until the guest has printed `text`.
    pub(crate) fn wait_for(&mut self, text: &str) {
        self.wait_for_times(text, 1);
    }

    /// Waits until the guest has printed `text` that number of times.
    pub(crate) fn wait_for_times(&mut self, text: &str, times: usize) {
        if !self.stdout.wait_for(text, times, self.deadline) {
            self.give_up(&format!("{text:?} did not come"));
        }
    }

    /// The writing end of a piped standard input.
    pub(crate) fn take_stdin(&mut self) -> ChildStdin {
        self.child.stdin.take().expect("standard input is a pipe")
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).expect("a signal to a child that was not waited for");
    }

    /// Waits until the first vCPU waits for something else than its guest, as for the reader of the console's output.
    pub(crate) fn wait_until_its_vcpu_waits(&mut self) {
        let tasks = PathBuf::from(format!("/proc/{}/task", self.pid()));
        // A wait that ends and begins again takes longer than the interval of its checks.
        let mut looks = 0;
        while looks < 20 {
            let tasks = fs::read_dir(&tasks).into_iter().flatten().flatten();
            let vcpu = tasks
                .filter_map(|task| fs::read_to_string(task.path().join("stat")).ok())
                .find_map(|stat| Some(stat.split_once("(vcpu0) ")?.1.starts_with('S')));
            looks = if vcpu == Some(true) { looks + 1 } else { 0 };
            if !self.is_running() || Instant::now() > self.deadline {
                self.give_up("its vCPU does not wait");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Whether it has not ended.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a child to wait for").is_none()
    }

    pub(crate) fn finish(mut self) -> Outcome {
        let status = loop {
            match self.child.try_wait().expect("a child to wait for") {
                Some(status) => break status,
                None if Instant::now() > self.deadline => self.give_up("it does not end"),
                None => std::thread::sleep(Duration::from_millis(2)),
            }
        };
        Outcome {
            shown: self.shown.clone(),
            status,
            stdout: self.stdout.to_end(self.deadline),
            stderr: String::from_utf8_lossy(&self.stderr.to_end(self.deadline)).into_owned(),
        }
    }

    fn give_up(&mut self, why: &str) -> ! {
        // An error means that it has ended.
        let _ = self.child.kill();
        let status = self.child.wait().expect("a child to wait for");
        let [stdout, stderr] =
            [&self.stdout, &self.stderr].map(|stream| String::from_utf8_lossy(&stream.so_far()).into_owned());
        panic!("{}: {why} ({status})\n--- stdout\n{stdout}\n--- stderr\n{stderr}", self.shown);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Errors mean that it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How a `ghest` ended and what it wrote.
pub(crate) struct Outcome {
    shown: String,
    status: ExitStatus,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Outcome {
    /// Asserts its exit status.
    #[track_caller]
    pub(crate) fn expect(self, status: i32) -> Self {
        assert_eq!(self.status.code(), Some(status), "{self}");
        self
    }

    /// Its exit status. `None` if a signal ended it.
    pub(crate) fn status(&self) -> Option<i32> {
        self.status.code()
    }

    /// Asserts that it was not started: the status is that of an error.
    #[track_caller]
    pub(crate) fn expect_refused(self) -> Self {
        assert!(matches!(self.status.code(), Some(1..=3)), "{self}");
        self
    }

    /// Asserts that a signal ended it: by its own exit status 128 + signal, or without a handler.
    #[track_caller]
    pub(crate) fn expect_ended_by(self, signal: Signal) -> Self {
        let number = signal.as_raw();
        let ended = self.status.code() == Some(128 + number) || self.status.signal() == Some(number);
        assert!(ended, "{self}");
        self
    }

    /// Asserts status 0 and a guest's report without a failure.
    #[track_caller]
    pub(crate) fn expect_ok(self) -> Self {
        let outcome = self.expect(0);
        assert_eq!(outcome.probe("ok"), [""], "{outcome}");
        outcome
    }

    /// Asserts the last line on stderr, which reports the end.
    #[track_caller]
    pub(crate) fn expect_last(self, line: &str) -> Self {
        assert_eq!(self.stderr.lines().last(), Some(line), "{self}");
        self
    }

    /// Asserts that stderr contains a text.
    #[track_caller]
    pub(crate) fn expect_said(self, text: &str) -> Self {
        assert!(self.stderr.contains(text), "{text:?} was not said\n{self}");
        self
    }

    pub(crate) fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// The rest of each line `probe: KEY ...` of the guest's report.
    pub(crate) fn probe(&self, key: &str) -> Vec<String> {
        self.stdout()
            .lines()
            .filter_map(|line| line.strip_prefix("probe: ")?.strip_prefix(key))
            .filter(|rest| rest.is_empty() || rest.starts_with(' '))
            .map(|rest| rest.trim().to_owned())
            .collect()
    }

    /// Its standard output, as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.stdout).unwrap_or_else(|error| panic!("{error}\n{self}"))
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Outcome { shown, status, stderr, .. } = self;
        write!(f, "{shown}: {status}\n--- stdout\n{}\n--- stderr\n{stderr}", self.stdout())
    }
}
