//! The server with clients of every kind.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use event_manager::{EventManager, EventOps, Events, MutEventSubscriber, SubscriberOps};
use serde_json::{Value, json};

use super::*;
use crate::journal::Journal;
use crate::timings::Timings;

type Handle<'a> = dyn FnMut(Request) -> Result<Value, String> + Send + 'a;

struct Machine<'a> {
    server: Server,
    handle: Box<Handle<'a>>,
}

impl MutEventSubscriber for Machine<'_> {
    fn process(&mut self, events: Events, ops: &mut EventOps<'_>) {
        self.server.process(events, ops, &mut *self.handle);
    }

    fn init(&mut self, ops: &mut EventOps<'_>) {
        self.server.watch(ops);
    }
}

/// A machine that handles requests by `handle`, while `clients` talks to its socket.
fn serve<'a>(handle: impl FnMut(Request) -> Result<Value, String> + Send + 'a, clients: impl FnOnce(&Path)) {
    /// Ends the event loop, also if `clients` panics.
    struct End<'a>(&'a AtomicBool);
    impl Drop for End<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("control.sock");
    let clock = Arc::new(Timings::start());
    let journal = Arc::new(Journal::start(None, clock).expect("a writer"));
    let server = Server::listen(&path, "test", journal).expect("listens");
    let has_ended = AtomicBool::new(false);
    let machine = Machine { server, handle: Box::new(handle) };
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut events = EventManager::new().expect("an event loop");
            events.add_subscriber(machine);
            while !has_ended.load(Ordering::SeqCst) {
                events.run_with_timeout(10).expect("events");
            }
        });
        let _end = End(&has_ended);
        clients(&path);
    });
    assert!(!path.exists(), "the socket is left");
}

fn running(_: Request) -> Result<Value, String> {
    Ok(json!({ "state": "running" }))
}

/// A client that has not read the greeting.
fn connect_only(path: &Path) -> UnixStream {
    let stream = UnixStream::connect(path).expect("listens");
    // Far more than any response takes: a client that is not served fails instead of hanging.
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket");
    stream
}

fn connect(path: &Path) -> UnixStream {
    let mut stream = connect_only(path);
    let expected = Greeting::of("test").line();
    let mut greeting = vec![0; expected.len()];
    stream.read_exact(&mut greeting).expect("a greeting");
    assert_eq!(greeting, expected.as_bytes());
    stream
}

fn send_request(path: &Path, request: Request, timeout: Duration) -> Result<Value, RequestFailed> {
    Client::connect(path, timeout)?.request(&request)
}

const STATUS: &[u8] = b"{\"command\":\"status\"}\n";
const RUNNING: &str = "{\"ok\":true,\"state\":\"running\"}\n";

fn status(path: &Path) -> String {
    send_request(path, Request::Status, Duration::from_secs(20)).expect("a response").to_string()
}

#[test]
fn a_connection_takes_many_requests_and_each_has_its_response() {
    serve(running, |path| {
        let mut client = connect(path);
        let requests = [STATUS, b"nonsense\n", STATUS, b"{\"command\":\"stop\"}"].concat();
        let (first, rest) = requests.split_at(10);
        client.write_all(first).expect("a server");
        thread::sleep(Duration::from_millis(20));
        client.write_all(rest).expect("a server");
        // The last request has no line end. A client that sends no more gets its responses all the same.
        client.shutdown(Shutdown::Write).expect("a socket");
        let mut responses = String::new();
        client.read_to_string(&mut responses).expect("responses and the end");
        let responses: Vec<_> = responses.split_inclusive('\n').collect();
        assert!(responses[1].contains("invalid request"), "{responses:?}");
        assert_eq!([responses[0], responses[2], responses[3]], [RUNNING; 3]);
        assert_eq!(responses.len(), 4);
    });
}

#[test]
fn silent_clients_cost_nobody_anything() {
    serve(running, |path| {
        let silent: Vec<_> = (0..200).map(|_| connect(path)).collect();
        assert_eq!(format!("{}\n", status(path)), RUNNING);
        // Those that were silent for the longest time were disconnected, with the reason.
        let mut line = String::new();
        BufReader::new(&silent[0]).read_line(&mut line).expect("a reason");
        assert!(line.contains("other clients need the connection"), "{line}");
        let mut last = &silent[199];
        last.write_all(STATUS).expect("a server");
        line.clear();
        BufReader::new(last).read_line(&mut line).expect("a response");
        assert_eq!(line, RUNNING);
    });
}

/// Nobody waits for clients that send their request byte by byte, or do not read the response, and they are disconnected in time.
#[test]
fn slow_clients_cost_nobody_anything() {
    let long = "x".repeat(8 << 20);
    let handle = |request| match request {
        Request::Ledger => Ok(json!({ "entries": long })),
        request => running(request),
    };
    serve(handle, |path| {
        let reader = connect(path);
        (&reader).write_all(b"{\"command\":\"ledger\"}\n").expect("a server");
        let mut slow = connect(path);
        let mut refusal = String::new();
        slow.write_all(b"{").expect("a server");
        // More than the deadline allows; the refusal is that of the whole request, not of a byte.
        while slow.write_all(b" ").is_ok() {
            assert_eq!(format!("{}\n", status(path)), RUNNING);
            thread::sleep(Duration::from_millis(50));
        }
        slow.read_to_string(&mut refusal).expect("a reason");
        assert!(refusal.contains("not complete within 5s"), "{refusal}");
        let mut read = Vec::new();
        // The connection is closed, so there is an end.
        (&reader).read_to_end(&mut read).expect("a part of the response");
        assert!(!read.is_empty() && read.len() < long.len(), "{}", read.len());
    });
}

