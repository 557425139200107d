//! A back end, written after the vhost-user specification: it fills the first buffer of every request with a byte.
//!
//! It accesses the guest's memory by the files that it receives.

use std::fs::File;
use std::io::{IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

/// What the back end does.
#[derive(Clone, Copy)]
pub(crate) struct Behaviour {
    /// The features that it offers.
    pub(crate) features: u64,
    /// What it fills buffers with.
    pub(crate) byte: u8,
    /// The request that it does not answer.
    pub(crate) silent_at: Option<u32>,
    /// How many requests it takes and does not complete before it ends.
    pub(crate) dies_with: Option<u16>,
}

pub(crate) const PROTOCOL_FEATURES: u64 = 1 << 30;

pub(crate) const GET_FEATURES: u32 = 1;
const SET_FEATURES: u32 = 2;
const SET_OWNER: u32 = 3;
const SET_MEM_TABLE: u32 = 5;
const SET_VRING_NUM: u32 = 8;
const SET_VRING_ADDR: u32 = 9;
const SET_VRING_BASE: u32 = 10;
pub(crate) const GET_VRING_BASE: u32 = 11;
const SET_VRING_KICK: u32 = 12;
const SET_VRING_CALL: u32 = 13;
const GET_PROTOCOL_FEATURES: u32 = 15;
const SET_PROTOCOL_FEATURES: u32 = 16;
const GET_QUEUE_NUM: u32 = 17;
const SET_VRING_ENABLE: u32 = 18;

/// Protocol features MQ and REPLY_ACK.
const MQ_AND_REPLY_ACK: u64 = 1 << 0 | 1 << 3;
const REPLY: u32 = 1 << 2;
const NEED_REPLY: u32 = 1 << 3;

pub(crate) struct BackEnd {
    thread: Option<JoinHandle<()>>,
    /// The requests that it received, with their first eight bytes.
    pub(crate) requests: Receiver<(u32, u64)>,
    /// Closed to end it.
    life: Option<UnixStream>,
}

struct Region {
    gpa: u64,
    len: u64,
    user: u64,
    file: File,
    offset: u64,
}

#[derive(Default)]
struct Ring {
    size: u16,
    next: u16,
    /// Descriptor table, used ring, available ring, as addresses of the front end.
    parts: [u64; 3],
    kick: Option<File>,
    call: Option<File>,
}

struct Server {
    behaviour: Behaviour,
    stream: UnixStream,
    requests: Sender<(u32, u64)>,
    regions: Vec<Region>,
    rings: Vec<Ring>,
    taken: u16,
}

impl BackEnd {
    /// Serves one connection at a socket.
    pub(crate) fn listen(socket: &Path, behaviour: Behaviour) -> Self {
        let _ = std::fs::remove_file(socket);
        let listener = UnixListener::bind(socket).expect("a socket");
        let (sender, requests) = channel();
        let (life, end) = UnixStream::pair().expect("a socket pair");
        let thread = thread::spawn(move || {
            let mut ready = [PollFd::new(&listener, PollFlags::IN), PollFd::new(&end, PollFlags::IN)];
            poll(&mut ready, None).expect("poll(2)");
            if !ready[1].revents().is_empty() {
                return;
            }
            let (stream, _) = listener.accept().expect("a connection");
            drop(listener);
            let rings = (0..4).map(|_| Ring::default()).collect();
            let mut server =
                Server { behaviour, stream, requests: sender, regions: Vec::new(), rings, taken: 0 };
            while server.step(&end).is_some() {}
        });
        BackEnd { thread: Some(thread), requests, life: Some(life) }
    }

    /// Whether it received a request, from now on or earlier.
    pub(crate) fn received(&self, wanted: u32) -> u64 {
        loop {
            let (request, value) =
                self.requests.recv_timeout(std::time::Duration::from_secs(20)).expect("the request");
            if request == wanted {
                return value;
            }
        }
    }
}

impl Drop for BackEnd {
    fn drop(&mut self) {
        self.life = None;
        let outcome = self.thread.take().expect("a thread").join();
        assert!(outcome.is_ok() || thread::panicking(), "the back end panicked");
    }
}

impl Server {
    /// Waits for a request or a notification, and handles it. `None` at the end.
    fn step(&mut self, end: &UnixStream) -> Option<()> {
        let kicks: Vec<_> =
            (0..).zip(&self.rings).filter_map(|(at, ring)| Some((at, ring.kick.as_ref()?))).collect();
        let mut fds = vec![PollFd::new(&self.stream, PollFlags::IN), PollFd::new(end, PollFlags::IN)];
        fds.extend(kicks.iter().map(|(_, kick)| PollFd::new(*kick, PollFlags::IN)));
        poll(&mut fds, None).expect("poll(2)");
        let is_ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        let kicked: Vec<usize> =
            kicks.iter().zip(&is_ready[2..]).filter(|(_, ready)| **ready).map(|((at, _), _)| *at).collect();
        if is_ready[1] {
            return None;
        }
        for at in kicked {
            let _ = self.rings[at].kick.as_mut().expect("kicked").read(&mut [0; 8]);
            self.serve(at)?;
        }
        if is_ready[0] { self.request() } else { Some(()) }
    }

    fn request(&mut self) -> Option<()> {
        let mut header = [0; 12];
        let mut files = self.receive(&mut header)?;
        let word = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("four bytes"));
        let (request, flags, size) = (word(0), word(4), word(8));
        assert_eq!(flags & 3, 1, "version 1");
        let mut body = vec![0; size as usize];
        self.stream.read_exact(&mut body).expect("the body");
        let long = |at: usize| u64::from_le_bytes(body[at..at + 8].try_into().expect("eight bytes"));
        let index = body.first().map_or(0, |index| usize::from(*index));
        let _ = self.requests.send((request, if body.len() >= 8 { long(0) } else { 0 }));
        if self.behaviour.silent_at == Some(request) {
            return Some(());
        }
        let mut answer = None;
        match request {
            GET_FEATURES => answer = Some(self.behaviour.features | PROTOCOL_FEATURES),
            GET_PROTOCOL_FEATURES => answer = Some(MQ_AND_REPLY_ACK),
            GET_QUEUE_NUM => answer = Some(self.rings.len() as u64),
            SET_OWNER | SET_FEATURES | SET_PROTOCOL_FEATURES | SET_VRING_ENABLE => {}
            SET_MEM_TABLE => {
                assert_eq!(long(0) as usize, files.len(), "a file for each region");
                let region = |(at, file)| {
                    let at = 8 + 32 * at;
                    Region {
                        gpa: long(at),
                        len: long(at + 8),
                        user: long(at + 16),
                        offset: long(at + 24),
                        file,
                    }
                };
                self.regions = files.drain(..).enumerate().map(region).collect();
            }
            SET_VRING_NUM => self.rings[index].size = body[4].into(),
            SET_VRING_BASE => self.rings[index].next = u16::from_le_bytes([body[4], body[5]]),
            SET_VRING_ADDR => self.rings[index].parts = [long(8), long(16), long(24)],
            SET_VRING_KICK => self.rings[index].kick = files.pop(),
            SET_VRING_CALL => self.rings[index].call = files.pop(),
            GET_VRING_BASE => {
                self.rings[index].kick = None;
                answer = Some(index as u64 | u64::from(self.rings[index].next) << 32);
            }
            other => panic!("request {other}"),
        }
        assert!(files.is_empty(), "request {request} has {} files too many", files.len());
        let answer = answer.or((flags & NEED_REPLY != 0).then_some(0));
        if let Some(answer) = answer {
            let mut reply = Vec::new();
            for word in [request, 1 | REPLY, 8] {
                reply.extend(word.to_le_bytes());
            }
            reply.extend(answer.to_le_bytes());
            self.stream.write_all(&reply).ok()?;
        }
        Some(())
    }

    /// Receives a header and the files beside it. `None` if the front end has closed the connection.
    fn receive(&self, header: &mut [u8; 12]) -> Option<Vec<File>> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut buffers = [IoSliceMut::new(header)];
        let received = recvmsg(&self.stream, &mut buffers, &mut ancillary, RecvFlags::WAITALL);
        if received.map_or(0, |received| received.bytes) == 0 {
            return None;
        }
        let mut files = Vec::new();
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                files.extend(fds.map(|fd: OwnedFd| File::from(fd)));
            }
        }
        Some(files)
    }

    /// Completes the requests of a ring. `None` if the back end dies with one.
    fn serve(&mut self, at: usize) -> Option<()> {
        let [descriptors, used, available] = self.rings[at].parts;
        loop {
            let next = self.rings[at].next;
            if self.u16(available + 2) == next {
                break;
            }
            self.taken += 1;
            if self.behaviour.dies_with == Some(self.taken) {
                return None;
            }
            let size = u64::from(self.rings[at].size);
            let head = self.u16(available + 4 + 2 * (u64::from(next) % size));
            let descriptor = descriptors + 16 * u64::from(head);
            let start = u64::from_le_bytes(self.read(descriptor));
            let len = u32::from_le_bytes(self.read(descriptor + 8));
            let region = self.regions.iter().find(|region| start - region.gpa < region.len).expect("memory");
            let bytes = vec![self.behaviour.byte; len as usize];
            region.file.write_all_at(&bytes, region.offset + (start - region.gpa)).expect("memory");
            let returned = self.u16(used + 2);
            let element = used + 4 + 8 * (u64::from(returned) % size);
            self.write(element, &u32::from(head).to_le_bytes());
            self.write(element + 4, &len.to_le_bytes());
            self.write(used + 2, &returned.wrapping_add(1).to_le_bytes());
            self.rings[at].next = next.wrapping_add(1);
            let call = self.rings[at].call.as_mut().expect("a ring that is served has a call");
            call.write_all(&1_u64.to_ne_bytes()).expect("an eventfd");
        }
        Some(())
    }

    fn place(&self, user: u64) -> (&File, u64) {
        let contains = |region: &&Region| user >= region.user && user - region.user < region.len;
        let region = self.regions.iter().find(contains).expect("an address of the front end");
        (&region.file, region.offset + (user - region.user))
    }

    fn read<const N: usize>(&self, user: u64) -> [u8; N] {
        let (file, at) = self.place(user);
        let mut bytes = [0; N];
        file.read_exact_at(&mut bytes, at).expect("memory");
        bytes
    }

    fn u16(&self, user: u64) -> u16 {
        u16::from_le_bytes(self.read(user))
    }

    fn write(&self, user: u64, bytes: &[u8]) {
        let (file, at) = self.place(user);
        file.write_all_at(bytes, at).expect("memory");
    }
}
