//! Programs for a shared directory, whose back end is hostile: it answers the requests that need an answer with the replies of the
//! program, one after the other, and then it ends. At the end of the program another back end listens, which follows the rules.
//!
//! The device's thread drives the connection: here alone, an input is not carried out in the same order each time.

use std::io::{IoSlice, Read};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;
use std::{fs, io};

use arbitrary::{Arbitrary, Result, Unstructured};
use devices::vhost_user::VhostUserBackend;
use devices::virtio_fs::Fs;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use tempfile::TempDir;

use super::Subject;
use super::machine::Machine;
use super::program::bytes;
use crate::driver::{EVENT_INDEX, INDIRECT, STATUS, VERSION_1};

thread_local! {
    /// Where the back end listens that follows the rules.
    static DIRECTORY: TempDir = tempfile::tempdir().expect("a directory");
}

pub(crate) struct Device {
    /// The hostile back end, until it is ended.
    back_end: UnixStream,
    thread: Option<JoinHandle<()>>,
}

/// What the back end says.
#[derive(Debug)]
pub(crate) struct Replies(Vec<Reply>);

#[derive(Debug)]
enum Reply {
    /// Those of a back end that follows the rules, until it is connected; with acknowledgements of requests, or without.
    Connect {
        acknowledges: bool,
    },
    /// The acknowledgements of all requests by which a back end is started with two rings.
    Start,
    /// The answer to GET_VRING_BASE.
    Base {
        ring: u32,
        base: u32,
    },
    /// A reply with any header; with a descriptor, or without.
    Any {
        request: u32,
        flags: u32,
        len: u32,
        body: Vec<u8>,
        file: bool,
    },
    Bytes(Vec<u8>),
}

/// The most replies.
const MAX_REPLIES: usize = 40;

/// How long the device may take until it is connected, and for each of its requests: it hangs otherwise.
const DEADLINE: Duration = Duration::from_secs(20);

const QUEUES: u32 = 2;

const GET_FEATURES: u32 = 1;
const GET_VRING_BASE: u32 = 11;
const GET_PROTOCOL_FEATURES: u32 = 15;
const GET_QUEUE_NUM: u32 = 17;
/// SET_OWNER and SET_PROTOCOL_FEATURES among the requests by which a back end is connected.
const CONNECT: [u32; 5] = [3, GET_FEATURES, GET_PROTOCOL_FEATURES, 16, GET_QUEUE_NUM];
/// SET_FEATURES and SET_MEM_TABLE; for each ring its NUM, ADDR, BASE, CALL, KICK and ENABLE.
const START: [u32; 2] = [2, 5];
const START_RING: [u32; 6] = [8, 9, 10, 13, 12, 18];

const PROTOCOL_FEATURES: u64 = 1 << 30;
const MQ: u64 = 1 << 0;
const REPLY_ACK: u64 = 1 << 3;
/// Version 1, and that it is a reply.
const REPLY: u32 = 1 | 1 << 2;
/// The flag of a request that is to be acknowledged.
const NEED_REPLY: u32 = 1 << 3;
const HEADER_LEN: usize = 12;
/// A header, and a number.
const REPLY_LEN: usize = HEADER_LEN + 8;

impl<'a> Arbitrary<'a> for Replies {
    fn arbitrary(input: &mut Unstructured<'a>) -> Result<Self> {
        let mut replies = Vec::new();
        if input.ratio(7, 8)? {
            replies.push(Reply::Connect { acknowledges: input.arbitrary()? });
        }
        let count = input.int_in_range(0..=MAX_REPLIES)?;
        for _ in 0..count {
            replies.push(match input.int_in_range(0..=7)? {
                0..=1 => Reply::Start,
                2..=4 => Reply::Base { ring: input.int_in_range(0..=3)?, base: input.arbitrary()? },
                5..=6 => Reply::Any {
                    request: input.int_in_range(0..=20)?,
                    flags: if input.ratio(3, 4)? { REPLY } else { input.arbitrary()? },
                    len: if input.ratio(3, 4)? { 8 } else { input.arbitrary()? },
                    body: bytes(input, 16)?,
                    file: input.arbitrary()?,
                },
                _ => Reply::Bytes(bytes(input, 16)?),
            });
        }
        Ok(Replies(replies))
    }
}

impl Reply {
    /// The bytes that answer one request after the other, and whether a descriptor comes with them.
    fn encode(&self) -> Vec<(Vec<u8>, bool)> {
        let answer = |(request, answer)| (reply(request, answer), false);
        match self {
            Reply::Connect { acknowledges } => {
                let protocol = MQ | if *acknowledges { REPLY_ACK } else { 0 };
                let features = VERSION_1 | INDIRECT | PROTOCOL_FEATURES;
                let replies = [
                    (GET_FEATURES, features),
                    (GET_PROTOCOL_FEATURES, protocol),
                    (GET_QUEUE_NUM, QUEUES.into()),
                ];
                replies.map(answer).to_vec()
            }
            Reply::Start => start_requests().map(|request| answer((request, 0))).collect(),
            Reply::Base { ring, base } => {
                vec![answer((GET_VRING_BASE, u64::from(*ring) | u64::from(*base) << 32))]
            }
            Reply::Any { request, flags, len, body, file } => {
                let header = [*request, *flags, *len].map(u32::to_le_bytes).concat();
                vec![([header, body.clone()].concat(), *file)]
            }
            Reply::Bytes(bytes) => vec![(bytes.clone(), false)],
        }
    }
}

