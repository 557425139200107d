//! The notifications that a device sends to its driver.

/// The device's end of a transport's interrupts (VIRTIO 1.2, 2.3). The device's threads and the transport share it.
///
/// A transport decides which interrupt vector or status bit a notification becomes.
pub trait Interrupt: Send + Sync {
    /// Sends a used buffer notification for a queue.
    fn used_buffer(&self, queue: u16);

    /// Sends a configuration change notification: the device's configuration space has changed.
    fn config_changed(&self);

    /// Sets DEVICE_NEEDS_RESET in the device's status and sends a configuration change notification (VIRTIO 1.2, 2.1.2).
    /// The status bit is cleared by a reset only.
    fn needs_reset(&self);
}
