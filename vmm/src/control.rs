//! The control socket: one JSON request per connection, one JSON response.
//!
//! ```text
//! > {"command":"status"}
//! < {"ok":true,"machine":"quickstart","state":"running","vcpus":2}
//! > {"command":"power-button"}
//! < {"ok":false,"error":"this machine has no power button: an MP table cannot describe one"}
//! ```
//!
//! A thread accepts connections. The machine's main thread handles the requests, one after the other.

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

/// A request to a running machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case")]
pub enum Request {
    /// Report name and state.
    Status,
    /// Pause all vCPUs.
    Pause,
    /// Resume all vCPUs.
    Resume,
    /// Press the power button.
    PowerButton,
    /// Inject a memory error.
    Inject(InjectionRequest),
    /// Report the ledger of poisoned pages.
    Ledger,
    /// Report counters.
    Metrics,
    /// Report where guest memory is mapped in this process.
    MemoryMap,
    /// Reset the machine: it boots again, also if `machine.on-reboot` is `exit`.
    Reset,
    /// Stop the machine.
    Stop,
}

/// A request that waits for its response.
pub struct PendingRequest {
    /// The request.
    pub request: Request,
    response: Sender<Value>,
    /// Disconnected when the response has been written to the socket.
    written: Receiver<()>,
}

impl PendingRequest {
    /// Responds with the fields beside `ok`, or with the reason why the request failed.
    pub fn respond(self, outcome: Result<Value, String>) {
        let value = match outcome {
            Ok(Value::Object(mut fields)) => {
                fields.shift_insert(0, "ok".into(), true.into());
                fields.into()
            }
            Ok(_) => json!({ "ok": true }),
            Err(error) => json!({ "ok": false, "error": error }),
        };
        // Fails only if the connection is closed.
        let _ = self.response.send(value);
        if matches!(self.request, Request::Reset | Request::Stop) {
            // The machine ends, and perhaps the process: the response has to be written before that.
            let _ = self.written.recv_timeout(CLIENT_TIMEOUT);
        }
    }
}

/// The listening socket. Its file is removed when this is dropped.
pub struct Server {
    path: PathBuf,
    requests: Receiver<PendingRequest>,
    wake: EventFd,
}

/// How long a client may take to send its request, and to read the response.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of a request.
const MAX_REQUEST_LEN: u64 = 64 << 10;

impl Server {
    /// Listens at `path`. A socket there that no process listens at is replaced.
    ///
    /// # Errors
    /// Returns an error if the path is in use, or the socket cannot be created there.
    pub fn listen(path: &Path) -> io::Result<Self> {
        if let Ok(metadata) = path.symlink_metadata() {
            if !metadata.file_type().is_socket() || UnixStream::connect(path).is_ok() {
                return Err(io::ErrorKind::AddrInUse.into());
            }
            std::fs::remove_file(path)?;
        }
        let listener = UnixListener::bind(path)?;
        let wake = EventFd::new(EFD_NONBLOCK)?;
        let (sender, requests) = mpsc::channel();
        let notify = wake.try_clone()?;
        // Never joined: accept(2) cannot be interrupted. The thread ends with the process and owns only the listener.
        Builder::new().name("control".into()).spawn(move || {
            for stream in listener.incoming().flatten() {
                if let Err(error) = serve(&stream, &sender, &notify) {
                    tracing::debug!(%error, "a connection to the control socket failed");
                }
            }
        })?;
        Ok(Server { path: path.to_owned(), requests, wake })
    }

    /// Readable if requests may be pending.
    #[must_use]
    pub fn wake(&self) -> &EventFd {
        &self.wake
    }

    /// Takes the requests that are pending.
    pub fn pending(&self) -> impl Iterator<Item = PendingRequest> + '_ {
        // An error means that it was read already.
        let _ = self.wake.read();
        self.requests.try_iter()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // An error means that it was removed already.
        let _ = std::fs::remove_file(&self.path);
    }
}

fn serve(stream: &UnixStream, requests: &Sender<PendingRequest>, notify: &EventFd) -> io::Result<()> {
    stream.set_read_timeout(Some(CLIENT_TIMEOUT))?;
    stream.set_write_timeout(Some(CLIENT_TIMEOUT))?;
    let mut line = String::new();
    io::Read::take(BufReader::new(stream), MAX_REQUEST_LEN).read_line(&mut line)?;
    let refusal = match serde_json::from_str(&line) {
        Ok(request) => {
            let (response, responses) = mpsc::channel();
            let (writing, written) = mpsc::channel();
            if requests.send(PendingRequest { request, response, written }).is_err() {
                return Ok(());
            }
            notify.write(1)?;
            let ended = |_| json!({ "ok": false, "error": "the machine has ended" });
            let outcome = write_response(stream, &responses.recv().unwrap_or_else(ended));
            drop(writing);
            return outcome;
        }
        Err(error) => json!({ "ok": false, "error": format!("invalid request: {error}") }),
    };
    write_response(stream, &refusal)
}

fn write_response(mut stream: &UnixStream, value: &Value) -> io::Result<()> {
    stream.write_all(format!("{value}\n").as_bytes())
}

/// Sends a request to a running machine and returns its response.
///
/// # Errors
/// Returns an error if no process listens at `path`, or the response is not JSON.
pub fn send_request(path: &Path, request: Request) -> io::Result<Value> {
    let mut stream = UnixStream::connect(path)?;
    writeln!(stream, "{}", serde_json::to_string(&request)?)?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    Ok(serde_json::from_str(&line)?)
}

/// The main thread takes requests, the server's thread sends them.
const _: () = {
    const fn is_send<T: Send>() {}
    is_send::<Server>();
    is_send::<PendingRequest>();
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_gets_a_response_and_the_socket_is_removed() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("control.sock");
        let server = Server::listen(&path).expect("listens");
        assert!(Server::listen(&path).is_err(), "one machine per socket");
        // The second attempt has connected without a request: it must not block the next connection.
        let client = {
            let path = path.clone();
            std::thread::spawn(move || send_request(&path, Request::PowerButton))
        };
        let pending = server.requests.recv_timeout(Duration::from_secs(20)).expect("a request");
        assert_eq!(pending.request, Request::PowerButton);
        pending.respond(Ok(json!({ "pressed": 1 })));
        let response = client.join().expect("no panic").expect("a response");
        assert_eq!(response.to_string(), r#"{"ok":true,"pressed":1}"#);
        drop(server);
        assert!(!path.exists());
    }

    #[test]
    fn an_invalid_request_gets_an_error_response() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("control.sock");
        let _server = Server::listen(&path).expect("listens");
        let mut stream = UnixStream::connect(&path).expect("listens");
        writeln!(stream, "{{\"command\":\"self-destruct\"}}").expect("writes");
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).expect("a response");
        assert!(line.contains("self-destruct"), "{line}");
    }

    #[test]
    fn a_file_that_is_not_a_socket_is_not_replaced() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("precious");
        std::fs::write(&path, "data").expect("writes");
        assert!(Server::listen(&path).is_err());
        assert_eq!(std::fs::read_to_string(&path).expect("still there"), "data");
    }
}
