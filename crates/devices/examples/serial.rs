//! A 16550A serial port, driven by hand: prints what a guest writes, and gives the guest one line of input.
//!
//! ```sh
//! cargo run -p ghest-devices --example serial
//! ```

use std::error::Error;
use std::io::stdout;

use devices::serial::{self, SerialPort};
use devices::{ConsolePort, InterruptLine};
use vm_device::MutDevicePio;
use vm_device::bus::PioAddress;

/// Where this machine has the port: the VMM chooses.
const BASE: u16 = 0x3f8;
const GSI: u32 = 4;

// Registers of the 16550A, from the first port.
const DATA: u16 = 0;
const INTERRUPT_ENABLE: u16 = 1;
const LINE_STATUS: u16 = 5;
const RECEIVED_DATA_AVAILABLE: u8 = 1 << 0;
const DATA_READY: u8 = 1 << 0;

fn main() -> Result<(), Box<dyn Error>> {
    // The description, for the ACPI tables and the devicetree.
    let node = serial::node(BASE, GSI);
    println!("ACPI: {:?}", node.acpi.ok_or("not in ACPI")?.hid);
    println!("devicetree: {:?}", node.devicetree.ok_or("not in the devicetree")?.compatible);

    // The device. With KVM, the VMM binds the eventfd of the line to the GSI (KVM_IRQFD).
    let mut port = SerialPort::new(InterruptLine::new()?, stdout())?;

    // The guest's driver enables the interrupt and prints. A VMM makes these calls at KVM_EXIT_IO.
    port.pio_write(PioAddress(BASE), INTERRUPT_ENABLE, &[RECEIVED_DATA_AVAILABLE]);
    for byte in b"hello from the guest\n" {
        port.pio_write(PioAddress(BASE), DATA, &[*byte]);
    }

    // Input from the host raises the interrupt; the driver reads until the FIFO is empty.
    let accepted = port.input(b"hello from the host");
    println!("{accepted} bytes accepted, interrupts raised: {}", port.line().event().read()?);
    let mut received = Vec::new();
    while read(&mut port, LINE_STATUS) & DATA_READY != 0 {
        received.push(read(&mut port, DATA));
    }
    println!("the guest received {:?}", String::from_utf8_lossy(&received));
    println!("the FIFO has space again: {}", port.rx_space().read().is_ok());
    Ok(())
}

fn read(port: &mut impl MutDevicePio, offset: u16) -> u8 {
    let mut data = [0];
    port.pio_read(PioAddress(BASE), offset, &mut data);
    data[0]
}
