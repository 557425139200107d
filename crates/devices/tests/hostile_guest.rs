//! No sequence of register accesses panics.
//!
//! Each case is up to 64 accesses; `PROPTEST_CASES=1000000 cargo test -p ghest-devices` is a long run.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use devices::error_injection::{self, ErrorInjector, ErrorType, Outcome, Request};
use devices::ged::GenericEventDevice;
use devices::i8042::KeyboardController;
use devices::pl011::Pl011;
use devices::pl031::Pl031;
use devices::power::PowerRegisters;
use devices::rtc::RealTimeClock;
use devices::serial::SerialPort;
use devices::{ConsolePort, InterruptLine, Level, LevelLine, MachineControl, ResetCause};
use guest_memory::{Backing, GuestRam};
use platform::Range;
use proptest::collection::vec;
use proptest::prelude::*;
use vm_device::bus::{MmioAddress, PioAddress};
use vm_device::{MutDeviceMmio, MutDevicePio};

struct IgnoreRequests;

impl MachineControl for IgnoreRequests {
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

/// Accesses to a PrimeCell's page, most of them to its registers.
fn page_accesses() -> impl Strategy<Value = Vec<Access>> {
    let offset = prop_oneof![
        4 => (0_u16..0x14).prop_map(|register| 4 * register),
        4 => (0x100_u16..0x109).prop_map(|register| 4 * register),
        1 => (0x3f8_u16..0x400).prop_map(|register| 4 * register),
        1 => 0_u16..0x1000,
    ];
    let data = prop_oneof![
        4 => vec(any::<u8>(), 4),
        1 => vec(any::<u8>(), 1),
        1 => vec(any::<u8>(), 2),
        1 => vec(any::<u8>(), 0..9),
    ];
    let access = (offset, any::<bool>(), data);
    vec(access.prop_map(|(offset, write, data)| Access { offset, write, data }), 1..64)
}

/// Accesses to the registers of error injection, many of them valid commands.
fn injection_accesses() -> impl Strategy<Value = Vec<Access>> {
    let command = |offset| Access { offset, write: true, data: 1_u64.to_le_bytes().to_vec() };
    let other = (0_u16..0x1000, any::<bool>(), vec(any::<u8>(), 0..9))
        .prop_map(|(offset, write, data)| Access { offset, write, data });
    let access = prop_oneof![
        4 => prop_oneof![Just(0x00_u16), Just(0x20), Just(0x28), Just(0x28), Just(0x40)].prop_map(command),
        1 => other,
    ];
    vec(access, 1..16)
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![3 => Just(Outcome::Success), 1 => Just(Outcome::Failure), 1 => Just(Outcome::InvalidAccess)]
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

fn drive_mmio(device: &mut impl MutDeviceMmio, accesses: Vec<Access>) {
    for Access { offset, write, mut data } in accesses {
        if write {
            device.mmio_write(MmioAddress(0), offset.into(), &data);
        } else {
            device.mmio_read(MmioAddress(0), offset.into(), &mut data);
        }
    }
}

/// The level that a line was last set to.
#[derive(Clone, Default)]
struct LastLevel(Arc<AtomicBool>);

impl Level for LastLevel {
    fn set(&self, asserted: bool) {
        self.0.store(asserted, Ordering::Relaxed);
    }
}

/// Asserts that the level of the line agrees with the masked interrupt status.
fn assert_line_agrees(device: &mut impl MutDeviceMmio, masked_status: u64, level: &LastLevel) {
    let mut status = [0; 4];
    device.mmio_read(MmioAddress(0), masked_status, &mut status);
    assert_eq!(level.0.load(Ordering::Relaxed), status != [0; 4], "the line and {status:x?} disagree");
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
        drive(&mut PowerRegisters::new(Arc::new(IgnoreRequests), 5, 1), accesses);
    }

    #[test]
    fn i8042(accesses in accesses(devices::i8042::LEN)) {
        drive(&mut KeyboardController::new(Arc::new(IgnoreRequests)), accesses);
    }

    #[test]
    fn ged(accesses in accesses(8)) {
        drive_mmio(&mut GenericEventDevice::new(line()), accesses);
    }

    #[test]
    fn error_injection(rounds in vec((injection_accesses(), (0..8, 0..8_u32, any::<u32>()), outcome()), 1..16)) {
        let description = error_injection::description(0xd010_1000, Range { start: 0, len: 0x1000 });
        let ram = GuestRam::allocate(&[(0, 0x1000)], Backing::Anonymous).expect("memory");
        let mut injector = ErrorInjector::new(&description, ram.clone(), &ErrorType::ALL).expect("an eventfd");
        let mut injected = None;
        for (accesses, (bit, flags, gpa), outcome) in rounds {
            let parameters = [1_u32 << bit, 0, flags, 0, gpa, 0].map(u32::to_le_bytes);
            ram.write(0, parameters.as_flattened()).expect("memory");
            drive_mmio(&mut injector, accesses);
            // What the guest triggers was injected before, and nothing else since.
            while let Some(request) = injector.take() {
                match request {
                    Request::Inject(error) => {
                        injector.finish(outcome);
                        injected = (outcome == Outcome::Success).then_some(error);
                    }
                    Request::Trigger(error) => prop_assert_eq!(injected.take(), Some(error)),
                }
            }
        }
    }

    #[test]
    fn pl011(accesses in page_accesses(), input in vec(any::<u8>(), 0..200)) {
        let level = LastLevel::default();
        let mut port = Pl011::new(LevelLine::new(level.clone()), Vec::new()).expect("an eventfd");
        let half = accesses.len() / 2;
        drive_mmio(&mut port, accesses[..half].to_vec());
        prop_assert!(port.input(&input) <= input.len().min(32));
        assert_line_agrees(&mut port, 0x40, &level);
        drive_mmio(&mut port, accesses[half..].to_vec());
        assert_line_agrees(&mut port, 0x40, &level);
    }

    #[test]
    fn pl031(accesses in page_accesses()) {
        drive_mmio(&mut Pl031::new(), accesses);
    }
}
