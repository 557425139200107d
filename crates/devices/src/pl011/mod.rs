//! A serial port: Arm's PrimeCell UART PL011, revision r1p5 (Arm DDI 0183G).
//!
//! The port is in the state in which firmware leaves it, because a driver may rely on that: enabled, eight bits per
//! character, FIFOs enabled, and 115200 baud at its clock. The baud rate has no effect. There is no infrared and no DMA:
//! their registers only keep their values. The modem lines are those of a connected peer.
//!
//! Output goes to a writer, character by character. A writer that blocks blocks the vCPU that writes. The transmit FIFO is
//! therefore always empty, and each written character raises the transmit interrupt. Output is written even while the
//! transmitter is disabled: the last messages of a kernel may come after its driver has shut the port down.
//!
//! Input waits in a FIFO of 32 characters ([`ConsolePort::input`] accepts as many as fit). No time passes between
//! characters: the receive timeout, 32 bit periods, is always over. Its interrupt is therefore pending while characters
//! wait, and clearing it has no lasting effect (hardware raises it again 32 bit periods later). The only receive error is an
//! overrun, which only loopback can cause.

mod description;
mod receiver;
mod spec;
#[cfg(test)]
mod tests;

use std::io::{self, Write};

use platform::aarch64::APB_CLOCK_HZ;
use vm_device::MutDeviceMmio;
use vm_device::bus::{MmioAddress, MmioAddressOffset};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::console::ConsolePort;
use crate::line::LevelLine;
use crate::primecell::{self, Identity};

pub use description::{LEN, NAME, node};
use receiver::{Arrival, Receiver};

/// The port.
pub struct Pl011<W: Write> {
    out: W,
    line: LevelLine,
    rx_space: EventFd,
    receiver: Receiver,
    /// Interrupts that stay pending until they are cleared.
    latched: u32,
    /// RSR: an overrun.
    receive_status: u32,
    infrared: u32,
    baud_whole: u32,
    baud_64ths: u32,
    line_control: u32,
    control: u32,
    levels: u32,
    mask: u32,
    dma: u32,
}

const IDENTITY: Identity = Identity { part: spec::PART, revision: spec::REVISION };

/// The divisor of 115200 baud, in 64ths, at 16 clock cycles per bit.
const DIVISOR: u32 = (APB_CLOCK_HZ * 4 + 115_200 / 2) / 115_200;

