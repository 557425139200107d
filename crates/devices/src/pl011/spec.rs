//! Registers of the PrimeCell UART (Arm DDI 0183G, r1p5): offsets (table 3-1), and the bits that the device implements (3.3).

/// UARTDR: data, with the receive errors of each character (3.3.1).
pub(super) const DR: u64 = 0x00;
/// UARTRSR, UARTECR: receive status; a write clears it (3.3.2).
pub(super) const RSR_ECR: u64 = 0x04;
/// UARTFR: flags (3.3.3).
pub(super) const FR: u64 = 0x18;
/// UARTILPR: divisor of the infrared clock, 8 bits (3.3.4).
pub(super) const ILPR: u64 = 0x20;
/// UARTIBRD: integer part of the baud rate divisor, 16 bits (3.3.5).
pub(super) const IBRD: u64 = 0x24;
/// UARTFBRD: fractional part of the divisor, in 64ths, 6 bits (3.3.6).
pub(super) const FBRD: u64 = 0x28;
/// UARTLCR_H: line control, 8 bits (3.3.7).
pub(super) const LCR_H: u64 = 0x2c;
/// UARTCR: control (3.3.8).
pub(super) const CR: u64 = 0x30;
/// UARTIFLS: trigger levels of the FIFOs, 6 bits (3.3.9).
pub(super) const IFLS: u64 = 0x34;
/// UARTIMSC: interrupt mask, 11 bits; a 1 enables an interrupt (3.3.10).
pub(super) const IMSC: u64 = 0x38;
/// UARTRIS: pending interrupts, before the mask (3.3.11).
pub(super) const RIS: u64 = 0x3c;
/// UARTMIS: pending interrupts, after the mask (3.3.12).
pub(super) const MIS: u64 = 0x40;
/// UARTICR: clears pending interrupts (3.3.13).
pub(super) const ICR: u64 = 0x44;
/// UARTDMACR: DMA control, 3 bits (3.3.14).
pub(super) const DMACR: u64 = 0x48;

/// Part number, from UARTPeriphID0 and 1.
pub(super) const PART: u16 = 0x011;
/// Revision of r1p5, from UARTPeriphID2: the first with FIFOs of 32 characters, which drivers derive from it.
pub(super) const REVISION: u8 = 3;
/// Characters in a FIFO of this revision.
pub(super) const FIFO_DEPTH: usize = 32;

/// DR: an overrun dropped characters before this one.
pub(super) const DR_OVERRUN: u16 = 1 << 11;
/// RSR: an overrun dropped characters.
pub(super) const RSR_OVERRUN: u32 = 1 << 3;

/// FR: clear to send.
pub(super) const FR_CTS: u32 = 1 << 0;
/// FR: data set ready.
pub(super) const FR_DSR: u32 = 1 << 1;
/// FR: data carrier detected.
pub(super) const FR_DCD: u32 = 1 << 2;
/// FR: the receive FIFO is empty.
pub(super) const FR_RECEIVE_EMPTY: u32 = 1 << 4;
/// FR: the receive FIFO is full.
pub(super) const FR_RECEIVE_FULL: u32 = 1 << 6;
/// FR: the transmit FIFO is empty.
pub(super) const FR_TRANSMIT_EMPTY: u32 = 1 << 7;
/// FR: ring indicator.
pub(super) const FR_RI: u32 = 1 << 8;

/// LCR_H: FIFOs enabled; otherwise each holds one character.
pub(super) const LCR_H_FIFOS: u32 = 1 << 4;
/// LCR_H: eight bits per character.
pub(super) const LCR_H_8_BITS: u32 = 3 << 5;

/// CR: UART enabled.
pub(super) const CR_ENABLE: u32 = 1 << 0;
/// CR: loopback.
pub(super) const CR_LOOPBACK: u32 = 1 << 7;
/// CR: transmitter enabled.
pub(super) const CR_TRANSMIT: u32 = 1 << 8;
/// CR: receiver enabled.
pub(super) const CR_RECEIVE: u32 = 1 << 9;
/// CR: data terminal ready.
pub(super) const CR_DTR: u32 = 1 << 10;
/// CR: request to send.
pub(super) const CR_RTS: u32 = 1 << 11;
/// CR: general-purpose output 1; carrier detect on a DTE.
pub(super) const CR_OUT1: u32 = 1 << 12;
/// CR: general-purpose output 2; ring indicator on a DTE.
pub(super) const CR_OUT2: u32 = 1 << 13;
/// CR: writable bits.
pub(super) const CR_BITS: u32 = 0xff87;

/// IFLS: half full, for both FIFOs.
pub(super) const IFLS_HALVES: u32 = 0x12;

/// Interrupt: the ring indicator changed.
pub(super) const RI: u32 = 1 << 0;
/// Interrupt: clear to send changed.
pub(super) const CTS: u32 = 1 << 1;
/// Interrupt: data carrier detected changed.
pub(super) const DCD: u32 = 1 << 2;
/// Interrupt: data set ready changed.
pub(super) const DSR: u32 = 1 << 3;
/// Interrupt: the receive FIFO has reached its trigger level.
pub(super) const RECEIVE: u32 = 1 << 4;
/// Interrupt: the transmit FIFO has fallen to its trigger level.
pub(super) const TRANSMIT: u32 = 1 << 5;
/// Interrupt: characters wait, and none was received for 32 bit periods.
pub(super) const RECEIVE_TIMEOUT: u32 = 1 << 6;
/// Interrupt: an overrun dropped characters.
pub(super) const OVERRUN: u32 = 1 << 10;
/// All interrupts, including those of line errors (7 to 9), which are never raised.
pub(super) const INTERRUPTS: u32 = 0x7ff;
