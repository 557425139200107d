//! The header of a packet (VIRTIO 1.2, 5.10.6).

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// `struct virtio_vsock_hdr` (VIRTIO 1.2, 5.10.6), which `len` bytes of data follow.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub(super) struct Header {
    pub(super) src_cid: U64,
    pub(super) dst_cid: U64,
    pub(super) src_port: U32,
    pub(super) dst_port: U32,
    pub(super) len: U32,
    /// `type`.
    pub(super) kind: U16,
    pub(super) op: U16,
    pub(super) flags: U32,
    pub(super) buf_alloc: U32,
    pub(super) fwd_cnt: U32,
}

/// Bytes of a header.
pub(super) const HEADER_LEN: usize = 44;
const _: () = assert!(size_of::<Header>() == HEADER_LEN);

/// The host's context id (VIRTIO 1.2, 5.10.4).
pub(super) const HOST_CID: u64 = 2;
/// VIRTIO_VSOCK_TYPE_STREAM.
pub(super) const STREAM: u16 = 1;

// `op` (VIRTIO 1.2, 5.10.6).
pub(super) const REQUEST: u16 = 1;
pub(super) const RESPONSE: u16 = 2;
pub(super) const RST: u16 = 3;
pub(super) const SHUTDOWN: u16 = 4;
pub(super) const RW: u16 = 5;
pub(super) const CREDIT_UPDATE: u16 = 6;
pub(super) const CREDIT_REQUEST: u16 = 7;

// `flags` of SHUTDOWN (VIRTIO 1.2, 5.10.6.6).
/// VIRTIO_VSOCK_SHUTDOWN_F_RECEIVE: the sender of the packet receives no more.
pub(super) const NO_RECEIVE: u32 = 1;
/// VIRTIO_VSOCK_SHUTDOWN_F_SEND: the sender of the packet sends no more.
pub(super) const NO_SEND: u32 = 2;
/// Both.
pub(super) const NEITHER: u32 = NO_RECEIVE | NO_SEND;

/// The ports of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ports {
    pub(super) host: u32,
    pub(super) guest: u32,
}

impl Header {
    /// The ports of a packet from the guest.
    pub(super) fn ports(&self) -> Ports {
        Ports { host: self.dst_port.get(), guest: self.src_port.get() }
    }

    /// A packet to the guest, without data.
    pub(super) fn to_guest(cid: u32, ports: Ports, op: u16, flags: u32) -> Self {
        Header {
            src_cid: U64::new(HOST_CID),
            dst_cid: U64::new(cid.into()),
            src_port: U32::new(ports.host),
            dst_port: U32::new(ports.guest),
            kind: U16::new(STREAM),
            op: U16::new(op),
            flags: U32::new(flags),
            ..Header::default()
        }
    }

    /// The RST that answers a packet.
    pub(super) fn reset_of(&self) -> Self {
        Header {
            src_cid: self.dst_cid,
            dst_cid: self.src_cid,
            src_port: self.dst_port,
            dst_port: self.src_port,
            kind: self.kind,
            op: U16::new(RST),
            ..Header::default()
        }
    }
}
