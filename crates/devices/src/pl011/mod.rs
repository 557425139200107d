//! A serial port: Arm's PrimeCell UART PL011, revision r1p5 (Arm DDI 0183G).
//!
//! The port is as firmware would leave it, because a driver may rely on that: on, eight bits to a character, FIFOs in
//! use, and 115200 baud by its clock. Nothing depends on the baud rate; there is no infrared and no DMA, and their
//! registers are memory. The modem lines are those of a peer that is always there.
//!
//! Output goes to a writer, character by character; a writer that blocks holds the vCPU that writes. So the transmit FIFO
//! is always empty, and each character that was written raises the transmit interrupt anew. Output goes out even while
//! the transmitter is off: a kernel's fatal-signal report may come after its driver's end.
//!
//! Input waits in a FIFO of 32 characters ([`ConsolePort::input`] takes what fits). Time does not pass between
//! characters: where the guest has not been given the next, the 32 bits' time of the receive timeout is over, so that
//! interrupt is pending for as long as characters wait, and clearing it has no preserved effect (as with the hardware,
//! which raises it again 32 bits later). The only receive error is an overrun, and only loopback can bring it about.

mod description;
mod receiver;
mod spec;
#[cfg(test)]
mod tests;

use std::io::{self, Write};

use platform::aarch64::APB_CLOCK_HZ;
use vm_device::MutDeviceMmio;
use vm_device::bus::{MmioAddress, MmioAddressOffset};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::console::ConsolePort;
use crate::line::LevelLine;
use crate::primecell::{self, Identity};

pub use description::{LEN, NAME, node};
use receiver::{Arrival, Receiver};

/// The port.
pub struct Pl011<W: Write> {
    out: W,
    line: LevelLine,
    room: EventFd,
    receiver: Receiver,
    /// Interrupts that are pending until they are cleared.
    latched: u32,
    /// RSR: characters were lost.
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

/// The divisor of 115200 baud, in 64ths: the clock has 16 cycles to a bit.
const DIVISOR: u32 = (APB_CLOCK_HZ * 4 + 115_200 / 2) / 115_200;

impl<W: Write> Pl011<W> {
    /// A port on a line, which writes to `out`.
    ///
    /// # Errors
    /// Where the host gives no eventfd.
    pub fn new(line: LevelLine, out: W) -> io::Result<Self> {
        Ok(Pl011 {
            out,
            line,
            room: EventFd::new(EFD_NONBLOCK)?,
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
            if self.receives() {
                self.receive(byte);
            }
        } else if let Err(error) = self.out.write_all(&[byte]).and_then(|()| self.out.flush()) {
            tracing::debug!(?error, "a byte of the guest's console output is lost");
        }
        self.latched |= spec::TRANSMIT;
    }

    fn receive(&mut self, byte: u8) {
        match self.receiver.push(byte) {
            Arrival::Stored => {}
            Arrival::Triggered => self.latched |= spec::RECEIVE,
            Arrival::Lost => {
                self.latched |= spec::OVERRUN;
                self.receive_status |= spec::RSR_OVERRUN;
            }
        }
    }

    /// The oldest character that waits, or zero.
    fn read_data(&mut self) -> u32 {
        let Some(character) = self.receiver.pop() else { return 0 };
        if self.receiver.is_below_trigger() {
            self.latched &= !spec::RECEIVE;
        }
        if self.receiver.is_empty() {
            self.tell_room();
        }
        self.update_line();
        character.into()
    }

    /// Switching the FIFOs on or off empties them: that is how a driver flushes them.
    fn set_line_control(&mut self, value: u32) {
        let changed = self.line_control ^ value;
        self.line_control = value;
        if changed & spec::LCR_H_FIFOS != 0 {
            self.receiver = Receiver::new(value & spec::LCR_H_FIFOS != 0, self.levels);
            self.latched &= !spec::RECEIVE;
            self.tell_room();
        }
    }

    fn set_control(&mut self, value: u32) {
        let (modem, listened) = (self.modem(), self.listens());
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
        if self.listens() && !listened {
            self.tell_room();
        }
    }

    fn flags(&self) -> u32 {
        let when = |holds: bool, flag: u32| if holds { flag } else { 0 };
        self.modem()
            | spec::FR_TRANSMIT_EMPTY
            | when(self.receiver.is_empty(), spec::FR_RECEIVE_EMPTY)
            | when(self.receiver.room() == 0, spec::FR_RECEIVE_FULL)
    }

    /// The modem's lines, as flags: a peer that is there, or this port's own outputs in loopback.
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

    fn receives(&self) -> bool {
        self.control & spec::CR_ENABLE != 0 && self.control & spec::CR_RECEIVE != 0
    }

    /// Whether the receiver hears the peer.
    fn listens(&self) -> bool {
        self.receives() && self.control & spec::CR_LOOPBACK == 0
    }

    fn pending(&self) -> u32 {
        if self.receiver.is_empty() { self.latched } else { self.latched | spec::RECEIVE_TIMEOUT }
    }

    fn update_line(&mut self) {
        self.line.set(self.pending() & self.mask != 0);
    }

    fn tell_room(&self) {
        // Fails only where nobody has looked 2^64 times.
        let _ = self.room.write(1);
    }
}

impl<W: Write + Send> ConsolePort for Pl011<W> {
    fn input(&mut self, bytes: &[u8]) -> usize {
        if !self.listens() {
            return 0;
        }
        let taken = bytes.len().min(self.receiver.room());
        for &byte in bytes.iter().take(taken) {
            self.receive(byte);
        }
        self.update_line();
        taken
    }

    fn room(&self) -> &EventFd {
        &self.room
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