#[test]
fn a_request_whose_client_has_gone_is_not_carried_out() {
    let handled = Mutex::new(Vec::new());
    let (go_on, may_go_on) = mpsc::channel();
    let (busy, is_busy) = mpsc::channel();
    let requests = &handled;
    let handle = move |request: Request| {
        requests.lock().expect("no panic").push(request.clone());
        if request == Request::Pause {
            busy.send(()).expect("a test");
            may_go_on.recv_timeout(Duration::from_secs(20)).expect("a test");
        }
        running(request)
    };
    serve(handle, |path| {
        let gone = connect(path);
        let patient = connect(path);
        thread::scope(|scope| {
            let pause = scope.spawn(|| send_request(path, Request::Pause, Duration::from_secs(20)));
            is_busy.recv_timeout(Duration::from_secs(20)).expect("the pause is being handled");
            (&gone).write_all(b"{\"command\":\"stop\"}\n").expect("a server");
            drop(gone);
            // It sends no further request, and waits.
            (&patient).write_all(b"{\"command\":\"resume\"}\n").expect("a server");
            patient.shutdown(Shutdown::Write).expect("a socket");
            go_on.send(()).expect("a machine");
            pause.join().expect("no panic").expect("a response");
        });
        let mut response = String::new();
        (&patient).read_to_string(&mut response).expect("a response");
        assert_eq!(response, RUNNING);
        status(path);
    });
    assert_eq!(*handled.lock().expect("no panic"), [Request::Pause, Request::Resume, Request::Status]);
}

#[test]
fn a_request_is_bounded() {
    serve(running, |path| {
        let mut client = connect(path);
        // The server reads no further, and closes the connection.
        while client.write_all(&[b'x'; 4096]).is_ok() {}
        let mut response = Vec::new();
        let _ = client.read_to_end(&mut response);
        let response = String::from_utf8_lossy(&response);
        assert!(response.contains("more than 65536 bytes"), "{response}");
        assert_eq!(format!("{}\n", status(path)), RUNNING);
    });
}

#[test]
fn responses_that_nobody_reads_are_bounded() {
    let long = "x".repeat(15 << 20);
    serve(
        |_| Ok(json!({ "entries": long })),
        |path| {
            let readers: Vec<_> = (0..4)
                .map(|_| {
                    let mut client = connect(path);
                    client.write_all(b"{\"command\":\"ledger\"}\n").expect("a server");
                    client.shutdown(Shutdown::Write).expect("a socket");
                    // The response has begun, so it is complete at the server.
                    client.read_exact(&mut [0]).expect("a response");
                    client
                })
                .collect();
            let lens = readers.into_iter().map(|mut reader| {
                let mut rest = Vec::new();
                reader.read_to_end(&mut rest).map(|_| rest.len() > long.len()).unwrap_or(false)
            });
            // Read one after the other, so none of them is read to its end before the next one has begun.
            let complete: Vec<bool> = lens.collect();
            assert_eq!(complete, [false, false, true, true]);
        },
    );
}

fn follow(path: &Path) -> (UnixStream, String) {
    let mut client = connect(path);
    client.write_all(b"{\"command\":\"events\",\"follow\":true}\n").expect("a server");
    let mut line = String::new();
    BufReader::new(&client).read_line(&mut line).expect("a response");
    (client, line)
}

/// Followers are bounded, cost other clients nothing, and their connections are not those that other clients need.
#[test]
fn followers_are_bounded_and_are_not_idle() {
    serve(running, |path| {
        let mut followers = Vec::new();
        for _ in 0..MAX_FOLLOWERS {
            let (client, response) = follow(path);
            assert_eq!(response, "{\"ok\":true}\n");
            followers.push(client);
        }
        let (mut refused, response) = follow(path);
        assert!(response.contains("8 clients follow the events already"), "{response}");
        // It is a client as before.
        refused.write_all(STATUS).expect("a server");
        let mut line = String::new();
        BufReader::new(&refused).read_line(&mut line).expect("a response");
        assert_eq!(line, RUNNING);
        let silent: Vec<_> = (0..100).map(|_| connect(path)).collect();
        assert_eq!(format!("{}\n", status(path)), RUNNING);
        for follower in &mut followers {
            follower.set_nonblocking(true).expect("a socket");
            let end = follower.read(&mut [0]).expect_err("neither an event nor an end");
            assert_eq!(end.kind(), std::io::ErrorKind::WouldBlock);
        }
        drop((silent, followers.pop()));
        // The journal's thread notices that one has gone.
        while follow(path).1 != "{\"ok\":true}\n" {
            thread::sleep(Duration::from_millis(1));
        }
    });
}
