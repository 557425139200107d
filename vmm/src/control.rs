//! The control socket: one JSON request a connection, one JSON answer.
//!
//! ```text
//! > {"command":"status"}
//! < {"ok":true,"machine":"quickstart","state":"running","vcpus":2}
//! > {"command":"power-button"}
//! < {"ok":false,"error":"an MP table has no word for a power button"}
//! ```
//!
//! A thread takes connections; the machine's main thread answers, so that no two requests meet.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::Builder;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::ras::inject::InjectionRequest;

/// What can be asked of a running machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case")]
pub enum Request {
    /// Its name and state.
    Status,
    /// Take the vCPUs out of the guest.
    Pause,
    /// Let them go on.
    Resume,
    /// Press the power button.
    PowerButton,
    /// Lose memory of the guest, or say that it was lost.
    Inject(InjectionRequest),
    /// What was lost so far.
    Ledger,
    /// How often what happened.
    Metrics,
    /// Where guest memory is in this process.
    MemoryMap,
    /// Start the machine again from its profile, whatever `machine.on-reboot` says.
    Reset,
    /// Stop the machine.
    Stop,
}

/// A request that waits for its answer.
pub struct Call {
    /// What is asked.
    pub request: Request,
    answer: Sender<Value>,
    /// Closed once the answer is on its way.
    written: Receiver<()>,
}

impl Call {
    /// Answers it: fields beyond `ok`, or why it cannot be done.
    pub fn answer(self, outcome: Result<Value, String>) {
        let value = match outcome {
            Ok(Value::Object(mut fields)) => {
                fields.shift_insert(0, "ok".into(), true.into());
                fields.into()
            }
            Ok(_) => json!({ "ok": true }),
            Err(error) => json!({ "ok": false, "error": error }),
        };
        // Nobody waits where the client has gone.
        let _ = self.answer.send(value);
        if matches!(self.request, Request::Reset | Request::Stop) {
            // What was asked is the machine's end, and may be the process's: the answer has to be out before.
            let _ = self.written.recv_timeout(PATIENCE);
        }
    }
}

/// The listening socket. Its file goes with it.
pub struct Server {
    path: PathBuf,
    calls: Receiver<Call>,
    wake: EventFd,
}

/// How long a client may take to say what it wants, and to hear the answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes of the longest request.
const LONGEST: u64 = 64 << 10;

impl Server {
    /// Listens at `path`. A socket that nobody listens at any more is replaced.
    ///
    /// # Errors
    /// Where the path is taken, or cannot be made.
    pub fn listen(path: &Path) -> io::Result<Self> {
        if let Ok(metadata) = path.symlink_metadata() {
            if !metadata.file_type().is_socket() || UnixStream::connect(path).is_ok() {
                return Err(io::ErrorKind::AddrInUse.into());
            }
            std::fs::remove_file(path)?;
        }
        let listener = UnixListener::bind(path)?;
        let wake = EventFd::new(EFD_NONBLOCK)?;
        let (sender, calls) = mpsc::channel();
        let ring = wake.try_clone()?;
        // Ends with the process: a listener cannot be told to stop, and holds nothing else.
        Builder::new().name("control".into()).spawn(move || {
            for stream in listener.incoming().flatten() {
                if let Err(error) = serve(&stream, &sender, &ring) {
                    tracing::debug!(%error, "a control connection fails");
                }
            }
        })?;
        Ok(Server { path: path.to_owned(), calls, wake })
    }

    /// Readable when calls may have come.
    #[must_use]
    pub fn wake(&self) -> &EventFd {
        &self.wake
    }

    /// The calls that have come.
    pub fn calls(&self) -> impl Iterator<Item = Call> + '_ {
        // An error means that it was read already.
        let _ = self.wake.read();
        self.calls.try_iter()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have been removed by someone else.
        let _ = std::fs::remove_file(&self.path);
    }
}

fn serve(stream: &UnixStream, calls: &Sender<Call>, ring: &EventFd) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut line = String::new();
    io::Read::take(BufReader::new(stream), LONGEST).read_line(&mut line)?;
    let refusal = match serde_json::from_str(&line) {
        Ok(request) => {
            let (answer, answered) = mpsc::channel();
            let (writing, written) = mpsc::channel();
            if calls.send(Call { request, answer, written }).is_err() {
                return Ok(());
            }
            ring.write(1)?;
            let ended = |_| json!({ "ok": false, "error": "the machine has ended" });
            let outcome = reply(stream, &answered.recv().unwrap_or_else(ended));
            drop(writing);
            return outcome;
        }
        Err(error) => json!({ "ok": false, "error": format!("this is no request: {error}") }),
    };
    reply(stream, &refusal)
}

fn reply(mut stream: &UnixStream, value: &Value) -> io::Result<()> {
    stream.write_all(format!("{value}\n").as_bytes())
}

/// Asks a running machine, and waits for its answer.
///
/// # Errors
/// Where nobody listens at `path`, or what comes back is no answer.
pub fn call(path: &Path, request: Request) -> io::Result<Value> {
    let mut stream = UnixStream::connect(path)?;
    writeln!(stream, "{}", serde_json::to_string(&request)?)?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    Ok(serde_json::from_str(&line)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_answered_and_the_socket_goes() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("control.sock");
        let server = Server::listen(&path).expect("listens");
        assert!(Server::listen(&path).is_err(), "one machine a socket");
        // The second attempt has connected and asked nothing: it must not be in the way.
        let client = {
            let path = path.clone();
            std::thread::spawn(move || call(&path, Request::PowerButton))
        };
        let asked = server.calls.recv_timeout(Duration::from_secs(20)).expect("a call");
        assert_eq!(asked.request, Request::PowerButton);
        asked.answer(Ok(json!({ "pressed": 1 })));
        let answer = client.join().expect("no panic").expect("an answer");
        assert_eq!(answer.to_string(), r#"{"ok":true,"pressed":1}"#);
        drop(server);
        assert!(!path.exists());
    }

    #[test]
    fn what_is_no_request_is_told_so() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("control.sock");
        let _server = Server::listen(&path).expect("listens");
        let mut stream = UnixStream::connect(&path).expect("listens");
        writeln!(stream, "{{\"command\":\"self-destruct\"}}").expect("writes");
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).expect("an answer");
        assert!(line.contains("self-destruct"), "{line}");
    }

    #[test]
    fn a_file_that_is_no_socket_is_left_alone() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("precious");
        std::fs::write(&path, "data").expect("writes");
        assert!(Server::listen(&path).is_err());
        assert_eq!(std::fs::read_to_string(&path).expect("still there"), "data");
    }
}
