//! A device with two queues and a socket on one thread.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};
use std::{io, thread};

use devices::virtio::{GroupContext, QueueGroup, ServeError, Taken};
use vmm_sys_util::epoll::EventSet;

use crate::driver::*;
use crate::served::Served;

/// What the socket receives goes to the buffers of queue 0; the buffers of queue 1 are sent.
struct LinkGroup(UnixStream);

const SOCKET: u32 = 7;
const TO_GUEST: u16 = 0;
const FROM_GUEST: u16 = 1;
/// A byte that the device does not survive.
const BREAK: u8 = 0xff;

impl QueueGroup for LinkGroup {
    fn start(&mut self, context: &mut GroupContext<'_>) -> Result<(), ServeError> {
        Ok(context.watch(&self.0, SOCKET, EventSet::IN)?)
    }

    fn available(&mut self, queue: u16, context: &mut GroupContext<'_>) -> Result<(), ServeError> {
        if queue == TO_GUEST {
            return self.receive(context);
        }
        while let Some(Taken { head, mut request }) = context.pop(queue)? {
            let mut bytes = vec![0; request.readable.len() as usize];
            request.readable.read(&mut bytes).expect("memory");
            self.0.write_all(&bytes)?;
            context.add_used(queue, head, 0)?;
            context.notify_driver(queue)?;
        }
        Ok(())
    }

    fn ready(
        &mut self,
        token: u32,
        events: EventSet,
        context: &mut GroupContext<'_>,
    ) -> Result<(), ServeError> {
        assert!(token == SOCKET && events.contains(EventSet::IN), "{token} {events:?}");
        self.receive(context)
    }
}

impl LinkGroup {
    fn receive(&mut self, context: &mut GroupContext<'_>) -> Result<(), ServeError> {
        while let Some(Taken { head, mut request }) = context.pop(TO_GUEST)? {
            let mut byte = [0];
            match self.0.read(&mut byte) {
                Ok(_) if byte == [BREAK] => return Err(io::Error::from(io::ErrorKind::InvalidData).into()),
                Ok(_) => request.writable.write(&byte).expect("memory"),
                Err(_) => {
                    context.unpop(TO_GUEST, 1);
                    return Ok(());
                }
            }
            context.add_used(TO_GUEST, head, 1)?;
            context.notify_driver(TO_GUEST)?;
        }
        Ok(())
    }
}

/// The parts of each queue, and its buffer.
const QUEUES: [([u64; 3], u64); 2] =
    [([DESCRIPTORS, AVAILABLE, USED], BUFFERS), ([0x2_0000, 0x2_1000, 0x2_2000], BUFFERS + 8)];

fn link() -> (Driver, UnixStream) {
    let (ours, theirs) = UnixStream::pair().expect("a socket pair");
    ours.set_nonblocking(true).expect("fcntl(2)");
    theirs.set_read_timeout(Some(Duration::from_secs(20))).expect("setsockopt(2)");
    let mut driver = Driver::new(Served::new(move || {
        let socket = ours.try_clone().expect("dup(2)");
        vec![(vec![TO_GUEST, FROM_GUEST], Box::new(LinkGroup(socket)))]
    }));
    assert!(driver.agree(VERSION_1));
    (0..2).for_each(|queue| set_up(&mut driver, queue));
    driver.go();
    (driver, theirs)
}

fn set_up(driver: &mut Driver, queue: usize) {
    let (parts, buffer) = QUEUES[queue];
    parts.iter().for_each(|&part| driver.put(part, &[0; 0x200]));
    driver.chain(parts[0], &[Buffer(buffer, 1, queue == usize::from(TO_GUEST))]);
    driver.write(QUEUE_SEL, queue as u32);
    for (register, part) in [QUEUE_DESCRIPTORS, QUEUE_DRIVER, QUEUE_DEVICE].into_iter().zip(parts) {
        driver.write_wide(register, part);
    }
    driver.write(QUEUE_READY, 1);
}

/// Makes the queue's buffer available for the `index`th time, from 1.
fn offer(driver: &mut Driver, queue: usize, index: u8) {
    driver.put(QUEUES[queue].0[1], &[0, 0, index, 0]);
    driver.write(QUEUE_NOTIFY, queue as u32);
}

fn await_used(driver: &Driver, queue: usize, index: u8) {
    let until = Instant::now() + Duration::from_secs(20);
    while driver.bytes(QUEUES[queue].0[2] + 2, 1) != [index] {
        assert!(Instant::now() < until, "queue {queue} is not served");
        thread::sleep(Duration::from_micros(50));
    }
}

fn sent(peer: &mut UnixStream) -> u8 {
    let mut byte = [0];
    peer.read_exact(&mut byte).expect("a byte");
    byte[0]
}

#[test]
fn a_thread_serves_queues_and_a_descriptor() {
    let (mut driver, mut peer) = link();
    // The buffer waits for the socket: the chain is given back meanwhile.
    offer(&mut driver, 0, 1);
    driver.put(BUFFERS + 8, &[3]);
    offer(&mut driver, 1, 1);
    assert_eq!(sent(&mut peer), 3);
    peer.write_all(&[1]).expect("sent");
    await_used(&driver, 0, 1);
    assert_eq!(driver.bytes(BUFFERS, 1), [1]);
    // The socket waits for a buffer.
    peer.write_all(&[2]).expect("sent");
    offer(&mut driver, 0, 2);
    await_used(&driver, 0, 2);
    assert_eq!(driver.bytes(BUFFERS, 1), [2]);
}

#[test]
fn a_stopped_queue_leaves_the_others_of_its_group_alone() {
    let (mut driver, mut peer) = link();
    driver.write(QUEUE_SEL, 0);
    driver.write(QUEUE_READY, 0);
    peer.write_all(&[1]).expect("sent");
    driver.put(BUFFERS + 8, &[4]);
    offer(&mut driver, 1, 1);
    assert_eq!(sent(&mut peer), 4, "without queue 0");
    await_used(&driver, 1, 1);

    set_up(&mut driver, 0);
    driver.put(AVAILABLE, &[0, 0, 1, 0]);
    driver.write(QUEUE_NOTIFY, 0);
    await_used(&driver, 0, 1);
    assert_eq!(driver.bytes(BUFFERS, 1), [1], "what came meanwhile");

    // Nothing is left of the thread, and a new one starts.
    for queue in 0..2 {
        driver.write(QUEUE_SEL, queue);
        driver.write(QUEUE_READY, 0);
    }
    set_up(&mut driver, 1);
    offer(&mut driver, 1, 1);
    assert_eq!(sent(&mut peer), 4);
}

#[test]
fn a_group_that_fails_needs_a_reset() {
    let (mut driver, mut peer) = link();
    offer(&mut driver, 0, 1);
    peer.write_all(&[BREAK]).expect("sent");
    driver.await_status(NEEDS_RESET);
    // Its queues can be stopped; none starts before the reset.
    driver.write(QUEUE_SEL, 1);
    driver.write(QUEUE_READY, 0);
    driver.write(QUEUE_READY, 1);
    assert_eq!(driver.read(QUEUE_READY), 0);
    driver.write(STATUS, 0);
    assert_eq!(driver.read(STATUS), 0);

    assert!(driver.agree(VERSION_1));
    (0..2).for_each(|queue| set_up(&mut driver, queue));
    driver.go();
    offer(&mut driver, 0, 1);
    peer.write_all(&[5]).expect("sent");
    await_used(&driver, 0, 1);
    assert_eq!(driver.bytes(BUFFERS, 1), [5]);
}
