//! A guest that boots in a `ghest` of its own, so that its crash, hang or exit status is only told.

use std::fs;
use std::io::{self, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::{JoinHandle, spawn};
use std::time::{Duration, Instant};

use compare::{Console, Ending, Recording};
use rustix::process::{Pid, Signal, kill_process};
use vmm::signals::Signals;

use super::progress::Progress;

/// What a guest boots with.
pub(super) struct Boot<'a> {
    pub(super) profile: &'a Path,
    pub(super) set: &'a [String],
    pub(super) orders: &'a [String],
    /// The profile names a control socket: it must not be taken.
    pub(super) has_socket: bool,
    pub(super) directory: &'a Path,
    pub(super) limit: Duration,
}

/// A signal asked for the end.
pub(super) struct Interrupted(pub(super) u8);

/// How often is looked for signals and time.
const TURN: Duration = Duration::from_millis(20);
/// Time for a `ghest` that was asked to end to write down what happened.
const GRACE: Duration = Duration::from_secs(5);
/// Chunks of output that wait to be read, each of at most [`CHUNK`] bytes: then the guest waits.
const CHUNKS: usize = 16;
const CHUNK: usize = 16 << 10;
/// Bytes of what it says on stderr that are kept.
const SAID: usize = 64 << 10;
/// Bytes of a file of its that are read.
const FILE: u64 = 8 << 20;

impl Boot<'_> {
    /// Boots it, and waits for its end: `tables`, `changes` and `plan` of the recording are for the caller to fill in.
    pub(super) fn run(
        &self,
        signals: &mut Signals,
        progress: &mut Progress,
    ) -> Result<Recording, Interrupted> {
        let [events, timings] = ["events", "timings"].map(|name| self.directory.join(name));
        // What the guest before left.
        for path in [&events, &timings] {
            let _ = fs::remove_file(path);
        }
        let began = Instant::now();
        let mut running = match self.start(&events, &timings) {
            Ok(running) => running,
            Err(error) => return Ok(nothing("", format!("no process: {error}"))),
        };
        let mut console = Console::default();
        let (status, hung) = running.watch(self.limit, signals, |t_ns, bytes| {
            console.push(t_ns, bytes);
            progress.show(console.lines().next_back().map_or("", |line| &line.text));
        })?;
        console.finish();
        let after_ns = nanoseconds(began.elapsed());
        let ending = match (hung, status) {
            (true, _) => Ending::Hung { limit_ns: nanoseconds(self.limit) },
            (false, Err(error)) => Ending::NotStarted { why: format!("it cannot be waited for: {error}") },
            (false, Ok(status)) => match (status.code(), status.signal()) {
                (Some(status), _) => Ending::Exited { status, after_ns },
                (None, signal) => Ending::Killed { signal: signal.unwrap_or_default(), after_ns },
            },
        };
        Ok(Recording {
            console,
            events: read(&events),
            timings: read(&timings),
            stderr: running.said(),
            ..unfilled(ending)
        })
    }

    fn start(&self, events: &Path, timings: &Path) -> io::Result<Running> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("boot").arg("--with-parent").arg(std::process::id().to_string());
        command.arg("--events").arg(events).arg("--timings").arg(timings);
        if self.has_socket {
            command.arg("--control").arg(self.directory.join("control"));
        }
        for set in self.set {
            command.arg("--set").arg(set);
        }
        for order in self.orders {
            command.arg("--inject").arg(order);
        }
        command.arg("--").arg(self.profile);
        // Ctrl-C is for whoever compares: in a group of its own, the guest's process does not get it.
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Running::of(command.spawn()?)
    }
}

/// A `ghest` that runs. It is killed with this.
struct Running {
    child: Child,
    began: Instant,
    output: Receiver<(Instant, Vec<u8>)>,
    stderr: Option<JoinHandle<Vec<u8>>>,
}

impl Running {
    fn of(mut child: Child) -> io::Result<Self> {
        let began = Instant::now();
        let (sender, output) = sync_channel(CHUNKS);
        let stdout = child.stdout.take();
        let stderr = child.stderr.take();
        let running = Running {
            child,
            began,
            output,
            stderr: stderr.map(|mut stderr| spawn(move || keep_end(&mut stderr))),
        };
        if let Some(mut stdout) = stdout {
            spawn(move || forward(&mut stdout, &sender));
        }
        Ok(running)
    }

    /// Takes what it writes until it ends; whether it had to be ended, because its time was over.
    fn watch(
        &mut self,
        limit: Duration,
        signals: &mut Signals,
        mut take: impl FnMut(u64, &[u8]),
    ) -> Result<(io::Result<ExitStatus>, bool), Interrupted> {
        let mut hung = false;
        let mut deadline = self.began + limit;
        let mut open = true;
        loop {
            if open {
                match self.output.recv_timeout(TURN) {
                    Ok((time, bytes)) => {
                        take(nanoseconds(time.saturating_duration_since(self.began)), &bytes)
                    }
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => open = false,
                }
            } else {
                match self.child.try_wait() {
                    Ok(None) => std::thread::sleep(TURN.min(Duration::from_millis(2))),
                    Ok(Some(status)) => return Ok((Ok(status), hung)),
                    Err(error) => return Ok((Err(error), hung)),
                }
            }
            if let Some(signal) = signals.pending() {
                return Err(Interrupted(signal));
            }
            if Instant::now() < deadline {
                continue;
            }
            if hung {
                // It was asked, and did not: its output ends with it.
                let _ = self.child.kill();
            } else {
                let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
            }
            (hung, deadline) = (true, Instant::now() + GRACE);
        }
    }

    /// The end of what it said on stderr.
    fn said(&mut self) -> String {
        let said = self.stderr.take().and_then(|thread| thread.join().ok());
        String::from_utf8_lossy(&said.unwrap_or_default()).into_owned()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Errors mean that it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn forward(stdout: &mut impl Read, sender: &SyncSender<(Instant, Vec<u8>)>) {
    let mut chunk = vec![0; CHUNK];
    while let Ok(len @ 1..) = stdout.read(&mut chunk) {
        let bytes = chunk.get(..len).unwrap_or_default().to_vec();
        if sender.send((Instant::now(), bytes)).is_err() {
            return;
        }
    }
}

fn keep_end(stderr: &mut impl Read) -> Vec<u8> {
    let mut kept = Vec::new();
    let mut chunk = [0; 4096];
    while let Ok(len @ 1..) = stderr.read(&mut chunk) {
        kept.extend(chunk.iter().take(len));
        let over = kept.len().saturating_sub(SAID);
        kept.drain(..over);
    }
    kept
}

/// What is in a file, as far as it is not too much; nothing where it is not there.
fn read(path: &Path) -> String {
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map(|file| file.take(FILE));
    // What was read before an error counts.
    let _ = file.and_then(|mut file| file.read_to_end(&mut bytes));
    String::from_utf8_lossy(&bytes).into_owned()
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// A side without a boot.
pub(super) fn nothing(tables: &str, why: String) -> Recording {
    Recording { tables: tables.into(), ..unfilled(Ending::NotStarted { why }) }
}

fn unfilled(ending: Ending) -> Recording {
    Recording {
        tables: String::new(),
        changes: Vec::new(),
        plan: None,
        console: Console::default(),
        events: String::new(),
        timings: String::new(),
        stderr: String::new(),
        ending,
    }
}
