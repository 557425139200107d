//! Packets: a frame behind the header that describes its offloads (VIRTIO 1.2, 5.1.6).

use virtio_bindings::virtio_net::{VIRTIO_NET_HDR_F_NEEDS_CSUM, VIRTIO_NET_HDR_GSO_NONE};
use zerocopy::little_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, Unaligned};

/// `struct virtio_net_hdr` (VIRTIO 1.2, 5.1.6).
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct Header {
    flags: u8,
    gso_type: u8,
    hdr_len: U16,
    gso_size: U16,
    csum_start: U16,
    csum_offset: U16,
    num_buffers: U16,
}

/// Bytes of the header.
pub(super) const HEADER_LEN: usize = size_of::<Header>();
const _: () = assert!(HEADER_LEN == 12);

/// Bytes of a frame: at least the header of Ethernet, at most what a driver's buffers hold (VIRTIO 1.2, 5.1.6.3.1).
pub(super) const MIN_FRAME_LEN: usize = 14;
pub(super) const MAX_FRAME_LEN: usize = 65_550;
/// Bytes of a packet.
pub(super) const MIN_LEN: usize = HEADER_LEN + MIN_FRAME_LEN;
pub(super) const MAX_LEN: usize = HEADER_LEN + MAX_FRAME_LEN;

/// A buffer for one packet.
pub(super) fn buffer() -> Box<[u8]> {
    vec![0; MAX_LEN].into()
}

/// Whether the frame of a packet is complete: its checksums are filled in, and it is not to be divided into segments.
pub(super) fn is_complete(packet: &[u8]) -> bool {
    Header::read_from_prefix(packet).is_ok_and(|(header, _)| {
        u32::from(header.flags) & VIRTIO_NET_HDR_F_NEEDS_CSUM == 0
            && u32::from(header.gso_type) == VIRTIO_NET_HDR_GSO_NONE
    })
}

/// Writes the header of a frame that is complete.
pub(super) fn clear_header(packet: &mut [u8]) {
    packet.iter_mut().take(HEADER_LEN).for_each(|byte| *byte = 0);
}

/// Sets the number of buffers that a received packet takes.
pub(super) fn set_buffers(packet: &mut [u8], count: u16) {
    const OFFSET: usize = HEADER_LEN - size_of::<u16>();
    if let Some(field) = packet.get_mut(OFFSET..HEADER_LEN) {
        field.copy_from_slice(&count.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_that_need_work_are_not_complete() {
        let mut packet = [0; MIN_LEN];
        set_buffers(&mut packet, 0x0203);
        assert_eq!(packet[..HEADER_LEN], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 2]);
        assert!(is_complete(&packet));
        packet[0] = 2; // VIRTIO_NET_HDR_F_DATA_VALID
        assert!(is_complete(&packet));
        packet[0] = 1;
        assert!(!is_complete(&packet));
        clear_header(&mut packet);
        packet[1] = 0x81; // VIRTIO_NET_HDR_GSO_TCPV4 and VIRTIO_NET_HDR_GSO_ECN
        assert!(!is_complete(&packet));
        assert!(!is_complete(&packet[..HEADER_LEN - 1]));
    }
}
