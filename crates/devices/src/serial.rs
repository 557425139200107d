//! A 16550A serial port: vm-superio's, with its description.
//!
//! Output goes to a writer, byte by byte; a writer that blocks holds the vCPU that writes, which is how a slow reader
//! slows the guest down. Input waits in a FIFO of 64 bytes.

use std::io;
use std::io::Write;

use platform::{AcpiIdentity, DeviceNode, DeviceRole, DevicetreeIdentity, Property, Trigger};
use vm_device::MutDevicePio;
use vm_device::bus::{PioAddress, PioAddressOffset};
use vm_superio::Serial;
use vm_superio::serial::SerialEvents;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::console::ConsolePort;
use crate::line::InterruptLine;

/// Ports of the registers.
pub const LEN: u16 = 8;
/// Frequency that the baud-rate divisor divides, Hz.
const CLOCK_HZ: u32 = 1_843_200;

/// The port at I/O ports and on a GSI.
#[must_use]
pub fn node(base: u16, gsi: u32) -> DeviceNode {
    DeviceNode::new(NAME)
        .ports(base, LEN)
        .interrupt(gsi, Trigger::Edge)
        .role(DeviceRole::Ns16550)
        .acpi(AcpiIdentity::new("COM0", "PNP0501"))
        .devicetree(
            DevicetreeIdentity::new("serial", ["ns16550a"])
                .property("clock-frequency", Property::Cells(vec![CLOCK_HZ])),
        )
}

/// The name of the first port.
pub const NAME: &str = "serial0";

/// The port.
pub struct SerialPort<W: Write> {
    serial: Serial<InterruptLine, Room, W>,
}

/// Tells that the guest emptied the input FIFO.
struct Room(EventFd);

impl SerialEvents for Room {
    fn buffer_read(&self) {}
    fn out_byte(&self) {}
    fn tx_lost_byte(&self) {}
    fn in_buffer_empty(&self) {
        // Fails only where nobody has looked 2^64 times.
        let _ = self.0.write(1);
    }
}

impl<W: Write> SerialPort<W> {
    /// A port on a line, which writes to `out`.
    ///
    /// # Errors
    /// Where the host gives no eventfd.
    pub fn new(line: InterruptLine, out: W) -> io::Result<Self> {
        let room = Room(EventFd::new(EFD_NONBLOCK)?);
        Ok(SerialPort { serial: Serial::with_events(line, room, out) })
    }

    /// The line that the port raises.
    #[must_use]
    pub fn line(&self) -> &InterruptLine {
        self.serial.interrupt_evt()
    }
}

impl<W: Write + Send> ConsolePort for SerialPort<W> {
    fn input(&mut self, bytes: &[u8]) -> usize {
        let taken = bytes.len().min(self.serial.fifo_capacity());
        if taken == 0 {
            return 0;
        }
        self.serial.enqueue_raw_bytes(&bytes[..taken]).unwrap_or(0)
    }

    fn room(&self) -> &EventFd {
        &self.serial.events().0
    }
}

impl<W: Write> MutDevicePio for SerialPort<W> {
    fn pio_read(&mut self, _: PioAddress, offset: PioAddressOffset, data: &mut [u8]) {
        // A wider access is one to each of the ports that it covers, as on the ISA bus.
        for (byte, register) in data.iter_mut().zip(offset..) {
            *byte = self.serial.read(register as u8);
        }
    }

    fn pio_write(&mut self, _: PioAddress, offset: PioAddressOffset, data: &[u8]) {
        for (&byte, register) in data.iter().zip(offset..) {
            if let Err(error) = self.serial.write(register as u8, byte) {
                tracing::debug!(?error, "a byte of the guest's console output is lost");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATA: u16 = 0;
    const INTERRUPT_ENABLE: u16 = 1;
    const BASE: PioAddress = PioAddress(0x3f8);

    fn port() -> SerialPort<Vec<u8>> {
        SerialPort::new(InterruptLine::new().expect("an eventfd"), Vec::new()).expect("an eventfd")
    }

    #[test]
    fn input_beyond_the_fifo_waits_for_room() {
        let mut port = port();
        port.pio_write(BASE, INTERRUPT_ENABLE, &[1]);
        assert_eq!(port.input(&[b'x'; 100]), 64);
        assert_eq!(port.input(b"y"), 0);
        assert_eq!(port.line().event().read().expect("received data"), 1);
        assert!(port.room().read().is_err());
        for _ in 0..64 {
            let mut byte = [0];
            port.pio_read(BASE, DATA, &mut byte);
            assert_eq!(byte, [b'x']);
        }
        assert_eq!(port.room().read().expect("empty"), 1);
        assert_eq!(port.input(b"y"), 1);
    }

    #[test]
    fn output_goes_out_and_asks_for_more() {
        let mut port = port();
        port.pio_write(BASE, INTERRUPT_ENABLE, &[2]);
        port.pio_write(BASE, DATA, b"h");
        port.pio_write(BASE, DATA, b"i");
        assert_eq!(port.serial.writer(), b"hi");
        assert!(port.line().event().read().expect("transmitter empty") >= 1);
    }
}
