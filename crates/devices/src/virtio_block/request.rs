//! A request of a disk's driver, from its header to its status (VIRTIO 1.2, 5.2.6).

use std::io;
use std::sync::Arc;

use guest_memory::AccessError;
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK, VIRTIO_BLK_S_UNSUPP, VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_GET_ID,
    VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT,
};
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, Unaligned};

use super::{Disk, Id};
use crate::virtio::{Buffers, CopyError, QueueHandler, Request, StopFlag};

/// `struct virtio_blk_req` up to its data (VIRTIO 1.2, 5.2.6).
#[derive(FromBytes, IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct Header {
    kind: U32,
    reserved: U32,
    sector: U64,
}

const _: () = assert!(size_of::<Header>() == 16);

/// Bytes that are copied at a time.
const CHUNK_LEN: usize = 64 << 10;

/// Why a request fails.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("request type {0} is not supported")]
    Unsupported(u32),
    /// The chain has no end, or device-writable buffers before device-readable ones.
    #[error("its descriptor chain is malformed")]
    Malformed,
    /// Device-readable data of a read, or device-writable data of a write.
    #[error("{len} bytes of its data have the wrong direction")]
    Direction { len: u64 },
    #[error("{len} bytes from sector {sector} on are not whole sectors of the disk")]
    Outside { sector: u64, len: u64 },
    #[error("the disk is read-only")]
    ReadOnly,
    /// The queue is stopped, or the device is reset.
    #[error("the queue is stopped")]
    Stopped,
    #[error(transparent)]
    Copy(#[from] CopyError),
    #[error("file: {0}")]
    File(#[from] io::Error),
}

impl Failure {
    /// Whether the host is the cause, rather than the driver or a memory error that is reported elsewhere.
    fn is_of_the_host(&self) -> bool {
        matches!(self, Failure::File(_) | Failure::Copy(CopyError::Memory(AccessError::Host { .. })))
    }
}

/// Handles the requests of a disk's queue.
pub(super) struct RequestHandler {
    disk: Arc<Disk>,
    id: Id,
    /// Whether the driver sends no FLUSH, and every write has to be flushed.
    flush_writes: bool,
    chunk: Vec<u8>,
    /// Whether a failure of the host was logged: a guest can cause any number of them.
    is_failure_logged: bool,
}

impl RequestHandler {
    pub(super) fn new(disk: Arc<Disk>, id: Id, flush_writes: bool) -> Self {
        RequestHandler { disk, id, flush_writes, chunk: vec![0; CHUNK_LEN], is_failure_logged: false }
    }

    fn execute(&mut self, request: &mut Request<'_>, stop: &StopFlag) -> Result<(), Failure> {
        if !request.well_formed {
            return Err(Failure::Malformed);
        }
        let mut header = Header::new_zeroed();
        request.readable.read(header.as_mut_bytes())?;
        match header.kind.get() {
            VIRTIO_BLK_T_IN => {
                expect_no_data(&request.readable)?;
                self.read(header.sector.get(), &mut request.writable, stop)
            }
            VIRTIO_BLK_T_OUT if self.disk.is_read_only() => Err(Failure::ReadOnly),
            VIRTIO_BLK_T_OUT => {
                expect_no_data(&request.writable)?;
                self.write(header.sector.get(), &mut request.readable, stop)
            }
            VIRTIO_BLK_T_FLUSH => Ok(self.disk.flush()?),
            VIRTIO_BLK_T_GET_ID => {
                expect_no_data(&request.readable)?;
                Ok(request.writable.write(&self.id)?)
            }
            other => Err(Failure::Unsupported(other)),
        }
    }

    fn read(&mut self, sector: u64, to: &mut Buffers<'_>, stop: &StopFlag) -> Result<(), Failure> {
        let mut offset = self.offset(sector, to.len())?;
        while let Some(chunk) = next_chunk(&mut self.chunk, to, stop)? {
            self.disk.read(offset, chunk)?;
            to.write(chunk)?;
            offset += chunk.len() as u64;
        }
        Ok(())
    }

    fn write(&mut self, sector: u64, from: &mut Buffers<'_>, stop: &StopFlag) -> Result<(), Failure> {
        let mut offset = self.offset(sector, from.len())?;
        while let Some(chunk) = next_chunk(&mut self.chunk, from, stop)? {
            from.read(chunk)?;
            self.disk.write(offset, chunk)?;
            offset += chunk.len() as u64;
        }
        if self.flush_writes {
            self.disk.flush()?;
        }
        Ok(())
    }

    fn offset(&self, sector: u64, len: u64) -> Result<u64, Failure> {
        self.disk.offset(sector, len).ok_or(Failure::Outside { sector, len })
    }

    fn log(&mut self, error: &Failure) {
        if error.is_of_the_host() && !std::mem::replace(&mut self.is_failure_logged, true) {
            tracing::warn!(%error, "virtio-block request failed; the next failures are logged at debug level");
        } else {
            tracing::debug!(%error, "virtio-block request failed");
        }
    }
}

impl QueueHandler for RequestHandler {
    fn handle(&mut self, mut request: Request<'_>, stop: &StopFlag) -> u32 {
        let Some(mut status) = request.writable.split_last() else {
            tracing::debug!("virtio-block request has no status byte");
            return 0;
        };
        let capacity = request.writable.len();
        let outcome = self.execute(&mut request, stop);
        if let Err(error) = &outcome {
            self.log(error);
        }
        let code = match outcome {
            Ok(()) => VIRTIO_BLK_S_OK,
            Err(Failure::Unsupported(_)) => VIRTIO_BLK_S_UNSUPP,
            Err(_) => VIRTIO_BLK_S_IOERR,
        };
        let status_outcome = status.write(&[code as u8]);
        if let Err(error) = &status_outcome {
            tracing::debug!(%error, "virtio-block status byte cannot be written");
        }
        let left = request.writable.len();
        // The length counts from the first device-writable byte on, without a gap (VIRTIO 1.2, 2.7.8.2).
        let written = capacity - left + u64::from(status_outcome.is_ok() && left == 0);
        // All buffers together are 4 GiB at most.
        u32::try_from(written).unwrap_or(u32::MAX)
    }
}

/// Checks that nothing is left in the buffers of the direction that a request's data does not have.
fn expect_no_data(buffers: &Buffers<'_>) -> Result<(), Failure> {
    if buffers.is_empty() { Ok(()) } else { Err(Failure::Direction { len: buffers.len() }) }
}

/// The part of `chunk` for the next bytes of `buffers`. `None` if all were copied.
fn next_chunk<'a>(
    chunk: &'a mut [u8],
    buffers: &Buffers<'_>,
    stop: &StopFlag,
) -> Result<Option<&'a mut [u8]>, Failure> {
    if stop.is_set() {
        return Err(Failure::Stopped);
    }
    let len = usize::try_from(buffers.len()).unwrap_or(usize::MAX).min(chunk.len());
    Ok(chunk.get_mut(..len).filter(|chunk| !chunk.is_empty()))
}
