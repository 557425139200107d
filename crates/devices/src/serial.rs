//! A 16550A serial port: vm-superio's, with its description.
//!
//! Output goes to a writer, byte by byte. A writer that blocks blocks the vCPU that writes: a slow reader slows the guest
//! down. Input waits in a FIFO of 64 bytes.
//!
//! ```
//! use devices::serial::SerialPort;
//! use devices::{ConsolePort, InterruptLine};
//! use vm_device::MutDevicePio;
//! use vm_device::bus::PioAddress;
//!
//! let mut port = SerialPort::new(InterruptLine::new()?, Vec::new())?;
//! port.pio_write(PioAddress(0x3f8), 0, b"x"); // the guest writes the transmit register
//! assert_eq!(port.writer(), b"x");
//! assert_eq!(port.input(b"y"), 1);
//! let mut data = [0];
//! port.pio_read(PioAddress(0x3f8), 0, &mut data); // the guest reads the receive register
//! assert_eq!(data, *b"y");
//! # Ok::<(), std::io::Error>(())
//! ```

use std::io;
use std::io::Write;

use platform::{AcpiIdentity, DeviceNode, DeviceRole, DevicetreeIdentity, Property, Trigger};
use vm_device::MutDevicePio;
use vm_device::bus::{PioAddress, PioAddressOffset};
use vm_superio::Serial;
use vm_superio::serial::SerialEvents;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::console::ConsolePort;
use crate::line::InterruptLine;

/// Ports of the registers.
pub const LEN: u16 = 8;
/// Frequency of the clock that the baud-rate divisor divides, in Hz.
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
    serial: Serial<InterruptLine, RxSpace, W>,
}

/// Signalled when the guest has emptied the receive FIFO.
struct RxSpace(EventFd);

impl SerialEvents for RxSpace {
    fn buffer_read(&self) {}
    fn out_byte(&self) {}
    fn tx_lost_byte(&self) {}
    fn in_buffer_empty(&self) {
        // Fails only if the counter would overflow.
        let _ = self.0.write(1);
    }
}

impl<W: Write> SerialPort<W> {
    /// A port on a line, which writes to `out`.
    ///
    /// # Errors
    /// Returns the error of eventfd(2).
    pub fn new(line: InterruptLine, out: W) -> io::Result<Self> {
        let rx_space = RxSpace(EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK)?);
        Ok(SerialPort { serial: Serial::with_events(line, rx_space, out) })
    }

    /// The line that the port raises.
    #[must_use]
    pub fn line(&self) -> &InterruptLine {
        self.serial.interrupt_evt()
    }

    /// The writer of the output.
    #[must_use]
    pub fn writer(&self) -> &W {
        self.serial.writer()
    }
}

impl<W: Write + Send> ConsolePort for SerialPort<W> {
    fn input(&mut self, bytes: &[u8]) -> usize {
        let accepted = bytes.len().min(self.serial.fifo_capacity());
        if accepted == 0 {
            return 0;
        }
        self.serial.enqueue_raw_bytes(&bytes[..accepted]).unwrap_or(0)
    }

    fn rx_space(&self) -> &EventFd {
        &self.serial.events().0
    }
}

impl<W: Write> MutDevicePio for SerialPort<W> {
    fn pio_read(&mut self, _: PioAddress, offset: PioAddressOffset, data: &mut [u8]) {
        // As on the ISA bus, a wider access is an access to each of the ports that it covers.
        for (byte, register) in data.iter_mut().zip(offset..) {
            *byte = self.serial.read(register as u8);
        }
    }

    fn pio_write(&mut self, _: PioAddress, offset: PioAddressOffset, data: &[u8]) {
        for (&byte, register) in data.iter().zip(offset..) {
            if let Err(error) = self.serial.write(register as u8, byte) {
                tracing::debug!(?error, "write of console output failed: the byte is dropped");
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
    fn input_beyond_the_fifo_is_refused_until_it_is_empty() {
        let mut port = port();
        port.pio_write(BASE, INTERRUPT_ENABLE, &[1]);
        assert_eq!(port.input(&[b'x'; 100]), 64);
        assert_eq!(port.input(b"y"), 0);
        assert_eq!(port.line().event().read().expect("received data"), 1);
        assert!(port.rx_space().read().is_err());
        for _ in 0..64 {
            let mut byte = [0];
            port.pio_read(BASE, DATA, &mut byte);
            assert_eq!(byte, [b'x']);
        }
        assert_eq!(port.rx_space().read().expect("empty"), 1);
        assert_eq!(port.input(b"y"), 1);
    }

    #[test]
    fn output_is_written_and_raises_the_transmit_interrupt() {
        let mut port = port();
        port.pio_write(BASE, INTERRUPT_ENABLE, &[2]);
        port.pio_write(BASE, DATA, b"h");
        port.pio_write(BASE, DATA, b"i");
        assert_eq!(port.serial.writer(), b"hi");
        assert!(port.line().event().read().expect("transmitter empty") >= 1);
    }
}
