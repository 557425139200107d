//! The ioctls of a tap (linux/if_tun.h), and the one by which vhost-net gets it (linux/vhost.h). Those of the guest's offloads are in the same units as the kernel's header.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use rustix::io;
use rustix::ioctl::{self, IntegerSetter, Opcode, Setter, Updater, ioctl};

const TUNSETIFF: Opcode = ioctl::opcode::write::<i32>(b'T', 202);
const TUNSETOFFLOAD: Opcode = ioctl::opcode::write::<u32>(b'T', 208);
const TUNGETIFF: Opcode = ioctl::opcode::read::<u32>(b'T', 210);
const TUNSETVNETHDRSZ: Opcode = ioctl::opcode::write::<i32>(b'T', 216);
const TUNSETQUEUE: Opcode = ioctl::opcode::write::<i32>(b'T', 217);
const VHOST_NET_SET_BACKEND: Opcode = ioctl::opcode::write::<VringFile>(0xaf, 0x30);

/// Flags of an interface (IFF_x).
pub(super) const TAP: u16 = 0x0002;
pub(super) const MULTI_QUEUE: u16 = 0x0100;
const ATTACH_QUEUE: u16 = 0x0200;
const DETACH_QUEUE: u16 = 0x0400;
pub(super) const NO_PACKET_INFORMATION: u16 = 0x1000;
pub(super) const VNET_HEADER: u16 = 0x4000;

/// What the guest's driver takes over from the host's (TUN_F_x).
pub(super) const CHECKSUM: u32 = 0x01;
pub(super) const TSO4: u32 = 0x02;
pub(super) const TSO6: u32 = 0x04;
pub(super) const TSO_ECN: u32 = 0x08;
pub(super) const USO4: u32 = 0x20;
pub(super) const USO6: u32 = 0x40;

/// `struct ifreq` with flags.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct InterfaceRequest {
    name: [u8; 16],
    flags: u16,
    rest: [u8; 22],
}

const _: () = assert!(size_of::<InterfaceRequest>() == 40);

impl InterfaceRequest {
    fn new(name: &str, flags: u16) -> Self {
        let mut request = InterfaceRequest { flags, ..InterfaceRequest::default() };
        // The last byte stays 0.
        request.name.iter_mut().take(15).zip(name.bytes()).for_each(|(to, from)| *to = from);
        request
    }
}

/// `struct vhost_vring_file`.
#[repr(C)]
struct VringFile {
    index: u32,
    /// -1 for none.
    fd: RawFd,
}

const _: () = assert!(size_of::<VringFile>() == 8);

/// Has a descriptor that is open closed by execve(2).
pub(super) fn close_on_exec(descriptor: RawFd) -> io::Result<()> {
    #[expect(unsafe_code, reason = "a descriptor that has no owner in this program")]
    // SAFETY: the ioctl uses the number only, and fails if it is not open.
    let descriptor = unsafe { BorrowedFd::borrow_raw(descriptor) };
    io::ioctl_fioclex(descriptor)
}

/// Attaches an open /dev/net/tun to an interface.
pub(super) fn attach(tun: impl AsFd, name: &str, flags: u16) -> io::Result<()> {
    let mut request = InterfaceRequest::new(name, flags);
    #[expect(unsafe_code, reason = "an ioctl")]
    // SAFETY: TUNSETIFF reads and writes one `struct ifreq`.
    unsafe {
        ioctl(tun, Updater::<TUNSETIFF, InterfaceRequest>::new(&mut request))
    }
}

/// The name and the flags of the interface that a descriptor is attached to.
pub(super) fn interface(tap: impl AsFd) -> io::Result<(String, u16)> {
    let mut request = InterfaceRequest::default();
    #[expect(unsafe_code, reason = "an ioctl")]
    // SAFETY: TUNGETIFF writes one `struct ifreq`.
    unsafe {
        ioctl(tap, Updater::<TUNGETIFF, InterfaceRequest>::new(&mut request))?;
    }
    let name = request.name.split(|&byte| byte == 0).next().unwrap_or_default();
    Ok((String::from_utf8_lossy(name).into_owned(), request.flags))
}

/// Sets the bytes of the header of each packet.
pub(super) fn set_header_len(tap: impl AsFd, len: i32) -> io::Result<()> {
    #[expect(unsafe_code, reason = "an ioctl")]
    // SAFETY: TUNSETVNETHDRSZ reads one int.
    unsafe {
        ioctl(tap, Setter::<TUNSETVNETHDRSZ, i32>::new(len))
    }
}

/// Sets what packets from the tap may leave to their reader.
pub(super) fn set_offloads(tap: impl AsFd, offloads: u32) -> io::Result<()> {
    #[expect(unsafe_code, reason = "an ioctl")]
    // SAFETY: The argument of TUNSETOFFLOAD is a number.
    unsafe {
        ioctl(tap, IntegerSetter::<TUNSETOFFLOAD>::new_usize(offloads as usize))
    }
}

/// Attaches a queue of an interface with several, or detaches it.
pub(super) fn set_queue(queue: impl AsFd, attached: bool) -> io::Result<()> {
    let flags = if attached { ATTACH_QUEUE } else { DETACH_QUEUE };
    #[expect(unsafe_code, reason = "an ioctl")]
    // SAFETY: TUNSETQUEUE reads one `struct ifreq`.
    unsafe {
        ioctl(queue, Setter::<TUNSETQUEUE, InterfaceRequest>::new(InterfaceRequest::new("", flags)))
    }
}

/// Has a ring of vhost-net send to a tap and receive from it, or stops the ring.
pub(super) fn set_vhost_backend(vhost: impl AsFd, ring: u32, tap: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let file = VringFile { index: ring, fd: tap.map_or(-1, |tap| tap.as_raw_fd()) };
    #[expect(unsafe_code, reason = "an ioctl")]
    // SAFETY: VHOST_NET_SET_BACKEND reads one `struct vhost_vring_file`, whose descriptor is open or -1.
    unsafe {
        ioctl(vhost, Setter::<VHOST_NET_SET_BACKEND, VringFile>::new(file))
    }
}
