//! `victim ras-check`: the guest's side of `ghest ras-check`. It prepares a page for one use, prints its address, accesses it when it is
//! poisoned, and prints what it got and what the kernel logged.
//!
//! The place is prepared and accessed by a child, so that its death is something to report.

mod kernel_log;
mod place;

use std::ffi::CString;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use self::kernel_log::KernelLog;
use self::place::{Access, NAMES, Place};
use crate::sigbus;

pub(crate) const HELP: &str = "\
The guest's side of `ghest ras-check`: the init of its guest, or a program that the init starts as root, with /proc, /sys and /dev.

Usage: victim ras-check [--place PLACE --kind KIND]

Without options, place and kind are those of the kernel's command line: ras-check.place=PLACE ras-check.kind=KIND
As process 1 it mounts /proc, /sys and /dev, and then does the same.

  KIND    consumed: the page is accessed until something happens
          detected: it is accessed after the kernel has handled the error, or after some seconds
  PLACE   user, early-kill, file-clean, file-dirty, hugetlb, thp, free, kernel-text, page-table, device-buffer

Each line of its output begins with `ras-check: `; docs/ras-check.md describes them.
";

/// How long a page is accessed until something happens to it.
const CONSUMPTION_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the kernel has to handle a detected error. It may poll once a second, and round that up to another.
const DETECTION_TIMEOUT: Duration = Duration::from_secs(8);
/// How long the child has after that.
const CHILD_TIMEOUT: Duration = Duration::from_secs(40);
/// Time between an event and the kernel's last line about it.
const LOG_DELAY: Duration = Duration::from_millis(300);
/// Time between two accesses.
const ACCESS_INTERVAL: Duration = Duration::from_millis(10);
/// The line upon which the error is injected.
const READY: &str = "ras-check: ready";
/// The child's last line, which is not passed on. The child may have to stay: its end would access the page.
const FINISHED: &str = "finished";

/// What the guest does about the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Consumed,
    Detected,
}

/// The command line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Options {
    place: Place,
    kind: Kind,
    /// This is the child.
    is_child: bool,
}

impl Options {
    /// Parses arguments. `None` if help is requested.
    pub(crate) fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Option<Self>, String> {
        let (mut place, mut kind, mut is_child) = (None, None, false);
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or(format!("{argument}: missing value"));
            match argument.as_str() {
                "--help" | "-h" => return Ok(None),
                "--place" => place = Some(value()?),
                "--kind" => kind = Some(value()?),
                "--child" => is_child = true,
                other => return Err(format!("unknown argument {other}")),
            }
        }
        if place.is_none() && kind.is_none() {
            let words =
                fs::read_to_string("/proc/cmdline").map_err(|error| format!("/proc/cmdline: {error}"))?;
            let named = |name: &str| {
                let found = words.split_whitespace().find_map(|word| word.strip_prefix(name));
                found.map(str::to_owned)
            };
            (place, kind) = (named("ras-check.place="), named("ras-check.kind="));
        }
        let place = place.ok_or("no place: --place, or ras-check.place= on the kernel's command line")?;
        let kind = kind.ok_or("no kind: --kind, or ras-check.kind= on the kernel's command line")?;
        let known = NAMES.iter().find(|(name, _)| *name == place);
        let (_, place) = known.ok_or_else(|| format!("unknown place {place:?}"))?;
        let kind = match kind.as_str() {
            "consumed" => Kind::Consumed,
            "detected" => Kind::Detected,
            other => return Err(format!("unknown kind {other:?}")),
        };
        Ok(Some(Options { place: *place, kind, is_child }))
    }

    pub(crate) fn run(&self) -> Result<(), String> {
        if self.is_child { self.access() } else { self.watch() }
    }

    /// Runs the child, passes its lines on, and prints what became of it and what the kernel logged.
    fn watch(&self) -> Result<(), String> {
        let system = rustix::system::uname();
        println!("ras-check: {} {}", system.sysname().to_string_lossy(), system.release().to_string_lossy());
        let mut log = KernelLog::from_now().map_err(|error| format!("/dev/kmsg: {error}"))?;
        let mut child = self.child().map_err(|error| format!("fork(2) and execve(2): {error}"))?;
        pass_on(&mut child);
        for line in log.lines() {
            println!("ras-check: log {line}");
        }
        for line in fs::read_to_string("/proc/meminfo").unwrap_or_default().lines() {
            if line.starts_with("HardwareCorrupted:") {
                println!("ras-check: {}", line.split_whitespace().collect::<Vec<_>>().join(" "));
            }
        }
        println!("ras-check: done");
        Ok(())
    }

    fn child(&self) -> std::io::Result<Child> {
        let (place, _) = NAMES.iter().find(|(_, place)| *place == self.place).unwrap_or(&NAMES[0]);
        let kind = if self.kind == Kind::Consumed { "consumed" } else { "detected" };
        let words = ["ras-check", "--child", "--place", place, "--kind", kind];
        Command::new("/proc/self/exe").args(words).stdout(Stdio::piped()).spawn()
    }

    /// The child's part.
    fn access(&self) -> Result<(), String> {
        if self.place == Place::EarlyKill {
            sigbus::request_early_signals().map_err(|error| format!("prctl(2), PR_MCE_KILL: {error}"))?;
        }
        let prepared = match self.place.prepare() {
            Ok(prepared) => prepared,
            Err(reason) => {
                println!("ras-check: skip {reason}\n{FINISHED}");
                return Ok(());
            }
        };
        let mut log = KernelLog::from_now().map_err(|error| format!("/dev/kmsg: {error}"))?;
        println!("ras-check: page {:#x}\n{READY}", prepared.gpa);
        let access = match self.kind {
            Kind::Consumed => {
                let end = Instant::now() + CONSUMPTION_TIMEOUT;
                loop {
                    let access = (prepared.access)();
                    if access != Access::Fine || Instant::now() > end {
                        break access;
                    }
                    thread::sleep(ACCESS_INTERVAL);
                }
            }
            Kind::Detected => {
                let end = Instant::now() + DETECTION_TIMEOUT;
                while Instant::now() < end && !log.lines().iter().any(|line| line.contains("recovery action"))
                {
                    thread::sleep(ACCESS_INTERVAL);
                }
                thread::sleep(LOG_DELAY);
                if self.place.is_of_kernel() { Access::None } else { (prepared.access)() }
            }
        };
        println!("ras-check: access {access}\n{FINISHED}");
        loop {
            thread::park();
        }
    }
}

