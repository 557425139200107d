//! Boots a guest in a child process, so that its crash, hang or exit status only ends that process.

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
use vmm::progress::Progress;
use vmm::signals::Signals;

/// The parameters of a guest's boot.
pub(super) struct Boot<'a> {
    pub(super) profile: &'a Path,
    pub(super) set: &'a [String],
    pub(super) injections: &'a [String],
    /// The profile names a control socket. The child must not use that path.
    pub(super) has_socket: bool,
    pub(super) directory: &'a Path,
    pub(super) limit: Duration,
    /// Whether a line of the guest's console means that nothing more is to be seen: the guest is ended then.
    pub(super) until: &'a dyn Fn(&str) -> bool,
    /// What the progress calls it.
    pub(super) label: String,
}

/// This signal requested the end.
pub(super) struct Interrupted(pub(super) u8);

/// How often signals and the time limit are checked.
const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// Time from SIGTERM to SIGKILL, in which the child writes its last events.
const TERMINATION_TIMEOUT: Duration = Duration::from_secs(5);
/// Chunks of output, of at most [`CHUNK_LEN`] bytes each, that are queued before the guest has to wait.
const QUEUED_CHUNKS: usize = 16;
const CHUNK_LEN: usize = 16 << 10;
/// Bytes of standard error that are kept: the last ones.
const MAX_STDERR_LEN: usize = 64 << 10;
/// Bytes of an event or timings file that are read.
const MAX_FILE_LEN: u64 = 8 << 20;

impl Boot<'_> {
    /// Boots the guest and waits for its end. The caller fills in `tables`, `changes` and `plan` of the recording.
    pub(super) fn run(
        &self,
        signals: &mut Signals,
        progress: &mut Progress,
    ) -> Result<Recording, Interrupted> {
        let [events, timings] = ["events", "timings"].map(|name| self.directory.join(name));
        // Left by the previous guest.
        for path in [&events, &timings] {
            let _ = fs::remove_file(path);
        }
        progress.clear();
        let began = Instant::now();
        let mut running = match self.start(&events, &timings) {
            Ok(running) => running,
            Err(error) => return Ok(not_started("", format!("the process cannot be started: {error}"))),
        };
        let mut console = Console::default();
        let mut searched = 0_u64;
        let mut show = |console: &Console| {
            progress.show(|| {
                let last = console.lines().next_back().map_or("", |line| &line.text);
                format!("{} {:5.1} s  {last}", self.label, began.elapsed().as_secs_f64())
            });
        };
        show(&console);
        let (status, hung) = running.watch(self.limit, signals, |t_ns, bytes| {
            console.push(t_ns, bytes);
            show(&console);
            // Of very many lines those in the middle are dropped: new ones are counted from the end.
            let lines = console.lines().count() as u64 + console.dropped_lines();
            let new = usize::try_from(lines - searched).unwrap_or(usize::MAX);
            searched = lines;
            console.lines().rev().take(new).any(|line| (self.until)(&line.text))
        })?;
        console.finish();
        let after_ns = nanoseconds(began.elapsed());
        let ending = match (hung, status) {
            (true, _) => Ending::Hung { limit_ns: nanoseconds(self.limit) },
            (false, Err(error)) => Ending::NotStarted { why: format!("waitpid(2): {error}") },
            (false, Ok(status)) => match (status.code(), status.signal()) {
                (Some(status), _) => Ending::Exited { status, after_ns },
                (None, signal) => Ending::Killed { signal: signal.unwrap_or_default(), after_ns },
            },
        };
        Ok(Recording {
            console,
            events: read(&events),
            timings: read(&timings),
            stderr: running.stderr(),
            ..unfilled(ending)
        })
    }

    fn start(&self, events: &Path, timings: &Path) -> io::Result<RunningChild> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("boot").arg("--with-parent").arg(std::process::id().to_string());
        command.arg("--events").arg(events).arg("--timings").arg(timings);
        if self.has_socket {
            command.arg("--control").arg(self.directory.join("control"));
        }
        for set in self.set {
            command.arg("--set").arg(set);
        }
        for spec in self.injections {
            command.arg("--inject").arg(spec);
        }
        command.arg("--").arg(self.profile);
        // In a process group of its own, the child does not get the SIGINT of Ctrl-C: this process handles it.
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Ok(RunningChild::new(command.spawn()?))
    }
}

