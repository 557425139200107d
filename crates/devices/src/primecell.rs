//! What Arm's PrimeCell peripherals have in common: the width of register accesses, and identification.
//!
//! Registers are aligned to four bytes. An access of 1, 2 or 4 bytes at a register's address reaches its low bytes. Other
//! reads return zero, and other writes are ignored.
//!
//! The last 32 bytes of the page identify the peripheral, eight bits per register. Linux selects the driver by them.

use platform::Property;
use platform::aarch64::APB_CLOCK;
use vm_device::bus::MmioAddressOffset;

/// Bytes of a peripheral's registers.
pub(crate) const LEN: u64 = 0x1000;

/// Handles a read. `register` returns the value of the register at an offset.
pub(crate) fn read(offset: MmioAddressOffset, data: &mut [u8], register: impl FnOnce(u64) -> u32) {
    data.fill(0);
    if reaches_register(offset, data.len()) {
        for (to, from) in data.iter_mut().zip(register(offset).to_le_bytes()) {
            *to = from;
        }
    }
}

/// Handles a write. `register` receives the offset and the value; bytes that were not written are zero.
pub(crate) fn write(offset: MmioAddressOffset, data: &[u8], register: impl FnOnce(u64, u32)) {
    if reaches_register(offset, data.len()) {
        let mut value = [0; 4];
        for (to, &from) in value.iter_mut().zip(data) {
            *to = from;
        }
        register(offset, u32::from_le_bytes(value));
    }
}

fn reaches_register(offset: MmioAddressOffset, len: usize) -> bool {
    offset.is_multiple_of(4) && matches!(len, 1 | 2 | 4)
}

/// The properties `clocks` and `clock-names` of a peripheral: each of its clocks `names` is the clock of the peripheral bus.
pub(crate) fn clocks(names: &[&str]) -> [(&'static str, Property); 2] {
    [
        ("clocks", Property::Devices(vec![(APB_CLOCK, vec![]); names.len()])),
        ("clock-names", Property::Text(names.iter().map(ToString::to_string).collect())),
    ]
}

/// The identification of a peripheral.
pub(crate) struct Identity {
    /// Part number, 12 bits.
    pub(crate) part: u16,
    /// Revision, 4 bits.
    pub(crate) revision: u8,
}

/// Offset of the first identification register (UARTPeriphID0 of the PL011).
const PERIPHERAL_ID: u64 = 0xfe0;
/// Designer: Arm.
const DESIGNER: u8 = 0x41;
/// PCellID0 to PCellID3: a PrimeCell.
const CELL_ID: [u8; 4] = [0x0d, 0xf0, 0x05, 0xb1];

impl Identity {
    /// The value of the identification register at `offset`; `None` if there is none at that offset.
    pub(crate) fn register(&self, offset: u64) -> Option<u32> {
        let index = usize::try_from(offset.checked_sub(PERIPHERAL_ID)? / 4).ok()?;
        let [part, part_high] = self.part.to_le_bytes();
        let peripheral = [part, DESIGNER << 4 | part_high, self.revision << 4 | DESIGNER >> 4, 0];
        peripheral.iter().chain(&CELL_ID).nth(index).copied().map(u32::from)
    }
}

#[cfg(test)]
pub(crate) mod access {
    use vm_device::MutDeviceMmio;
    use vm_device::bus::MmioAddress;

    pub(crate) fn get(device: &mut impl MutDeviceMmio, offset: u64) -> u32 {
        let mut data = [0xff; 4];
        device.mmio_read(MmioAddress(0), offset, &mut data);
        u32::from_le_bytes(data)
    }

    pub(crate) fn put(device: &mut impl MutDeviceMmio, offset: u64, value: u32) {
        device.mmio_write(MmioAddress(0), offset, &value.to_le_bytes());
    }

    /// The peripheral's and the cell's id, as a driver assembles them (Linux, drivers/amba/bus.c).
    pub(crate) fn ids(device: &mut impl MutDeviceMmio) -> (u32, u32) {
        let mut id = |base: u64| (0..4).map(|n| get(device, base + 4 * n) << (8 * n)).sum();
        (id(0xfe0), id(0xff0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_of(offset: u64, len: usize) -> Vec<u8> {
        let mut data = vec![0xff; len];
        read(offset, &mut data, |_| 0x4433_2211);
        data
    }

    #[test]
    fn narrow_accesses_reach_the_low_bytes() {
        assert_eq!(read_of(0, 1), [0x11]);
        assert_eq!(read_of(4, 2), [0x11, 0x22]);
        assert_eq!(read_of(8, 4), [0x11, 0x22, 0x33, 0x44]);
        let mut written = vec![];
        write(4, &[0x11, 0x22], |offset, value| written.push((offset, value)));
        assert_eq!(written, [(4, 0x2211)]);
    }

    #[test]
    fn other_reads_return_zero_and_other_writes_are_ignored() {
        assert_eq!(read_of(1, 1), [0]);
        assert_eq!(read_of(2, 2), [0, 0]);
        assert_eq!(read_of(0, 3), [0; 3]);
        assert_eq!(read_of(0, 8), [0; 8]);
        for (offset, len) in [(1, 1), (2, 4), (0, 3), (0, 8), (0, 0)] {
            write(offset, &vec![1; len], |_, _| panic!("{len} bytes at {offset} reach no register"));
        }
    }
}