/// Passes on the child's lines until it has finished or is dead, and prints what became of it. Lines after `ready` are kept until then:
/// the kernel may print its own in the middle of them.
fn pass_on(child: &mut Child) {
    let (sender, lines) = channel();
    if let Some(output) = child.stdout.take() {
        thread::spawn(move || {
            BufReader::new(output).lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
    }
    let end = Instant::now() + CHILD_TIMEOUT;
    let (mut is_ready, mut kept) = (false, Vec::new());
    let state = loop {
        match lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(line) if line == FINISHED => break "continues".to_owned(),
            Ok(line) if is_ready => kept.push(line),
            Ok(line) => {
                println!("{line}");
                is_ready = line == READY;
            }
            Err(RecvTimeoutError::Timeout) => break "hangs".to_owned(),
            Err(RecvTimeoutError::Disconnected) => {
                break match child.wait().map(|status| (status.signal(), status.code())) {
                    Ok((Some(signal), _)) => format!("killed by signal {signal}"),
                    Ok((None, code)) => format!("exited {}", code.unwrap_or_default()),
                    Err(error) => format!("unknown: waitpid(2): {error}"),
                };
            }
        }
    };
    thread::sleep(LOG_DELAY);
    for line in kept {
        println!("{line}");
    }
    println!("ras-check: process {state}");
}

/// The work of a guest's process 1. Does not return: its end would be a panic.
pub(crate) fn init() -> ! {
    for (path, kind) in [("/proc", "proc"), ("/sys", "sysfs"), ("/dev", "devtmpfs")] {
        let mounted = fs::create_dir_all(path).and_then(|()| mount(path, kind));
        if let Err(error) = mounted {
            println!("ras-check: skip {path}: mount(2): {error}");
        }
    }
    let done = Options::parse(std::iter::empty()).and_then(|options| options.map_or(Ok(()), |it| it.run()));
    if let Err(error) = done {
        println!("ras-check: skip {error}\nras-check: done");
    }
    loop {
        thread::park();
    }
}

#[expect(unsafe_code, reason = "a system call")]
fn mount(path: &str, kind: &str) -> std::io::Result<()> {
    let [path, kind] = [CString::new(path)?, CString::new(kind)?];
    // SAFETY: the texts end with a zero; there are no data.
    crate::memory::check(unsafe {
        libc::mount(kind.as_ptr(), path.as_ptr(), kind.as_ptr(), 0, std::ptr::null())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_read() {
        let parse = |line: &str| Options::parse(line.split_whitespace().map(str::to_owned));
        let options = Options { place: Place::FileClean, kind: Kind::Detected, is_child: false };
        assert_eq!(parse("--place file-clean --kind detected"), Ok(Some(options)));
        assert_eq!(parse("--help"), Ok(None));
        for (words, reason) in [
            ("--place nowhere --kind detected", "unknown place"),
            ("--place user --kind lost", "unknown kind"),
            ("--place user", "no kind"),
            ("--place", "missing value"),
            ("user", "unknown argument"),
        ] {
            assert!(parse(words).unwrap_err().contains(reason), "{words}");
        }
        for (name, _) in NAMES {
            assert!(HELP.contains(name), "{name}");
        }
    }
}
