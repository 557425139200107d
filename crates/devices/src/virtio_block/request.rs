//! A request of a disk's driver (VIRTIO 1.2, 5.2.6): from its header to the operations that it takes, and to its status.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use guest_memory::AccessError;
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK, VIRTIO_BLK_S_UNSUPP, VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_FLUSH,
    VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_WRITE_ZEROES,
    VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP,
};
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, Unaligned};

use super::bounce::{self, Bounce};
use super::disk::Zeroes;
use super::engine::Work;
use super::{Disk, Id, SECTOR};
use crate::virtio::{Buffers, CopyError, DeviceMemory, Request, Segments};

/// `struct virtio_blk_req` up to its data (VIRTIO 1.2, 5.2.6).
#[derive(FromBytes, IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct Header {
    kind: U32,
    reserved: U32,
    sector: U64,
}

const _: () = assert!(size_of::<Header>() == 16);

/// `struct virtio_blk_discard_write_zeroes` (VIRTIO 1.2, 5.2.6): the data of DISCARD and WRITE_ZEROES is a number of these.
#[derive(FromBytes, IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct Range {
    sector: U64,
    sectors: U32,
    flags: U32,
}

const RANGE_LEN: u64 = 16;
const _: () = assert!(size_of::<Range>() as u64 == RANGE_LEN);

/// The most ranges of a request.
pub(super) const MAX_RANGES: u32 = 32;
/// The most sectors of a range: 1 GiB.
pub(super) const MAX_RANGE_SECTORS: u32 = 1 << 21;

/// What requests are about.
pub(super) struct Target {
    pub(super) disk: Arc<Disk>,
    pub(super) id: Id,
    /// Whether a completed write may be in a cache of the host.
    pub(super) writeback: Arc<AtomicBool>,
}

