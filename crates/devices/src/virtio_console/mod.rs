//! A virtio console (VIRTIO 1.2, 5.3), whose host side are Unix sockets: either a console, or named ports.
//!
//! | device | feature | in Linux |
//! |---|---|---|
//! | console | VIRTIO_CONSOLE_F_SIZE | `/dev/hvc0`; the VMM sets the size of its terminal ([`ConsoleSize`]) |
//! | ports | VIRTIO_CONSOLE_F_MULTIPORT | `/dev/vportNp1` and the following, where N is the device's number among those of its driver, and by udev `/dev/virtio-ports/NAME` |
//!
//! A console is a device of its own, because its size is in the device's configuration then. Among several ports it would be in a control
//! message (5.3.6.2), in which Linux took the columns for the rows until its commit 5326ab737a47 of 2025. Port 0 of a device with named
//! ports does not exist.
//!
//! Each port has a socket, which has one client at a time; others wait until it has gone. A client stays across resets of the guest. A
//! console can be the VMM's own terminal instead: it has one client from its start to its end, the VMM, for which the guest waits as it does
//! at a serial port.
//!
//! | | console | named port |
//! |---|---|---|
//! | nobody is connected | what the guest writes is dropped | the same; the guest is notified (VIRTIO_CONSOLE_PORT_OPEN), and Linux reads the end of the file and does not write |
//! | the client does not read | what exceeds [`MAX_UNREAD`] is dropped: Linux holds a spinlock while it waits for a console | the guest waits, for this port only |
//! | the guest does not read | the client waits | the client waits, also until a program of the guest opens the port |
//! | the client closes its connection | what it has sent is delivered first, unless another client comes | the same, unless the guest has closed the port |
//! | a page of a queue is poisoned | DEVICE_NEEDS_RESET: a vCPU of Linux that writes to the console spins, with interrupts disabled and the console's locks held, until the machine is reset | DEVICE_NEEDS_RESET: what programs write is not taken, and a vCPU spins when one of them opens or closes a port |
//!
//! The last row is Linux's `__send_to_port` and `__send_control_msg` (`drivers/char/virtio_console.c`): they poll the queue for the
//! buffer that the device returns, and the driver does nothing about DEVICE_NEEDS_RESET.
//!
//! One thread serves all queues and sockets, and none of them waits for another one. When the machine ends, what waits for a
//! client beside the bytes in its socket is dropped: [`MAX_UNREAD`] bytes at most.
//!
//! What the guest writes is read in pieces of up to 16 KiB. A piece with a poisoned page is dropped as a whole, and the rest of the chain
//! with it; the connection of a named port ends, because its stream would have a hole. A poisoned page under a buffer for input makes the
//! device take the guest's next buffer.

mod client;
mod config;
mod control;
mod group;
mod link;
mod port;
mod socket;

use std::io;
use std::sync::Arc;

use virtio_bindings::virtio_ids::VIRTIO_ID_CONSOLE;

pub use self::client::MAX_UNREAD;
pub use self::config::{ConsoleBackend, ConsoleConfig, KIND};
use self::group::ConsoleGroup;
pub use self::socket::PortSocket;
use crate::console::ConsoleSize;
use crate::socket_file;
use crate::virtio::{Activation, QueueGroup, QueueWorkers, VirtioDevice};

/// A console, or named ports.
pub struct Console {
    ports: Ports,
    /// `Some` while the device is active.
    workers: Option<QueueWorkers>,
}

/// What a device has.
#[derive(Clone, Debug)]
pub enum Ports {
    /// One port, which is a console, and the size of its terminal.
    Console(Arc<PortSocket>, ConsoleSize),
    /// Named ports, [`MAX_NAMED_PORTS`] at most.
    Named(Vec<(String, Arc<PortSocket>)>),
}

/// The most named ports of a device.
pub const MAX_NAMED_PORTS: usize = socket_file::MAX_OF_A_DEVICE;

// Indices of the queues (VIRTIO 1.2, 5.3.2): those of port 0, those of control messages, and those of the other ports.
const PORT0_RECEIVE: u16 = 0;
const PORT0_TRANSMIT: u16 = 1;
const CONTROL_RECEIVE: u16 = 2;
const CONTROL_TRANSMIT: u16 = 3;

/// The receive queue and the transmit queue of a port.
fn queues(port: usize) -> (u16, u16) {
    match port as u16 {
        0 => (PORT0_RECEIVE, PORT0_TRANSMIT),
        port => (2 * port + 2, 2 * port + 3),
    }
}

/// Maximum sizes of the queues, in elements: the most chains of a queue that are handled before others get their turn.
const QUEUE_SIZES: [u16; 2 * (MAX_NAMED_PORTS + 2)] = [64; 2 * (MAX_NAMED_PORTS + 2)];

// Features (VIRTIO 1.2, 5.3.3).
const SIZE: u64 = 1 << 0;
const MULTIPORT: u64 = 1 << 1;

impl Console {
    /// A device with these ports.
    #[must_use]
    pub fn new(ports: Ports) -> Self {
        Console { ports, workers: None }
    }

    /// `cols`, `rows` and `max_nr_ports` (VIRTIO 1.2, 5.3.4).
    fn config(&self) -> [u8; 8] {
        let ((columns, rows), ports) = match &self.ports {
            Ports::Console(_, size) => (size.get(), 1),
            Ports::Named(ports) => ((0, 0), ports.len() as u32 + 1),
        };
        let mut config = [0; 8];
        config[..2].copy_from_slice(&columns.to_le_bytes());
        config[2..4].copy_from_slice(&rows.to_le_bytes());
        config[4..].copy_from_slice(&ports.to_le_bytes());
        config
    }
}

impl VirtioDevice for Console {
    fn device_type(&self) -> u32 {
        VIRTIO_ID_CONSOLE
    }

    fn queue_max_sizes(&self) -> &[u16] {
        let count = match &self.ports {
            Ports::Console(..) => 2,
            Ports::Named(ports) => 2 * (ports.len() + 2),
        };
        &QUEUE_SIZES[..count.min(QUEUE_SIZES.len())]
    }

    fn features(&self) -> u64 {
        match &self.ports {
            Ports::Console(..) => SIZE,
            Ports::Named(_) => MULTIPORT,
        }
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let config = self.config();
        let from = usize::try_from(offset).ok().and_then(|offset| config.get(offset..));
        data.iter_mut().zip(from.unwrap_or_default()).for_each(|(to, from)| *to = *from);
    }

    fn activate(&mut self, activation: Activation) -> io::Result<()> {
        let has_control = activation.features & MULTIPORT != 0;
        let group: Box<dyn QueueGroup> = Box::new(ConsoleGroup::new(&self.ports, has_control)?);
        let queues = (0..self.queue_max_sizes().len() as u16).collect();
        self.workers = Some(QueueWorkers::start("virtio-console", activation, [(queues, group)])?);
        Ok(())
    }

    fn workers(&mut self) -> Option<&mut QueueWorkers> {
        self.workers.as_mut()
    }

    fn reset(&mut self) {
        self.workers = None;
    }
}
