//! The protocol of the registers.

use guest_memory::Backing;

use super::*;

const BASE: u64 = 0xd010_1000;
const UNCORRECTABLE: InjectedError =
    InjectedError { error_type: ErrorType::MemoryUncorrectable, gpa: 0x1_2345_6789 };

/// A block of memory, in a page of its own.
const MEMORY: Range = Range { start: 0x1000, len: 0x1000 };

fn injector() -> ErrorInjector {
    let ram = GuestRam::allocate(&[(0, 0x2000)], Backing::Anonymous).expect("memory");
    let offered = [ErrorType::MemoryUncorrectable];
    ErrorInjector::new(&description(BASE, MEMORY), ram, &offered).expect("an eventfd")
}

fn get(injector: &mut ErrorInjector, register: u64) -> u64 {
    let mut data = [0xff; 8];
    injector.mmio_read(MmioAddress(BASE), register, &mut data);
    u64::from_le_bytes(data)
}

fn put(injector: &mut ErrorInjector, register: u64, value: u64) {
    injector.mmio_write(MmioAddress(BASE), register, &value.to_le_bytes());
}

/// Begins an operation, writes the structure as Linux does, and executes.
fn execute(injector: &mut ErrorInjector, bits: u32, flags: u32, gpa: u64) {
    put(injector, BEGIN, 1);
    let words = [bits, 0, flags, 0, gpa as u32, (gpa >> 32) as u32, 0xffff_f000, u32::MAX, 0];
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    injector.ram.write(MEMORY.start, &bytes).expect("memory");
    put(injector, EXECUTE, 1);
}

#[test]
fn an_error_is_injected_and_triggered_once() {
    let mut injector = injector();
    assert_eq!(get(&mut injector, ERROR_TYPES), 1 << 4);
    execute(&mut injector, 1 << 4, 2, UNCORRECTABLE.gpa);
    assert_eq!(injector.wake().read().expect("woken"), 1);
    assert_eq!(get(&mut injector, BUSY), 1);
    assert_eq!(injector.take(), Some(Request::Inject(UNCORRECTABLE)));
    assert_eq!((injector.take(), get(&mut injector, BUSY)), (None, 1));
    // Too early.
    put(&mut injector, TRIGGER, 1);
    injector.finish(Outcome::Success);
    assert_eq!([BUSY, STATUS].map(|register| get(&mut injector, register)), [0, 0]);
    assert_eq!(injector.take(), None);
    put(&mut injector, TRIGGER, 1);
    put(&mut injector, TRIGGER, 1);
    assert_eq!(injector.wake().read().expect("woken"), 1);
    assert_eq!(injector.take(), Some(Request::Trigger(UNCORRECTABLE)));
    assert_eq!(injector.take(), None);
}

#[test]
fn an_error_that_is_not_triggered_before_the_end_is_not_triggered_later() {
    for last in [END, BEGIN] {
        let mut injector = injector();
        execute(&mut injector, 1 << 4, 2, 0x1000);
        injector.take();
        injector.finish(Outcome::Success);
        put(&mut injector, last, 1);
        put(&mut injector, TRIGGER, 1);
        assert_eq!(injector.take(), None);
    }
}

#[test]
fn what_is_not_offered_is_invalid() {
    // Not offered, several types, none, a vendor's; without an address; with a field of a later version.
    for (bits, flags) in
        [(1 << 5, 2), (0x18, 2), (0, 2), (1 << 31 | 1 << 4, 2), (1 << 4, 1), (1 << 4, 0), (1 << 4, 0xa)]
    {
        let mut injector = injector();
        execute(&mut injector, bits, flags, 0x1000);
        assert_eq!([BUSY, STATUS].map(|register| get(&mut injector, register)), [0, 2], "{bits:#x}");
        assert_eq!(injector.take(), None);
    }
    let mut injector = injector();
    put(&mut injector, ERROR_TYPE, 1 << 4);
    put(&mut injector, EXECUTE, 1);
    assert_eq!(get(&mut injector, STATUS), 2);
}

#[test]
fn a_failed_injection_cannot_be_triggered() {
    for (outcome, code) in [(Outcome::Failure, 1), (Outcome::InvalidAccess, 2)] {
        let mut injector = injector();
        execute(&mut injector, 1 << 4, 2, 0x1000);
        injector.take();
        injector.finish(outcome);
        assert_eq!([BUSY, STATUS].map(|register| get(&mut injector, register)), [0, code]);
        put(&mut injector, TRIGGER, 1);
        assert_eq!(injector.take(), None);
    }
}

#[test]
fn an_error_is_triggered_before_the_next_one_is_injected() {
    let mut injector = injector();
    execute(&mut injector, 1 << 4, 2, UNCORRECTABLE.gpa);
    injector.take();
    injector.finish(Outcome::Success);
    put(&mut injector, TRIGGER, 1);
    execute(&mut injector, 1 << 4, 2, 0x5000);
    // Neither takes the place of the one that is in progress.
    execute(&mut injector, 1 << 4, 2, 0x6000);
    let next = InjectedError { gpa: 0x5000, ..UNCORRECTABLE };
    assert_eq!(
        [injector.take(), injector.take(), injector.take()],
        [Some(Request::Trigger(UNCORRECTABLE)), Some(Request::Inject(next)), None]
    );
}

#[test]
fn an_operation_begins_without_an_address() {
    let mut injector = injector();
    execute(&mut injector, 1 << 4, 2, 0x1000);
    injector.take();
    injector.finish(Outcome::Success);
    put(&mut injector, BEGIN, 1);
    put(&mut injector, EXECUTE, 1);
    assert_eq!([BUSY, STATUS].map(|register| get(&mut injector, register)), [0, 2]);
}

#[test]
fn a_description_that_is_not_in_memory_is_invalid() {
    let mut injector = injector();
    injector.parameters = 0x1ff0;
    for command in [BEGIN, EXECUTE] {
        put(&mut injector, command, 1);
    }
    assert_eq!((get(&mut injector, STATUS), injector.take()), (2, None));
}

#[test]
fn commands_are_written_as_a_whole() {
    let mut injector = injector();
    execute(&mut injector, 1 << 4, 2, 0x1000);
    injector.take();
    injector.finish(Outcome::Success);
    injector.mmio_write(MmioAddress(BASE), TRIGGER, &[1, 0, 0, 0]);
    put(&mut injector, TRIGGER, 2);
    assert_eq!(injector.take(), None);
    assert_eq!(get(&mut injector, TRIGGER_POINTER), MEMORY.start + TRIGGER_TABLE);
    let mut half = [0xff; 4];
    injector.mmio_read(MmioAddress(BASE), TRIGGER_POINTER, &mut half);
    assert_eq!(half, [0; 4]);
}
