//! A virtio socket device (VIRTIO 1.2, 5.10), whose host side are Unix sockets, by the convention of Firecracker.
//!
//! | connection | |
//! |---|---|
//! | host to guest | a client connects to the device's socket, writes `CONNECT PORT` and a line end, reads `OK PORT` and a line end, and has a connection to that port of the guest; the port that it reads is its own |
//! | guest to host | the guest's connection to port P of the host (CID 2) reaches the Unix stream socket whose path is that of the device, with `_P` behind it |
//!
//! A refused connection is closed, or ends with RST in the guest. The feature VIRTIO_VSOCK_F_STREAM is offered; seqpackets are not.
//! What ends or half-closes a connection on one side does so on the other one, behind the data that came before.
//!
//! One thread serves the three queues and all sockets, and none of them waits for another one. A device has up to
//! [`MAX_CONNECTIONS`] connections and [`MAX_CLIENTS`] clients that have not sent their `CONNECT` line. For each connection it keeps up
//! to [`RECEIVE_BUFFER`] bytes that the host has not read; what the guest has not read stays in the socket. A guest that exceeds its
//! credit, or sends what is not defined, has its connection reset. Packets of the guest stay in their queue while too many RSTs wait
//! for its buffers (5.10.6.2).
//!
//! A poisoned page under the data of a packet resets its connection, since its stream would have a hole; one under a header drops the
//! packet of the guest, or makes the device take the guest's next buffer; one in a queue or a descriptor sets DEVICE_NEEDS_RESET.
//!
//! When a driver uses the device that was used before (a reset of the machine, or of the device), connections are gone, and the
//! device's event says so (VIRTIO_VSOCK_EVENT_TRANSPORT_RESET).
//!
//! The crate `virtio-vsock` of rust-vmm is not used: it accesses packets by references to guest memory, which a poisoned page would
//! turn into a SIGBUS of the process. Here every access goes through [`DeviceMemory`](crate::virtio::DeviceMemory).

mod client;
mod config;
mod connection;
mod connections;
mod group;
mod host;
mod packet;

use std::io;
use std::sync::Arc;

use virtio_bindings::virtio_ids::VIRTIO_ID_VSOCK;

pub use self::config::{Endpoint, KIND, VsockConfig};
pub use self::connection::RECEIVE_BUFFER;
pub use self::connections::MAX_CONNECTIONS;
pub use self::group::MAX_CLIENTS;
use self::group::VsockGroup;
pub use self::host::HostSocket;
use crate::virtio::{Activation, QueueGroup, QueueWorkers, VirtioDevice};

/// A socket device.
pub struct Vsock {
    cid: u32,
    host: Arc<HostSocket>,
    /// `Some` while the device is active.
    workers: Option<QueueWorkers>,
}

// Indices of the queues (VIRTIO 1.2, 5.10.2).
const RX_QUEUE: u16 = 0;
const TX_QUEUE: u16 = 1;
const EVENT_QUEUE: u16 = 2;
/// Maximum sizes of the queues, in elements.
const QUEUE_SIZES: [u16; 3] = [256, 256, 16];
/// VIRTIO_VSOCK_F_STREAM (VIRTIO 1.2, 5.10.3).
const STREAM_FEATURE: u64 = 1 << 0;
/// Bytes that are copied at once, and of data in a packet to the guest at most.
const SCRATCH_LEN: usize = 64 << 10;

impl Vsock {
    /// A device for the guest with a CID.
    #[must_use]
    pub fn new(cid: u32, host: Arc<HostSocket>) -> Self {
        Vsock { cid, host, workers: None }
    }
}

impl VirtioDevice for Vsock {
    fn device_type(&self) -> u32 {
        VIRTIO_ID_VSOCK
    }

    fn queue_max_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn features(&self) -> u64 {
        STREAM_FEATURE
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        // guest_cid (VIRTIO 1.2, 5.10.4).
        let config = u64::from(self.cid).to_le_bytes();
        let from = usize::try_from(offset).ok().and_then(|offset| config.get(offset..));
        data.iter_mut().zip(from.unwrap_or_default()).for_each(|(to, from)| *to = *from);
    }

    fn activate(&mut self, activation: Activation) -> io::Result<()> {
        let group: Box<dyn QueueGroup> = Box::new(VsockGroup::new(self.cid, Arc::clone(&self.host))?);
        let queues = vec![RX_QUEUE, TX_QUEUE, EVENT_QUEUE];
        self.workers = Some(QueueWorkers::start("virtio-vsock", activation, [(queues, group)])?);
        Ok(())
    }

    fn workers(&mut self) -> Option<&mut QueueWorkers> {
        self.workers.as_mut()
    }

    fn reset(&mut self) {
        self.workers = None;
    }
}
