//! Whatever a guest writes, in whatever order, no register access panics.
//!
//! `PROPTEST_CASES=1000000 cargo test -p devices` makes it a long run; each case is up to 64 accesses.

use std::sync::Arc;

use devices::ged::GenericEventDevice;
use devices::i8042::KeyboardController;
use devices::power::PowerRegisters;
use devices::rtc::RealTimeClock;
use devices::serial::SerialPort;
use devices::{InterruptLine, MachineControl, ResetCause};
use proptest::collection::vec;
use proptest::prelude::*;
use vm_device::bus::{MmioAddress, PioAddress};
use vm_device::{MutDeviceMmio, MutDevicePio};

struct Deaf;

impl MachineControl for Deaf {
    fn power_off(&self) {}
    fn reset(&self, _: ResetCause) {}
}

#[derive(Clone, Debug)]
struct Access {
    offset: u16,
    write: bool,
    data: Vec<u8>,
}

fn accesses(len: u16) -> impl Strategy<Value = Vec<Access>> {
    let access =
        (0..len, any::<bool>(), prop_oneof![vec(any::<u8>(), 1), vec(any::<u8>(), 2), vec(any::<u8>(), 4)]);
    vec(access.prop_map(|(offset, write, data)| Access { offset, write, data }), 1..64)
}

fn drive(device: &mut impl MutDevicePio, accesses: Vec<Access>) {
    for Access { offset, write, mut data } in accesses {
        if write {
            device.pio_write(PioAddress(0), offset, &data);
        } else {
            device.pio_read(PioAddress(0), offset, &mut data);
        }
    }
}

fn line() -> InterruptLine {
    InterruptLine::new().expect("an eventfd")
}

proptest! {
    #[test]
    fn serial(accesses in accesses(devices::serial::LEN), input in vec(any::<u8>(), 0..200)) {
        let mut port = SerialPort::new(line(), Vec::new()).expect("an eventfd");
        let half = accesses.len() / 2;
        drive(&mut port, accesses[..half].to_vec());
        prop_assert!(port.input(&input) <= input.len());
        drive(&mut port, accesses[half..].to_vec());
    }

    #[test]
    fn rtc(accesses in accesses(devices::rtc::LEN)) {
        drive(&mut RealTimeClock::new(), accesses);
    }

    #[test]
    fn power(accesses in accesses(devices::power::LEN)) {
        drive(&mut PowerRegisters::new(Arc::new(Deaf), 5, 1), accesses);
    }

    #[test]
    fn i8042(accesses in accesses(devices::i8042::LEN)) {
        drive(&mut KeyboardController::new(Arc::new(Deaf)), accesses);
    }

    #[test]
    fn ged(accesses in accesses(8)) {
        let mut ged = GenericEventDevice::new(line());
        for Access { offset, write, mut data } in accesses {
            if write {
                ged.mmio_write(MmioAddress(0), offset.into(), &data);
            } else {
                ged.mmio_read(MmioAddress(0), offset.into(), &mut data);
            }
        }
    }
}
