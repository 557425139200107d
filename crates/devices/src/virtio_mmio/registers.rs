//! The registers of a transport (VIRTIO 1.2, 4.2.2, table 4.1). Each is 32 bits wide, little-endian.

use virtio_bindings::virtio_mmio as offset;

/// A register of the transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Register {
    /// Read: [`MAGIC`].
    MagicValue,
    /// Read: [`VERSION`].
    Version,
    /// Read: the device's type.
    DeviceId,
    /// Read: the VMM's vendor id.
    VendorId,
    /// Read: 32 of the offered features, selected by DeviceFeaturesSel.
    DeviceFeatures,
    /// Write: 0 selects features 0 to 31, 1 features 32 to 63.
    DeviceFeaturesSel,
    /// Write: 32 of the features that the driver accepts, selected by DriverFeaturesSel.
    DriverFeatures,
    /// Write: as DeviceFeaturesSel.
    DriverFeaturesSel,
    /// Write: the queue that the queue registers apply to.
    QueueSel,
    /// Read: the maximum size of the queue in elements; 0 if there is no such queue.
    QueueSizeMax,
    /// Write: the size of the queue in elements.
    QueueSize,
    /// Read and write: 1 while the device may use the queue.
    QueueReady,
    /// Write: the index of a queue with new available buffers.
    QueueNotify,
    /// Read: bit 0 is a used buffer notification, bit 1 a configuration change notification.
    InterruptStatus,
    /// Write: the bits of InterruptStatus to clear.
    InterruptAck,
    /// Read and write: the device status; 0 resets the device.
    Status,
    /// Write: half of the GPA of one of the queue's three parts.
    QueueAddress(Part, Half),
    /// Read: length or base of a shared memory region; all ones, since no region exists (4.2.2).
    SharedMemory,
    /// Read: changes with each change of the configuration.
    ConfigGeneration,
}

/// A part of a queue (VIRTIO 1.2, 2.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Descriptor table.
    Descriptors,
    /// Available ring.
    Driver,
    /// Used ring.
    Device,
}

/// Half of a 64-bit value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Half {
    /// Bits 0 to 31.
    Low,
    /// Bits 32 to 63.
    High,
}

/// "virt".
pub(super) const MAGIC: u32 = u32::from_le_bytes(*b"virt");
/// The version of devices that are not legacy devices.
pub(super) const VERSION: u32 = 2;
/// Offset of QueueNotify.
pub(super) const QUEUE_NOTIFY: u64 = offset::VIRTIO_MMIO_QUEUE_NOTIFY as u64;
/// Offset of the device's configuration.
pub(super) const CONFIG: u64 = offset::VIRTIO_MMIO_CONFIG as u64;

impl Register {
    /// The register at an offset. `None` if there is none.
    pub(super) fn at(at: u64) -> Option<Self> {
        Some(match u32::try_from(at).ok()? {
            offset::VIRTIO_MMIO_MAGIC_VALUE => Register::MagicValue,
            offset::VIRTIO_MMIO_VERSION => Register::Version,
            offset::VIRTIO_MMIO_DEVICE_ID => Register::DeviceId,
            offset::VIRTIO_MMIO_VENDOR_ID => Register::VendorId,
            offset::VIRTIO_MMIO_DEVICE_FEATURES => Register::DeviceFeatures,
            offset::VIRTIO_MMIO_DEVICE_FEATURES_SEL => Register::DeviceFeaturesSel,
            offset::VIRTIO_MMIO_DRIVER_FEATURES => Register::DriverFeatures,
            offset::VIRTIO_MMIO_DRIVER_FEATURES_SEL => Register::DriverFeaturesSel,
            offset::VIRTIO_MMIO_QUEUE_SEL => Register::QueueSel,
            offset::VIRTIO_MMIO_QUEUE_NUM_MAX => Register::QueueSizeMax,
            offset::VIRTIO_MMIO_QUEUE_NUM => Register::QueueSize,
            offset::VIRTIO_MMIO_QUEUE_READY => Register::QueueReady,
            offset::VIRTIO_MMIO_QUEUE_NOTIFY => Register::QueueNotify,
            offset::VIRTIO_MMIO_INTERRUPT_STATUS => Register::InterruptStatus,
            offset::VIRTIO_MMIO_INTERRUPT_ACK => Register::InterruptAck,
            offset::VIRTIO_MMIO_STATUS => Register::Status,
            offset::VIRTIO_MMIO_QUEUE_DESC_LOW => Register::QueueAddress(Part::Descriptors, Half::Low),
            offset::VIRTIO_MMIO_QUEUE_DESC_HIGH => Register::QueueAddress(Part::Descriptors, Half::High),
            offset::VIRTIO_MMIO_QUEUE_AVAIL_LOW => Register::QueueAddress(Part::Driver, Half::Low),
            offset::VIRTIO_MMIO_QUEUE_AVAIL_HIGH => Register::QueueAddress(Part::Driver, Half::High),
            offset::VIRTIO_MMIO_QUEUE_USED_LOW => Register::QueueAddress(Part::Device, Half::Low),
            offset::VIRTIO_MMIO_QUEUE_USED_HIGH => Register::QueueAddress(Part::Device, Half::High),
            offset::VIRTIO_MMIO_SHM_LEN_LOW
            | offset::VIRTIO_MMIO_SHM_LEN_HIGH
            | offset::VIRTIO_MMIO_SHM_BASE_LOW
            | offset::VIRTIO_MMIO_SHM_BASE_HIGH => Register::SharedMemory,
            offset::VIRTIO_MMIO_CONFIG_GENERATION => Register::ConfigGeneration,
            _ => return None,
        })
    }
}

impl Half {
    /// The features that a feature selector selects. `None` for features from 64 on.
    pub(super) fn selected(by: u32) -> Option<Self> {
        match by {
            0 => Some(Half::Low),
            1 => Some(Half::High),
            _ => None,
        }
    }

    pub(super) fn of(self, value: u64) -> u32 {
        match self {
            Half::Low => value as u32,
            Half::High => (value >> 32) as u32,
        }
    }

    pub(super) fn put(self, half: u32, value: &mut u64) {
        *value = match self {
            Half::Low => *value & !0xffff_ffff | u64::from(half),
            Half::High => *value & 0xffff_ffff | u64::from(half) << 32,
        };
    }
}
