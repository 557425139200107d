//! Frames over a stream socket, as passt and QEMU's `-netdev stream` have them: a length of 4 bytes, big-endian, then the frame.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;

use super::packet::{self, HEADER_LEN, MAX_FRAME_LEN, MIN_FRAME_LEN};

/// Bytes of a frame's length.
const PREFIX_LEN: usize = size_of::<u32>();
/// Bytes that are read at a time: a frame of the maximum length, or many short ones.
const INPUT_LEN: usize = 128 << 10;
const _: () = assert!(INPUT_LEN > PREFIX_LEN + MAX_FRAME_LEN);

/// A connection that does not block. After an error it cannot be used any more: the bounds of frames are unknown.
#[derive(Debug)]
pub(super) struct FrameStream {
    socket: UnixStream,
    input: Box<[u8]>,
    /// The bytes of `input` that were received and are in no packet yet.
    received: std::ops::Range<usize>,
    /// Whether there may be more to receive, or to send: what epoll reports once only.
    is_readable: bool,
    is_writable: bool,
    /// The rest of a frame that the socket took a part of.
    unsent: Vec<u8>,
}

impl FrameStream {
    /// Frames over a socket, which becomes non-blocking.
    pub(super) fn new(socket: UnixStream) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(FrameStream {
            socket,
            input: vec![0; INPUT_LEN].into(),
            received: 0..0,
            is_readable: true,
            is_writable: true,
            unsent: Vec::new(),
        })
    }

    pub(super) fn socket(&self) -> &UnixStream {
        &self.socket
    }

    /// The socket is ready, for what is known.
    pub(super) fn ready(&mut self) {
        self.is_readable = true;
        self.is_writable = true;
    }

    /// Receives a frame into a packet, and returns the packet's length. `None` if there is no complete frame.
    ///
    /// # Errors
    /// Returns an error if the other side has ended, or sends what is not a frame.
    pub(super) fn receive(&mut self, packet: &mut [u8]) -> io::Result<Option<usize>> {
        loop {
            if let Some(frame) = self.next_frame()? {
                let len = HEADER_LEN + frame.len();
                let to = packet.get_mut(HEADER_LEN..len).ok_or(io::ErrorKind::InvalidData)?;
                to.copy_from_slice(&self.input[frame]);
                packet::clear_header(packet);
                return Ok(Some(len));
            }
            if !self.is_readable {
                return Ok(None);
            }
            self.fill()?;
        }
    }

    /// Takes the next complete frame of the input.
    fn next_frame(&mut self) -> io::Result<Option<std::ops::Range<usize>>> {
        let Some((prefix, rest)) = self.input[self.received.clone()].split_first_chunk() else {
            return Ok(None);
        };
        let len = u32::from_be_bytes(*prefix) as usize;
        if !(MIN_FRAME_LEN..=MAX_FRAME_LEN).contains(&len) {
            let message = format!("a frame of {len} bytes was announced");
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        if rest.len() < len {
            return Ok(None);
        }
        let start = self.received.start + PREFIX_LEN;
        self.received.start = start + len;
        Ok(Some(start..start + len))
    }

    /// Receives more bytes behind those that are there: less than a frame.
    fn fill(&mut self) -> io::Result<()> {
        self.input.copy_within(self.received.clone(), 0);
        self.received = 0..self.received.len();
        let space = &mut self.input[self.received.end..];
        match self.socket.read(space) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(len) => {
                // Less than there was space for: nothing is left.
                self.is_readable = len == space.len();
                self.received.end += len;
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.is_readable = false;
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Sends what is left of the last frame. Returns whether the next one can be sent.
    ///
    /// # Errors
    /// Returns an error if the other side has ended.
    pub(super) fn flush(&mut self) -> io::Result<bool> {
        while self.is_writable && !self.unsent.is_empty() {
            let sent = write(&self.socket, &self.unsent)?;
            self.is_writable = sent == self.unsent.len();
            self.unsent.drain(..sent);
        }
        Ok(self.unsent.is_empty())
    }

    /// Sends the frame of a packet, after [`flush`](Self::flush) has returned true.
    ///
    /// Each frame is a write of its own: passt of Debian 12 loses track of the frames if it receives a part of a length.
    ///
    /// # Errors
    /// Returns an error if the other side has ended.
    pub(super) fn send(&mut self, packet: &mut [u8]) -> io::Result<()> {
        // The length takes the place of the header's end.
        let len = packet.len().saturating_sub(HEADER_LEN) as u32;
        let Some(message) = packet.get_mut(HEADER_LEN - PREFIX_LEN..) else { return Ok(()) };
        message.iter_mut().zip(len.to_be_bytes()).for_each(|(to, from)| *to = from);
        let sent = write(&self.socket, message)?;
        if sent < message.len() {
            self.is_writable = false;
            self.unsent.extend_from_slice(&message[sent..]);
        }
        Ok(())
    }
}

/// Writes as much as a socket takes now.
fn write(mut socket: &UnixStream, bytes: &[u8]) -> io::Result<usize> {
    loop {
        match socket.write(bytes) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(0),
            outcome => return outcome,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (FrameStream, UnixStream) {
        let (ours, theirs) = UnixStream::pair().expect("sockets");
        (FrameStream::new(ours).expect("a stream"), theirs)
    }

    fn message(frame: &[u8]) -> Vec<u8> {
        [&(frame.len() as u32).to_be_bytes()[..], frame].concat()
    }

    fn received(stream: &mut FrameStream) -> Option<Vec<u8>> {
        let mut packet = packet::buffer();
        packet.fill(0xee);
        stream.ready();
        let len = stream.receive(&mut packet).expect("a frame")?;
        assert_eq!(packet[..HEADER_LEN], [0; HEADER_LEN]);
        Some(packet[HEADER_LEN..len].to_vec())
    }

    #[test]
    fn frames_are_received_whatever_the_parts_that_they_arrive_in() {
        let (mut stream, mut peer) = pair();
        let frames = [vec![1; 14], vec![2; 1514], vec![3; MAX_FRAME_LEN]];
        let bytes: Vec<u8> = frames.iter().flat_map(|frame| message(frame)).collect();
        for part in [1, 3, 4, 17, 1000, 60_000, bytes.len()] {
            let mut got = Vec::new();
            for part in bytes.chunks(part) {
                peer.write_all(part).expect("space in the socket");
                got.extend(std::iter::from_fn(|| received(&mut stream)));
            }
            assert!(got == frames, "parts of {part} bytes");
        }
    }

    #[test]
    fn frames_are_sent_once_the_reader_takes_them() {
        let (mut stream, mut peer) = pair();
        let frame = |index: u8| [vec![0; HEADER_LEN], vec![index; 60_000]].concat();
        let mut sent = 0;
        while stream.flush().expect("a reader") {
            stream.send(&mut frame(sent)).expect("a reader");
            sent += 1;
        }
        assert!(sent > 1);
        for index in 0..sent {
            // The rest of the last frame needs the space that the first ones leave.
            stream.ready();
            stream.flush().expect("a reader");
            let mut bytes = vec![0; PREFIX_LEN + 60_000];
            peer.read_exact(&mut bytes).expect("a frame");
            assert!(bytes == message(&[index; 60_000]), "frame {index}");
        }
        assert!(stream.unsent.is_empty());
    }

    #[test]
    fn what_is_not_a_frame_is_an_error_and_so_is_the_end() {
        for len in [0, 13, MAX_FRAME_LEN as u32 + 1, u32::MAX] {
            let (mut stream, mut peer) = pair();
            peer.write_all(&len.to_be_bytes()).expect("space in the socket");
            let error = stream.receive(&mut packet::buffer()).expect_err("not a frame");
            assert_eq!(error.to_string(), format!("a frame of {len} bytes was announced"));
        }
        let (mut stream, peer) = pair();
        drop(peer);
        let error = stream.receive(&mut packet::buffer()).expect_err("the end");
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        assert!(stream.send(&mut [0; 100]).is_err());
    }
}