impl<W: Write> Pl011<W> {
    /// A port on a line, which writes to `out`.
    ///
    /// # Errors
    /// Returns the error of eventfd(2).
    pub fn new(line: LevelLine, out: W) -> io::Result<Self> {
        Ok(Pl011 {
            out,
            line,
            rx_space: EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK)?,
            receiver: Receiver::new(true, spec::IFLS_HALVES),
            latched: 0,
            receive_status: 0,
            infrared: 0,
            baud_whole: DIVISOR / 64,
            baud_64ths: DIVISOR % 64,
            line_control: spec::LCR_H_8_BITS | spec::LCR_H_FIFOS,
            control: spec::CR_ENABLE | spec::CR_TRANSMIT | spec::CR_RECEIVE,
            levels: spec::IFLS_HALVES,
            mask: 0,
            dma: 0,
        })
    }

    fn read(&mut self, offset: u64) -> u32 {
        match offset {
            spec::DR => self.read_data(),
            spec::RSR_ECR => self.receive_status,
            spec::FR => self.flags(),
            spec::ILPR => self.infrared,
            spec::IBRD => self.baud_whole,
            spec::FBRD => self.baud_64ths,
            spec::LCR_H => self.line_control,
            spec::CR => self.control,
            spec::IFLS => self.levels,
            spec::IMSC => self.mask,
            spec::RIS => self.pending(),
            spec::MIS => self.pending() & self.mask,
            spec::DMACR => self.dma,
            _ => IDENTITY.register(offset).unwrap_or(0),
        }
    }

    fn write(&mut self, offset: u64, value: u32) {
        match offset {
            spec::DR => self.send(value as u8),
            spec::RSR_ECR => self.receive_status = 0,
            spec::ILPR => self.infrared = value & 0xff,
            spec::IBRD => self.baud_whole = value & 0xffff,
            spec::FBRD => self.baud_64ths = value & 0x3f,
            spec::LCR_H => self.set_line_control(value & 0xff),
            spec::CR => self.set_control(value & spec::CR_BITS),
            spec::IFLS => {
                self.levels = value & 0x3f;
                self.receiver.set_levels(self.levels);
            }
            spec::IMSC => self.mask = value & spec::INTERRUPTS,
            spec::ICR => self.latched &= !value,
            spec::DMACR => self.dma = value & 0x7,
            _ => {}
        }
        self.update_line();
    }

    fn send(&mut self, byte: u8) {
        if self.control & spec::CR_LOOPBACK != 0 {
            if self.is_receiving() {
                self.receive(byte);
            }
        } else if let Err(error) = self.out.write_all(&[byte]).and_then(|()| self.out.flush()) {
            tracing::debug!(?error, "write of console output failed: the byte is dropped");
        }
        self.latched |= spec::TRANSMIT;
    }

    fn receive(&mut self, byte: u8) {
        match self.receiver.push(byte) {
            Arrival::Stored => {}
            Arrival::Triggered => self.latched |= spec::RECEIVE,
            Arrival::Overrun => {
                self.latched |= spec::OVERRUN;
                self.receive_status |= spec::RSR_OVERRUN;
            }
        }
    }

    /// The oldest waiting character, or zero.
    fn read_data(&mut self) -> u32 {
        let Some(character) = self.receiver.pop() else { return 0 };
        if self.receiver.is_below_trigger() {
            self.latched &= !spec::RECEIVE;
        }
        if self.receiver.is_empty() {
            self.signal_rx_space();
        }
        self.update_line();
        character.into()
    }

    /// Enabling or disabling the FIFOs empties them: drivers flush them this way.
    fn set_line_control(&mut self, value: u32) {
        let changed = self.line_control ^ value;
        self.line_control = value;
        if changed & spec::LCR_H_FIFOS != 0 {
            self.receiver = Receiver::new(value & spec::LCR_H_FIFOS != 0, self.levels);
            self.latched &= !spec::RECEIVE;
            self.signal_rx_space();
        }
    }

    fn set_control(&mut self, value: u32) {
        let (modem, listening) = (self.modem(), self.is_listening());
        self.control = value;
        let changed = modem ^ self.modem();
        for (flag, interrupt) in [
            (spec::FR_RI, spec::RI),
            (spec::FR_CTS, spec::CTS),
            (spec::FR_DCD, spec::DCD),
            (spec::FR_DSR, spec::DSR),
        ] {
            if changed & flag != 0 {
                self.latched |= interrupt;
            }
        }
        if self.is_listening() && !listening {
            self.signal_rx_space();
        }
    }

    fn flags(&self) -> u32 {
        let when = |holds: bool, flag: u32| if holds { flag } else { 0 };
        self.modem()
            | spec::FR_TRANSMIT_EMPTY
            | when(self.receiver.is_empty(), spec::FR_RECEIVE_EMPTY)
            | when(self.receiver.free() == 0, spec::FR_RECEIVE_FULL)
    }

    /// The modem lines, as flags: of a connected peer, or this port's own outputs in loopback.
    fn modem(&self) -> u32 {
        if self.control & spec::CR_LOOPBACK == 0 {
            return spec::FR_CTS | spec::FR_DSR | spec::FR_DCD;
        }
        [
            (spec::CR_RTS, spec::FR_CTS),
            (spec::CR_DTR, spec::FR_DSR),
            (spec::CR_OUT1, spec::FR_DCD),
            (spec::CR_OUT2, spec::FR_RI),
        ]
        .into_iter()
        .filter(|(output, _)| self.control & output != 0)
        .fold(0, |flags, (_, flag)| flags | flag)
    }

    fn is_receiving(&self) -> bool {
        self.control & spec::CR_ENABLE != 0 && self.control & spec::CR_RECEIVE != 0
    }

    /// Whether the receiver is connected to the peer.
    fn is_listening(&self) -> bool {
        self.is_receiving() && self.control & spec::CR_LOOPBACK == 0
    }

    fn pending(&self) -> u32 {
        if self.receiver.is_empty() { self.latched } else { self.latched | spec::RECEIVE_TIMEOUT }
    }

    fn update_line(&mut self) {
        self.line.set(self.pending() & self.mask != 0);
    }

    fn signal_rx_space(&self) {
        // Fails only if the counter would overflow.
        let _ = self.rx_space.write(1);
    }
}

impl<W: Write + Send> ConsolePort for Pl011<W> {
    fn input(&mut self, bytes: &[u8]) -> usize {
        if !self.is_listening() {
            return 0;
        }
        let accepted = bytes.len().min(self.receiver.free());
        for &byte in bytes.iter().take(accepted) {
            self.receive(byte);
        }
        self.update_line();
        accepted
    }

    fn rx_space(&self) -> &EventFd {
        &self.rx_space
    }
}

impl<W: Write> MutDeviceMmio for Pl011<W> {
    fn mmio_read(&mut self, _: MmioAddress, offset: MmioAddressOffset, data: &mut [u8]) {
        primecell::read(offset, data, |offset| self.read(offset));
    }

    fn mmio_write(&mut self, _: MmioAddress, offset: MmioAddressOffset, data: &[u8]) {
        primecell::write(offset, data, |offset, value| self.write(offset, value));
    }
}