/// A running child. It is killed when this is dropped.
struct RunningChild {
    child: Child,
    began: Instant,
    output: Receiver<(Instant, Vec<u8>)>,
    stderr: Option<JoinHandle<Vec<u8>>>,
}

impl RunningChild {
    fn new(mut child: Child) -> Self {
        let began = Instant::now();
        let (sender, output) = sync_channel(QUEUED_CHUNKS);
        let stdout = child.stdout.take();
        let stderr = child.stderr.take();
        let running = RunningChild {
            child,
            began,
            output,
            stderr: stderr.map(|mut stderr| spawn(move || keep_end(&mut stderr))),
        };
        if let Some(mut stdout) = stdout {
            spawn(move || forward(&mut stdout, &sender));
        }
        running
    }

    /// Passes its output to `consume` until it ends, and nothing now and then while it has none. It is terminated when `consume`
    /// returns true. Also returns whether it exceeded the time limit and was terminated.
    fn watch(
        &mut self,
        limit: Duration,
        signals: &mut Signals,
        mut consume: impl FnMut(u64, &[u8]) -> bool,
    ) -> Result<(io::Result<ExitStatus>, bool), Interrupted> {
        let (mut hung, mut is_terminated, mut open) = (false, false, true);
        let mut deadline = self.began + limit;
        loop {
            let mut is_done = false;
            if open {
                match self.output.recv_timeout(POLL_INTERVAL) {
                    Ok((time, bytes)) => {
                        is_done = consume(nanoseconds(time.saturating_duration_since(self.began)), &bytes);
                    }
                    Err(RecvTimeoutError::Timeout) => {
                        consume(nanoseconds(self.began.elapsed()), &[]);
                    }
                    Err(RecvTimeoutError::Disconnected) => open = false,
                }
            } else {
                match self.child.try_wait() {
                    Ok(None) => std::thread::sleep(POLL_INTERVAL.min(Duration::from_millis(2))),
                    Ok(Some(status)) => return Ok((Ok(status), hung)),
                    Err(error) => return Ok((Err(error), hung)),
                }
            }
            if let Some(signal) = signals.take_pending() {
                return Err(Interrupted(signal));
            }
            let is_late = Instant::now() >= deadline;
            if is_terminated && is_late {
                // It did not end after SIGTERM. Its output ends with it.
                let _ = self.child.kill();
            } else if !is_terminated && (is_late || is_done) {
                let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
                (hung, is_terminated) = (is_late, true);
            } else {
                continue;
            }
            deadline = Instant::now() + TERMINATION_TIMEOUT;
        }
    }

    /// The end of its standard error.
    fn stderr(&mut self) -> String {
        let bytes = self.stderr.take().and_then(|thread| thread.join().ok());
        String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned()
    }
}

impl Drop for RunningChild {
    fn drop(&mut self) {
        // Errors mean that it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn forward(stdout: &mut impl Read, sender: &SyncSender<(Instant, Vec<u8>)>) {
    let mut chunk = vec![0; CHUNK_LEN];
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
        let over = kept.len().saturating_sub(MAX_STDERR_LEN);
        kept.drain(..over);
    }
    kept
}

/// The first [`MAX_FILE_LEN`] bytes of a file. Empty if it cannot be opened.
fn read(path: &Path) -> String {
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map(|file| file.take(MAX_FILE_LEN));
    // What was read before an error is kept.
    let _ = file.and_then(|mut file| file.read_to_end(&mut bytes));
    String::from_utf8_lossy(&bytes).into_owned()
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// The recording of a guest that was not booted.
pub(super) fn not_started(tables: &str, why: String) -> Recording {
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
