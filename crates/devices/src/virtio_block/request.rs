//! A request of a disk's driver, from its header to its status (VIRTIO 1.2, 5.2.6).

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use guest_memory::AccessError;
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK, VIRTIO_BLK_S_UNSUPP, VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_GET_ID,
    VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT,
};
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, Unaligned};

use super::{Disk, Id};
use crate::poison_observer::PoisonObserver;
use crate::virtio::CopyError;
use crate::virtio::buffers::{Buffers, Request};

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
const PIECE: usize = 64 << 10;

/// Why a request fails.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// No such request.
    #[error("requests of type {0} are not known")]
    Unsupported(u32),
    /// Its buffers lead nowhere, round in circles, or mix what is read with what is written.
    #[error("its buffers make no request")]
    Malformed,
    /// Not whole sectors, or sectors that the disk has not.
    #[error("{len} bytes from sector {sector} on are not sectors of the disk")]
    Outside { sector: u64, len: u64 },
    /// A write to a disk that is read only.
    #[error("the disk is read only")]
    ReadOnly,
    /// The machine stops, or the driver resets the device.
    #[error("the device stops")]
    Stopped,
    /// A buffer that is not memory, or that the host has lost.
    #[error(transparent)]
    Copy(#[from] CopyError),
    /// What the host says of the file.
    #[error("the file fails: {0}")]
    File(#[from] io::Error),
}

/// Carries requests out.
pub(super) struct Server {
    disk: Arc<Disk>,
    id: Id,
    /// Whether the driver does not flush, and expects every write to last.
    flush_writes: bool,
    lost: Arc<dyn PoisonObserver>,
    piece: Vec<u8>,
}

impl Server {
    pub(super) fn new(disk: Arc<Disk>, id: Id, flush_writes: bool, lost: Arc<dyn PoisonObserver>) -> Self {
        Server { disk, id, flush_writes, lost, piece: vec![0; PIECE] }
    }

    /// Carries a request out, unless `stop` comes between, and returns how many bytes were written from the start of
    /// its writable buffers on.
    pub(super) fn serve(&mut self, mut request: Request<'_>, stop: &AtomicBool) -> u32 {
        let Some(mut status) = request.writable.split_last() else {
            tracing::debug!("a request without room for its status");
            return 0;
        };
        let room = request.writable.len();
        let outcome = self.carry_out(&mut request, stop);
        if let Err(error) = &outcome {
            match error {
                Failure::File(_) | Failure::Copy(CopyError::Memory(AccessError::Host { .. })) => {
                    tracing::warn!(%error, "a disk's request fails");
                }
                Failure::Copy(error) => self.tell_if_lost(error),
                _ => tracing::debug!(%error, "a disk's request fails"),
            }
        }
        let code = match outcome {
            Ok(()) => VIRTIO_BLK_S_OK,
            Err(Failure::Unsupported(_)) => VIRTIO_BLK_S_UNSUPP,
            Err(_) => VIRTIO_BLK_S_IOERR,
        };
        let told = status.write(&[code as u8]);
        if let Err(error) = &told {
            self.tell_if_lost(error);
        }
        let left = request.writable.len();
        let written = room - left + u64::from(told.is_ok() && left == 0);
        // All buffers together are 4 GiB at most.
        u32::try_from(written).unwrap_or(u32::MAX)
    }

    fn tell_if_lost(&self, error: &CopyError) {
        tracing::debug!(%error, "a disk's request meets memory that is not there");
        if let CopyError::Memory(AccessError::Poisoned(page)) = error {
            self.lost.touched(page.gpa, page.log2_len);
        }
    }

    fn carry_out(&mut self, request: &mut Request<'_>, stop: &AtomicBool) -> Result<(), Failure> {
        if !request.well_formed {
            return Err(Failure::Malformed);
        }
        let mut header = Header::new_zeroed();
        request.readable.read(header.as_mut_bytes())?;
        match header.kind.get() {
            VIRTIO_BLK_T_IN => self.read(header.sector.get(), &mut request.writable, stop),
            VIRTIO_BLK_T_OUT if self.disk.is_read_only() => Err(Failure::ReadOnly),
            VIRTIO_BLK_T_OUT => self.write(header.sector.get(), &mut request.readable, stop),
            VIRTIO_BLK_T_FLUSH => Ok(self.disk.flush()?),
            VIRTIO_BLK_T_GET_ID => Ok(request.writable.write(&self.id)?),
            other => Err(Failure::Unsupported(other)),
        }
    }

    fn read(&mut self, sector: u64, to: &mut Buffers<'_>, stop: &AtomicBool) -> Result<(), Failure> {
        let mut offset = self.offset(sector, to.len())?;
        while let Some(piece) = next_piece(&mut self.piece, to, stop)? {
            self.disk.read(offset, piece)?;
            to.write(piece)?;
            offset += piece.len() as u64;
        }
        Ok(())
    }

    fn write(&mut self, sector: u64, from: &mut Buffers<'_>, stop: &AtomicBool) -> Result<(), Failure> {
        let mut offset = self.offset(sector, from.len())?;
        while let Some(piece) = next_piece(&mut self.piece, from, stop)? {
            from.read(piece)?;
            self.disk.write(offset, piece)?;
            offset += piece.len() as u64;
        }
        if self.flush_writes {
            self.disk.flush()?;
        }
        Ok(())
    }

    fn offset(&self, sector: u64, len: u64) -> Result<u64, Failure> {
        self.disk.offset(sector, len).ok_or(Failure::Outside { sector, len })
    }
}

/// Room for the next bytes of `buffers`; none when all were copied.
fn next_piece<'a>(
    piece: &'a mut [u8],
    buffers: &Buffers<'_>,
    stop: &AtomicBool,
) -> Result<Option<&'a mut [u8]>, Failure> {
    if stop.load(Ordering::Relaxed) {
        return Err(Failure::Stopped);
    }
    let len = usize::try_from(buffers.len()).unwrap_or(usize::MAX).min(piece.len());
    Ok(piece.get_mut(..len).filter(|piece| !piece.is_empty()))
}
