//! Programs for a shared directory, whose back end is hostile: what it will ever say is in its socket from the start.
//!
//! The device's thread drives the connection: here alone, an input is not carried out in the same order each time.

use std::io::{IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;

use arbitrary::{Arbitrary, Result, Unstructured};
use devices::vhost_user::VhostUserBackend;
use devices::virtio_fs::Fs;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use super::Subject;
use super::machine::Machine;
use super::program::bytes;
use crate::driver::{INDIRECT, VERSION_1};

pub(crate) struct Device {
    back_end: UnixStream,
}

/// What the back end says.
#[derive(Debug)]
pub(crate) struct Replies(Vec<Reply>);

#[derive(Debug)]
enum Reply {
    /// Those of a back end that follows the rules, up to where it is connected; with acknowledgements of requests, or without.
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

/// The most replies: the socket has space for them.
const MAX_REPLIES: usize = 40;

const GET_FEATURES: u32 = 1;
const GET_VRING_BASE: u32 = 11;
const GET_PROTOCOL_FEATURES: u32 = 15;
const GET_QUEUE_NUM: u32 = 17;
/// SET_FEATURES and SET_MEM_TABLE; for each ring its NUM, ADDR, BASE, CALL, KICK and ENABLE.
const START: [u32; 2] = [2, 5];
const START_RING: [u32; 6] = [8, 9, 10, 13, 12, 18];

const PROTOCOL_FEATURES: u64 = 1 << 30;
const MQ: u64 = 1 << 0;
const REPLY_ACK: u64 = 1 << 3;
/// Version 1, and that it is a reply.
const REPLY: u32 = 1 | 1 << 2;

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
    /// Its bytes, and whether a descriptor comes with them.
    fn encode(&self) -> (Vec<u8>, bool) {
        match self {
            Reply::Connect { acknowledges } => {
                let protocol = MQ | if *acknowledges { REPLY_ACK } else { 0 };
                let features = VERSION_1 | INDIRECT | PROTOCOL_FEATURES;
                let replies =
                    [(GET_FEATURES, features), (GET_PROTOCOL_FEATURES, protocol), (GET_QUEUE_NUM, 2)];
                (replies.map(|(request, answer)| reply(request, answer)).concat(), false)
            }
            Reply::Start => {
                let requests = START.iter().chain(&START_RING).chain(&START_RING);
                (requests.flat_map(|&request| reply(request, 0)).collect(), false)
            }
            Reply::Base { ring, base } => {
                (reply(GET_VRING_BASE, u64::from(*ring) | u64::from(*base) << 32), false)
            }
            Reply::Any { request, flags, len, body, file } => {
                let header = [*request, *flags, *len].map(u32::to_le_bytes).concat();
                ([header, body.clone()].concat(), *file)
            }
            Reply::Bytes(bytes) => (bytes.clone(), false),
        }
    }
}

fn reply(request: u32, answer: u64) -> Vec<u8> {
    [&[request, REPLY, 8].map(u32::to_le_bytes).concat()[..], &answer.to_le_bytes()].concat()
}

/// Sends bytes, and with them a descriptor, that of the socket itself.
fn send(mut to: &UnixStream, bytes: &[u8], file: bool) {
    if !file {
        return to.write_all(bytes).expect("space");
    }
    let fds = [to.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    assert!(ancillary.push(SendAncillaryMessage::ScmRights(&fds)));
    sendmsg(to, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL).expect("space");
}

impl Subject for Device {
    type Options = Replies;
    type Host = ();
    type Model = Fs;

    const QUEUES: u16 = 2;
    const IS_SHARED: bool = true;

    fn open(Replies(replies): Replies) -> Option<(Self, Fs)> {
        let (back_end, front_end) = UnixStream::pair().expect("a socket pair");
        for (bytes, file) in replies.iter().map(Reply::encode) {
            send(&back_end, &bytes, file);
        }
        back_end.shutdown(Shutdown::Write).expect("shutdown(2)");
        back_end.set_nonblocking(true).expect("fcntl(2)");
        let backend = VhostUserBackend::over(front_end, Path::new("/nonexistent/socket"), 2).ok()?;
        Some((Device { back_end }, Fs::new("share", Arc::new(backend))))
    }

    fn request(_: &mut Unstructured<'_>) -> Result<Vec<u8>> {
        Ok(Vec::new())
    }

    /// Receives what the front end has sent.
    fn host(&mut self, (): (), _: &mut Machine) {
        while self.back_end.read(&mut [0; 4096]).is_ok_and(|len| len > 0) {}
    }

    fn works(&mut self, machine: &mut Machine) {
        self.host((), machine);
    }
}
