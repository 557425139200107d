//! The host's end of a queue pair.

use std::io;

use vmm_sys_util::epoll::EventSet;

use crate::virtio::GroupContext;

/// Where the packets of a queue pair come from and go to. Packets are frames behind the header of the driver.
///
/// A port watches its descriptors edge-triggered: it is not woken again and again while the driver has no buffers. It never
/// blocks. An error of one of its calls is of the thread, and the device needs a reset; what the other side causes is not an
/// error.
pub(super) trait Port: Send {
    /// Watches the descriptors. Called at the start of the thread.
    fn start(&mut self, context: &GroupContext<'_>) -> io::Result<()>;

    /// A watched descriptor is ready.
    fn ready(&mut self, token: u32, events: EventSet, context: &GroupContext<'_>) -> io::Result<()>;

    /// Forgets that a direction had to wait: the next calls find out.
    fn look_again(&mut self);

    /// Reads the next packet and returns its length. `None` if there is none until a descriptor is ready.
    fn receive(&mut self, packet: &mut [u8], context: &GroupContext<'_>) -> io::Result<Option<usize>>;

    /// Whether the next packet can be sent. If not, a descriptor becomes ready once it can.
    fn can_send(&mut self, context: &GroupContext<'_>) -> io::Result<bool>;

    /// Sends a packet, or drops it if it is not valid or there is nobody to send it to. The packet is scratch space afterwards.
    fn send(&mut self, packet: &mut [u8], context: &GroupContext<'_>) -> io::Result<()>;
}