/// The requests by which a back end is started with two rings.
fn start_requests() -> impl Iterator<Item = u32> {
    START.into_iter().chain(START_RING).chain(START_RING)
}

fn reply(request: u32, answer: u64) -> Vec<u8> {
    [&[request, REPLY, 8].map(u32::to_le_bytes).concat()[..], &answer.to_le_bytes()].concat()
}

/// Sends bytes, and with them a descriptor, that of the socket itself.
fn send(to: &UnixStream, bytes: &[u8], file: bool) -> io::Result<()> {
    let fds = [to.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    assert!(!file || ancillary.push(SendAncillaryMessage::ScmRights(&fds)));
    // The buffer of a socket is larger than any reply: all of it is sent.
    sendmsg(to, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Receives a request of the device. Returns what it is, and whether it needs an answer.
fn request(mut from: &UnixStream) -> io::Result<(u32, bool)> {
    let mut header = [[0; 4]; HEADER_LEN / 4];
    from.read_exact(header.as_flattened_mut())?;
    let [request, flags, len] = header.map(u32::from_le_bytes);
    from.read_exact(&mut vec![0; len as usize])?;
    let gets = [GET_FEATURES, GET_PROTOCOL_FEATURES, GET_QUEUE_NUM, GET_VRING_BASE];
    Ok((request, gets.contains(&request) || flags & NEED_REPLY != 0))
}

/// Is a hostile back end, until the connection or its replies end.
fn be_hostile(socket: &UnixStream, replies: Vec<(Vec<u8>, bool)>) {
    let mut replies = replies.into_iter();
    while let Ok((_, needs_answer)) = request(socket) {
        if !needs_answer {
            continue;
        }
        let Some((bytes, file)) = replies.next() else { break };
        // The device would wait for the rest of a shorter one until its time is over.
        if send(socket, &bytes, file).is_err() || bytes.len() < REPLY_LEN {
            break;
        }
    }
    let _ = socket.shutdown(Shutdown::Both);
}

impl Subject for Device {
    type Options = Replies;
    type Host = ();
    type Model = Fs;

    const QUEUES: u16 = QUEUES as u16;
    const IS_SHARED: bool = true;

    fn prepare() {
        DIRECTORY.with(|_| {});
    }

    fn open(Replies(replies): Replies) -> Option<(Self, Fs)> {
        let (back_end, front_end) = UnixStream::pair().expect("a socket pair");
        let socket = back_end.try_clone().expect("a descriptor");
        let replies = replies.iter().flat_map(Reply::encode).collect();
        let thread = thread::spawn(move || be_hostile(&socket, replies));
        let device = Device { back_end, thread: Some(thread) };
        let backend = VhostUserBackend::over(front_end, &path(), Self::QUEUES).ok()?;
        Some((device, Fs::new("share", Arc::new(backend))))
    }

    fn request(_: &mut Unstructured<'_>) -> Result<Vec<u8>> {
        Ok(Vec::new())
    }

    fn host(&mut self, (): (), _: &mut Machine) {}

    /// Connects to a back end that follows the rules, starts it, and stops it.
    fn works(&mut self, machine: &mut Machine) {
        self.end();
        // The device's thread has ended before somebody listens, and the next one connects when it starts.
        machine.driver.write(STATUS, 0);
        let listener = UnixListener::bind(path()).expect("a socket");
        machine.begin_rules();
        let timeout = Timespec::try_from(DEADLINE).expect("seconds");
        let connected = poll(&mut [PollFd::new(&listener, PollFlags::IN)], Some(&timeout));
        assert_eq!(connected, Ok(1), "the device does not connect to its back end");
        let (peer, _) = listener.accept().expect("a connection");
        fs::remove_file(path()).expect("the socket");
        peer.set_read_timeout(Some(DEADLINE)).expect("a socket");
        for expected in CONNECT.into_iter().chain(start_requests()) {
            let (request, needs_answer) = request(&peer).expect("a request");
            assert_eq!(request, expected);
            let answer = match request {
                GET_FEATURES => VERSION_1 | INDIRECT | EVENT_INDEX | PROTOCOL_FEATURES,
                GET_PROTOCOL_FEATURES => MQ | REPLY_ACK,
                GET_QUEUE_NUM => QUEUES.into(),
                _ => 0,
            };
            if needs_answer {
                send(&peer, &reply(request, answer), false).expect("the device waits");
            }
        }
        // What it asks for when it stops.
        for ring in 0..QUEUES {
            send(&peer, &reply(GET_VRING_BASE, ring.into()), false).expect("space in the socket");
        }
        machine.driver.write(STATUS, 0);
        for _ in 0..QUEUES {
            assert_eq!(request(&peer).expect("a request"), (GET_VRING_BASE, true));
        }
    }
}

/// Of the socket at which the second back end listens.
fn path() -> PathBuf {
    DIRECTORY.with(|directory| directory.path().join("socket"))
}

impl Device {
    /// Ends the hostile back end.
    fn end(&mut self) {
        let _ = self.back_end.shutdown(Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("no panic");
        }
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.end();
    }
}
