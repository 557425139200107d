//! vhost-net: the host's kernel serves queues, and accesses the guest's memory itself.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, RawFd};

use guest_memory::GuestRam;
use vhost::vhost_kern::VhostKernBackend;
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_net::VIRTIO_NET_F_MRG_RXBUF;
use vm_memory::GuestMemoryMmap;
use vmm_sys_util::eventfd::EventFd;

use super::feature;
use super::tap::Queue as TapQueue;
use crate::vhost::{Rings, SetupError, failed};
use crate::virtio::Queue;

const DEVICE: &str = "/dev/vhost-net";

/// Indices of the rings of a pair.
pub(super) const RECEIVE: usize = 0;
pub(super) const TRANSMIT: usize = 1;

/// The features that the kernel has to know. Those of offloads are between the driver and the tap: the kernel passes the headers on.
const FEATURES: u64 = feature(VIRTIO_F_VERSION_1) | feature(VIRTIO_NET_F_MRG_RXBUF) | Queue::FEATURES;

/// Why a host has no vhost-net for a device.
#[derive(Debug, thiserror::Error)]
pub(super) enum VhostError {
    #[error("{DEVICE}: {0}")]
    Open(#[source] io::Error),
    #[error("{DEVICE}: VHOST_GET_FEATURES: {0}")]
    Request(#[source] vhost::Error),
    #[error("{DEVICE}: the kernel lacks the features {0:#x}")]
    Features(u64),
}

impl VhostError {
    /// A suggestion for the user.
    pub(super) fn help(&self) -> String {
        const WITHOUT: &str = "or remove `vhost`: ghest serves the queues itself then";
        match self {
            // A node that udev has made without the module.
            VhostError::Open(error)
                if error.kind() == io::ErrorKind::NotFound
                    || error.raw_os_error() == Some(nix::libc::ENODEV)
                    || error.raw_os_error() == Some(nix::libc::ENXIO) =>
            {
                format!("load the kernel's module as root (`modprobe vhost_net`), {WITHOUT}")
            }
            VhostError::Open(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                format!(
                    "add this user to the device's group (for Debian: `usermod -aG kvm $USER`), {WITHOUT}"
                )
            }
            VhostError::Open(_) | VhostError::Request(_) | VhostError::Features(_) => {
                WITHOUT.trim_start_matches("or ").to_owned()
            }
        }
    }
}

/// An open vhost-net, for one pair of queues. It is kept across resets.
#[derive(Debug)]
pub(super) struct VhostNet(File);

/// A vhost-net with the memory that its rings are in.
struct Requests<'a> {
    file: &'a File,
    memory: &'a GuestMemoryMmap,
}

impl AsRawFd for Requests<'_> {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

impl<'a> VhostKernBackend for Requests<'a> {
    type AS = &'a GuestMemoryMmap;

    fn mem(&self) -> &Self::AS {
        &self.memory
    }

    /// A [`Queue`] is in memory from its first to its last byte. The library refuses one that ends where memory does.
    fn is_valid(&self, _: &VringConfigData) -> bool {
        true
    }
}

impl VhostNet {
    /// Opens a vhost-net that knows all features that a device may need.
    pub(super) fn open() -> Result<Self, VhostError> {
        let file = OpenOptions::new().read(true).write(true).open(DEVICE).map_err(VhostError::Open)?;
        let memory = GuestMemoryMmap::new();
        let features =
            Requests { file: &file, memory: &memory }.get_features().map_err(VhostError::Request)?;
        match FEATURES & !features {
            0 => Ok(VhostNet(file)),
            missing => Err(VhostError::Features(missing)),
        }
    }

    /// Has the kernel serve the rings of a pair, by a queue of a tap. `errors` is signalled when it cannot use a ring. If this fails, the
    /// kernel does not serve them, or no longer.
    pub(super) fn start(
        &self,
        features: u64,
        ram: &GuestRam,
        rings: &mut Rings,
        tap: &TapQueue,
        errors: &EventFd,
    ) -> Result<(), SetupError> {
        if let Err(error) = self.set_up(features, ram, rings, errors) {
            // It fails if there was no owner yet.
            let _ = self.requests(ram).reset_owner();
            return Err(error);
        }
        let start = || {
            for ring in rings.iter() {
                tap.set_vhost(&self.0, ring.index, true).map_err(set_backend_failed)?;
                // It may have been notified before.
                ring.kick();
            }
            Ok(())
        };
        let outcome = start();
        if outcome.is_err() {
            self.stop(ram, rings, tap)?;
        }
        outcome
    }

    fn set_up(
        &self,
        features: u64,
        ram: &GuestRam,
        rings: &Rings,
        errors: &EventFd,
    ) -> Result<(), SetupError> {
        let requests = self.requests(ram);
        requests.set_owner().map_err(failed("SET_OWNER"))?;
        requests.set_features(features & FEATURES).map_err(failed("SET_FEATURES"))?;
        let regions = ram.slots().map(|slot| VhostUserMemoryRegionInfo {
            guest_phys_addr: slot.gpa,
            memory_size: slot.len,
            userspace_addr: slot.hva,
            // The kernel has this process's mapping.
            mmap_offset: 0,
            mmap_handle: -1,
        });
        requests.set_mem_table(&regions.collect::<Vec<_>>()).map_err(failed("SET_MEM_TABLE"))?;
        for ring in rings.iter() {
            // The library makes host addresses of GPAs.
            ring.set_up(&requests, Some)?;
            requests.set_vring_err(ring.index, errors).map_err(failed("SET_VRING_ERR"))?;
        }
        Ok(())
    }

    /// Stops the kernel, and stores at which element each ring continues. When this returns, the kernel accesses no guest memory, unless
    /// the first request of all fails.
    pub(super) fn stop(&self, ram: &GuestRam, rings: &mut Rings, tap: &TapQueue) -> Result<(), SetupError> {
        let requests = self.requests(ram);
        let stop = |index| tap.set_vhost(&self.0, index, false).map_err(set_backend_failed);
        let stopped = rings.iter().try_for_each(|ring| stop(ring.index));
        let based = rings.iter_mut().try_for_each(|ring| {
            ring.stopped_at(requests.get_vring_base(ring.index).map_err(failed("GET_VRING_BASE"))?);
            Ok(())
        });
        // Also the notifications of the driver: they would wake the kernel's thread for nothing.
        let released = requests.reset_owner().map_err(failed("RESET_OWNER"));
        stopped.and(based).and(released)
    }

    fn requests<'a>(&'a self, ram: &'a GuestRam) -> Requests<'a> {
        Requests { file: &self.0, memory: ram.memory() }
    }
}

fn set_backend_failed(error: rustix::io::Errno) -> SetupError {
    failed("NET_SET_BACKEND")(vhost::Error::IoctlError(error.into()))
}
