//! The control queue (VIRTIO 1.2, 5.1.6.5): the driver says how many queue pairs it uses.

use std::sync::Arc;

use virtio_bindings::virtio_net::{
    VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET, VIRTIO_NET_ERR, VIRTIO_NET_OK,
};

use super::tap::Tap;
use crate::virtio::{CopyError, QueueHandler, Request, StopFlag};

/// Handles the commands.
pub(super) struct Control {
    tap: Arc<Tap>,
    /// The queue pairs that the driver may use.
    max_pairs: u16,
}

/// Why a command fails.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("its descriptor chain is malformed")]
    Malformed,
    #[error("class {0} and command {1} are not supported")]
    Unsupported(u8, u8),
    #[error("the device has no {0} queue pairs")]
    Pairs(u16),
    #[error(transparent)]
    Copy(#[from] CopyError),
    #[error("TUNSETQUEUE: {0}")]
    Tap(#[from] rustix::io::Errno),
}

impl Control {
    pub(super) fn new(tap: Arc<Tap>, max_pairs: u16) -> Self {
        Control { tap, max_pairs }
    }

    fn execute(&self, request: &mut Request<'_>) -> Result<(), Failure> {
        if !request.well_formed {
            return Err(Failure::Malformed);
        }
        let mut command = [0; 2];
        request.readable.read(&mut command)?;
        const PAIRS_SET: [u8; 2] = [VIRTIO_NET_CTRL_MQ as u8, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET as u8];
        if command != PAIRS_SET {
            return Err(Failure::Unsupported(command[0], command[1]));
        }
        let mut pairs = [0; 2];
        request.readable.read(&mut pairs)?;
        let pairs = u16::from_le_bytes(pairs);
        if !(1..=self.max_pairs).contains(&pairs) {
            return Err(Failure::Pairs(pairs));
        }
        Ok(self.tap.use_queues(pairs.into())?)
    }
}

impl QueueHandler for Control {
    fn handle(&mut self, mut request: Request<'_>, _: &StopFlag) -> u32 {
        let outcome = self.execute(&mut request);
        if let Err(error) = &outcome {
            tracing::debug!(%error, "a command of the driver fails");
        }
        let ack = if outcome.is_ok() { VIRTIO_NET_OK } else { VIRTIO_NET_ERR };
        match request.writable.write(&[ack as u8]) {
            Ok(()) => 1,
            Err(_) => 0,
        }
    }
}