/// Why a request fails.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("request type {0} is not supported")]
    Unsupported(u32),
    #[error("flags {0:#x} of a range are not supported")]
    Flags(u32),
    /// The chain has no end, or device-writable buffers before device-readable ones.
    #[error("its descriptor chain is malformed")]
    Malformed,
    /// Device-readable data of a read, or device-writable data of a write.
    #[error("{len} bytes of its data have the wrong direction")]
    Direction { len: u64 },
    #[error("{len} bytes from sector {sector} on are not whole sectors of the disk")]
    Outside { sector: u64, len: u64 },
    #[error("{len} bytes are not 1 to {MAX_RANGES} ranges")]
    Ranges { len: u64 },
    #[error("{0} sectors are more than the maximum of a range")]
    RangeLen(u32),
    #[error("the disk is read-only")]
    ReadOnly,
    #[error(transparent)]
    Copy(#[from] CopyError),
    #[error("file: {0}")]
    File(#[from] io::Error),
}

impl Failure {
    /// Whether the host is the cause, rather than the driver or a memory error that is reported elsewhere.
    pub(super) fn is_of_the_host(&self) -> bool {
        matches!(self, Failure::File(_) | Failure::Copy(CopyError::Memory(AccessError::Host { .. })))
    }

    fn status(&self) -> u32 {
        match self {
            Failure::Unsupported(_) | Failure::Flags(_) => VIRTIO_BLK_S_UNSUPP,
            _ => VIRTIO_BLK_S_IOERR,
        }
    }
}

/// A request between its first operation and its status.
pub(super) struct Active {
    head: u16,
    /// The status byte; `None` if the request has none.
    status: Option<Segments>,
    /// Device-writable bytes before the status.
    capacity: u64,
    /// Those of them that GET_ID has written.
    id_len: u64,
    steps: Steps,
    /// Bytes of the data whose transfer has begun.
    begun: u64,
    /// Position in the data of the first operation that has failed.
    failed_at: u64,
    /// Operations that have begun and not completed.
    in_flight: u16,
    failure: Option<Failure>,
}

/// What is left to be begun of a request.
enum Steps {
    Read {
        offset: u64,
        to: Segments,
    },
    Write {
        offset: u64,
        from: Segments,
        sync: bool,
    },
    /// Operations without data, with their offsets.
    Others(VecDeque<(Work, u64)>),
}

/// An operation that begins, but for its buffer.
pub(super) struct Step {
    pub(super) work: Work,
    pub(super) offset: u64,
    pub(super) destination: Destination,
}

/// Where the bytes of a read go.
#[derive(Debug, Default)]
pub(super) struct Destination {
    /// Position in the request's data.
    position: u64,
    to: Segments,
}

impl Active {
    /// A request with that head. One that is invalid has failed already.
    pub(super) fn new(head: u16, mut request: Request<'_>, target: &Target) -> Self {
        let status = request.writable.split_last().map(Buffers::into_segments);
        let capacity = request.writable.len();
        let mut active = Active {
            head,
            status,
            capacity,
            id_len: 0,
            steps: Steps::Others(VecDeque::new()),
            begun: 0,
            failed_at: u64::MAX,
            in_flight: 0,
            failure: None,
        };
        // A request without a status byte does nothing.
        if active.status.is_some() {
            match active.parse(request, target) {
                Ok(steps) => active.steps = steps,
                Err(failure) => active.failure = Some(failure),
            }
        }
        active
    }

    fn parse(&mut self, mut request: Request<'_>, target: &Target) -> Result<Steps, Failure> {
        if !request.well_formed {
            return Err(Failure::Malformed);
        }
        let mut header = Header::new_zeroed();
        request.readable.read(header.as_mut_bytes())?;
        let (kind, sector, disk) = (header.kind.get(), header.sector.get(), &*target.disk);
        let sync = !target.writeback.load(Ordering::Relaxed);
        match kind {
            VIRTIO_BLK_T_IN => {
                expect_no_data(&request.readable)?;
                let offset = offset(disk, sector, request.writable.len())?;
                Ok(Steps::Read { offset, to: request.writable.into_segments() })
            }
            VIRTIO_BLK_T_OUT if disk.is_read_only() => Err(Failure::ReadOnly),
            VIRTIO_BLK_T_OUT => {
                expect_no_data(&request.writable)?;
                let offset = offset(disk, sector, request.readable.len())?;
                Ok(Steps::Write { offset, from: request.readable.into_segments(), sync })
            }
            VIRTIO_BLK_T_FLUSH => Ok(Steps::Others([(Work::Flush, 0)].into())),
            VIRTIO_BLK_T_GET_ID => {
                expect_no_data(&request.readable)?;
                let before = request.writable.len();
                let copied = request.writable.write(&target.id);
                self.id_len = before - request.writable.len();
                copied?;
                Ok(Steps::Others(VecDeque::new()))
            }
            VIRTIO_BLK_T_DISCARD | VIRTIO_BLK_T_WRITE_ZEROES if disk.can_discard() => {
                expect_no_data(&request.writable)?;
                let work = |len, unmap| match kind {
                    VIRTIO_BLK_T_DISCARD => Work::Discard { len },
                    _ => Work::WriteZeroes { len, zeroes: Zeroes { unmap, sync } },
                };
                let flags = if kind == VIRTIO_BLK_T_DISCARD { 0 } else { VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP };
                ranges(&mut request.readable, disk, flags, work).map(Steps::Others)
            }
            other => Err(Failure::Unsupported(other)),
        }
    }

    /// Bytes of its data.
    pub(super) fn len(&self) -> u64 {
        match &self.steps {
            Steps::Read { to, .. } => to.len(),
            Steps::Write { from, .. } => from.len(),
            Steps::Others(_) => 0,
        }
    }

    /// The next operation, whose bytes are read to `buffer` if it is a write. `None` if all have begun, or the request has
    /// failed.
    pub(super) fn begin(&mut self, memory: &DeviceMemory, buffer: &mut Bounce) -> Option<Step> {
        let step = self.try_begin(memory, buffer).unwrap_or_else(|failure| {
            self.fail(failure);
            None
        })?;
        self.in_flight += 1;
        Some(step)
    }

    fn try_begin(&mut self, memory: &DeviceMemory, buffer: &mut Bounce) -> Result<Option<Step>, Failure> {
        if self.failure.is_some() {
            return Ok(None);
        }
        let position = self.begun;
        let len = self.len().min(bounce::MAX_LEN as u64);
        buffer.resize(len as usize)?;
        let (work, offset, to) = match &mut self.steps {
            Steps::Read { offset, to } if len > 0 => (Work::Read, *offset + position, to.split_to(len)),
            Steps::Write { offset, from, sync } if len > 0 => {
                from.split_to(len).in_memory(memory).read(buffer.bytes_mut())?;
                (Work::Write { sync: *sync }, *offset + position, Segments::default())
            }
            Steps::Others(others) => match others.pop_front() {
                Some((work, offset)) => (work, offset, Segments::default()),
                None => return Ok(None),
            },
            Steps::Read { .. } | Steps::Write { .. } => return Ok(None),
        };
        self.begun += len;
        Ok(Some(Step { work, offset, destination: Destination { position, to } }))
    }

    /// Takes the end of an operation, and copies what it has read.
    pub(super) fn complete(
        &mut self,
        memory: &DeviceMemory,
        Destination { position, to }: Destination,
        buffer: &Bounce,
        outcome: io::Result<()>,
    ) {
        self.in_flight -= 1;
        let copied = outcome.map_err(Failure::from).and_then(|()| {
            let len = to.len() as usize;
            Ok(to.in_memory(memory).write(buffer.bytes().get(..len).unwrap_or_default())?)
        });
        if let Err(failure) = copied {
            self.failed_at = self.failed_at.min(position);
            self.fail(failure);
        }
    }

    /// Whether nothing is left but its status.
    pub(super) fn is_complete(&self) -> bool {
        let is_begun = match &self.steps {
            Steps::Read { to, .. } => to.is_empty(),
            Steps::Write { from, .. } => from.is_empty(),
            Steps::Others(others) => others.is_empty(),
        };
        self.in_flight == 0 && (is_begun || self.failure.is_some())
    }

    /// Why it has failed.
    pub(super) fn failure(&self) -> Option<&Failure> {
        self.failure.as_ref()
    }

    /// Writes the status. Returns the head, and the number of bytes that were written from the start of the device-writable
    /// buffers on.
    pub(super) fn finish(self, memory: &DeviceMemory) -> (u16, u32) {
        let filled = match &self.steps {
            Steps::Read { .. } => self.begun.min(self.failed_at),
            _ => self.id_len,
        };
        let code = self.failure.as_ref().map_or(VIRTIO_BLK_S_OK, Failure::status);
        let is_status_written = match self.status.map(|status| status.in_memory(memory).write(&[code as u8]))
        {
            Some(Ok(())) => true,
            Some(Err(error)) => {
                tracing::debug!(%error, "virtio-block status byte cannot be written");
                false
            }
            None => {
                tracing::debug!("virtio-block request has no status byte");
                false
            }
        };
        // The length counts from the first device-writable byte on, without a gap (VIRTIO 1.2, 2.7.8.2).
        let written = filled + u64::from(is_status_written && filled == self.capacity);
        // All buffers together are 4 GiB at most.
        (self.head, u32::try_from(written).unwrap_or(u32::MAX))
    }

    fn fail(&mut self, failure: Failure) {
        self.failure.get_or_insert(failure);
    }
}

/// Checks that nothing is left in the buffers of the direction that a request's data does not have.
fn expect_no_data(buffers: &Buffers<'_>) -> Result<(), Failure> {
    if buffers.is_empty() { Ok(()) } else { Err(Failure::Direction { len: buffers.len() }) }
}

fn offset(disk: &Disk, sector: u64, len: u64) -> Result<u64, Failure> {
    disk.offset(sector, len).ok_or(Failure::Outside { sector, len })
}

/// Reads the ranges of DISCARD or WRITE_ZEROES, with flags of `supported`. All are valid, or none is used.
fn ranges(
    data: &mut Buffers<'_>,
    disk: &Disk,
    supported: u32,
    work: impl Fn(u64, bool) -> Work,
) -> Result<VecDeque<(Work, u64)>, Failure> {
    let len = data.len();
    if len == 0 || !len.is_multiple_of(RANGE_LEN) || len / RANGE_LEN > u64::from(MAX_RANGES) {
        return Err(Failure::Ranges { len });
    }
    let mut operations = VecDeque::new();
    while !data.is_empty() {
        let mut range = Range::new_zeroed();
        data.read(range.as_mut_bytes())?;
        let (flags, sectors) = (range.flags.get(), range.sectors.get());
        if flags & !supported != 0 {
            return Err(Failure::Flags(flags));
        }
        if sectors > MAX_RANGE_SECTORS {
            return Err(Failure::RangeLen(sectors));
        }
        let len = u64::from(sectors) * SECTOR;
        operations.push_back((
            work(len, flags & VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP != 0),
            offset(disk, range.sector.get(), len)?,
        ));
    }
    Ok(operations)
}
