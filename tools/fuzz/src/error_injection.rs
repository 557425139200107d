//! The registers of error injection: a hostile guest's accesses, and a VMM that serves them when it likes.

use std::fmt::Write as _;

use arbitrary::{Result, Unstructured};
use devices::error_injection::{self, ErrorInjector, ErrorType, InjectedError, Outcome, Request};
use guest_memory::{Backing, GuestRam};
use platform::{ErrorInjection, Range};
use vm_device::MutDeviceMmio;
use vm_device::bus::MmioAddress;

const BASE: u64 = 0xd010_1000;
/// What the device offers: the fatal type is not.
const OFFERED: [ErrorType; 1] = [ErrorType::MemoryUncorrectable];

/// The device with its registers from `base` on.
fn description(base: u64) -> ErrorInjection {
    error_injection::description(base, Range { start: 0x800, len: 0x800 })
}

/// A step of the program that an input is.
#[derive(Debug)]
enum Step {
    /// The guest writes 1 to a register.
    Command(u64),
    /// The guest writes the structure of SET_ERROR_TYPE_WITH_ADDRESS.
    Parameters { bits: u32, flags: u32, gpa: u64 },
    /// The guest writes anything anywhere.
    Write(u64, Vec<u8>),
    /// The guest reads that many bytes.
    Read(u64, usize),
    /// The VMM serves the guest's requests, with that outcome.
    Serve(Outcome),
}

impl Step {
    fn next(input: &mut Unstructured<'_>) -> Result<Step> {
        let registers = description(0);
        let commands = [registers.begin, registers.end, registers.execute, registers.trigger];
        Ok(match input.int_in_range(0..=7)? {
            0..=2 => Step::Command(*input.choose(&commands)?),
            3 => Step::Parameters {
                bits: 1 << input.int_in_range(0..=31)?,
                flags: input.int_in_range(0..=15)?,
                gpa: input.arbitrary()?,
            },
            4 => {
                let len = input.int_in_range(0..=9)?;
                Step::Write(input.int_in_range(0..=0xfff)?, input.bytes(len)?.to_vec())
            }
            5 => Step::Read(input.int_in_range(0..=0xfff)?, input.int_in_range(0..=16)?),
            _ => Step::Serve(*input.choose(&[
                Outcome::Success,
                Outcome::Success,
                Outcome::Failure,
                Outcome::InvalidAccess,
            ])?),
        })
    }
}

/// The program of an input.
fn steps(data: &[u8]) -> Vec<Step> {
    let mut input = Unstructured::new(data);
    std::iter::from_fn(|| if input.is_empty() { None } else { Step::next(&mut input).ok() }).collect()
}

/// Runs a program. The device keeps no more than two requests, triggers only what was injected, and works for a guest that follows the
/// rules afterwards.
pub(crate) fn run(data: &[u8]) {
    let ram = GuestRam::allocate(&[(0, 0x1000)], Backing::Anonymous).expect("memory");
    let mut injector = ErrorInjector::new(&description(BASE), ram.clone(), &OFFERED).expect("an eventfd");
    let mut injected = None;
    for step in steps(data) {
        match step {
            Step::Command(register) => put(&mut injector, register, &1_u64.to_le_bytes()),
            Step::Parameters { bits, flags, gpa } => set_parameters(&ram, bits, flags, gpa),
            Step::Write(register, data) => put(&mut injector, register, &data),
            Step::Read(register, len) => {
                let mut data = vec![0; len];
                injector.mmio_read(MmioAddress(BASE), register, &mut data);
            }
            Step::Serve(outcome) => serve(&mut injector, &mut injected, outcome),
        }
        let registers = description(0);
        assert!(get(&mut injector, registers.busy) <= 1 && get(&mut injector, registers.status) <= 2);
    }
    serve(&mut injector, &mut injected, Outcome::Failure);
    let registers = description(0);
    let command = 1_u64.to_le_bytes();
    put(&mut injector, registers.begin, &command);
    set_parameters(&ram, ErrorType::MemoryUncorrectable.bit(), 2, 0x1234_5000);
    put(&mut injector, registers.execute, &command);
    let error = InjectedError { error_type: ErrorType::MemoryUncorrectable, gpa: 0x1234_5000 };
    assert_eq!(injector.take(), Some(Request::Inject(error)));
    injector.finish(Outcome::Success);
    put(&mut injector, registers.trigger, &command);
    assert_eq!([injector.take(), injector.take()], [Some(Request::Trigger(error)), None]);
}

/// Serves what is requested.
fn serve(injector: &mut ErrorInjector, injected: &mut Option<InjectedError>, outcome: Outcome) {
    let mut served = 0;
    while let Some(request) = injector.take() {
        served += 1;
        match request {
            Request::Inject(error) => {
                assert!(OFFERED.contains(&error.error_type), "{error:?} is not offered");
                injector.finish(outcome);
                *injected = (outcome == Outcome::Success).then_some(error);
            }
            Request::Trigger(error) => assert_eq!(injected.take(), Some(error), "not injected"),
        }
    }
    assert!(served <= 2, "{served} requests were kept");
}

fn set_parameters(ram: &GuestRam, bits: u32, flags: u32, gpa: u64) {
    let words = [bits, 0, flags, 0, gpa as u32, (gpa >> 32) as u32];
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    ram.write(description(0).parameters, &bytes).expect("memory");
}

fn put(injector: &mut ErrorInjector, register: u64, data: &[u8]) {
    injector.mmio_write(MmioAddress(BASE), register, data);
}

fn get(injector: &mut ErrorInjector, register: u64) -> u64 {
    let mut data = [0; 8];
    injector.mmio_read(MmioAddress(BASE), register, &mut data);
    u64::from_le_bytes(data)
}

/// The program, a step in each line.
pub(crate) fn show(data: &[u8]) -> String {
    steps(data).iter().fold(String::new(), |mut text, step| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{step:x?}");
        text
    })
}
