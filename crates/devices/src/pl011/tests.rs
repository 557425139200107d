use super::*;
use crate::line::probe::Probe;
use crate::primecell::access::{get, ids, put};

fn port() -> (Pl011<Vec<u8>>, Probe) {
    let probe = Probe::default();
    (Pl011::new(probe.line(), Vec::new()).expect("an eventfd"), probe)
}

fn looped(fifo: bool) -> (Pl011<Vec<u8>>, Probe) {
    let (mut port, probe) = port();
    put(&mut port, spec::LCR_H, if fifo { spec::LCR_H_FIFOS } else { 0 });
    put(&mut port, spec::CR, spec::CR_ENABLE | spec::CR_TRANSMIT | spec::CR_RECEIVE | spec::CR_LOOPBACK);
    put(&mut port, spec::ICR, spec::INTERRUPTS);
    (port, probe)
}

#[test]
fn input_beyond_the_fifo_is_refused_until_it_is_empty() {
    let (mut port, _) = port();
    assert_eq!(port.input(&[b'x'; 100]), 32);
    assert_eq!(port.input(b"y"), 0);
    assert_eq!(get(&mut port, spec::FR) & spec::FR_RECEIVE_FULL, spec::FR_RECEIVE_FULL);
    for _ in 0..32 {
        assert!(port.rx_space().read().is_err());
        assert_eq!(get(&mut port, spec::DR), u32::from(b'x'));
    }
    assert_eq!(port.rx_space().read().expect("empty"), 1);
    assert_eq!(get(&mut port, spec::FR) & spec::FR_RECEIVE_EMPTY, spec::FR_RECEIVE_EMPTY);
    assert_eq!(port.input(b"y"), 1);
    assert_eq!(get(&mut port, spec::DR), u32::from(b'y'));
}

#[test]
fn the_receive_interrupt_is_raised_at_the_trigger_level_and_cleared_below_it() {
    let (mut port, probe) = port();
    put(&mut port, spec::IMSC, spec::RECEIVE);
    port.input(&[0; 15]);
    assert!(!probe.asserted());
    port.input(&[0; 1]);
    assert!(probe.asserted());
    get(&mut port, spec::DR);
    assert!(!probe.asserted());

    put(&mut port, spec::IFLS, 0);
    while get(&mut port, spec::FR) & spec::FR_RECEIVE_EMPTY == 0 {
        get(&mut port, spec::DR);
    }
    port.input(&[0; 4]);
    assert!(probe.asserted());
    put(&mut port, spec::ICR, spec::RECEIVE);
    assert!(!probe.asserted(), "a level that was reached and cleared is not reached again");
    port.input(&[0; 1]);
    assert!(!probe.asserted());
}

#[test]
fn a_character_below_the_trigger_level_times_out_until_it_is_read() {
    let (mut port, probe) = port();
    put(&mut port, spec::IMSC, spec::RECEIVE_TIMEOUT);
    port.input(b"ab");
    assert_eq!(get(&mut port, spec::RIS), spec::RECEIVE_TIMEOUT);
    put(&mut port, spec::ICR, spec::RECEIVE_TIMEOUT);
    get(&mut port, spec::DR);
    assert!(probe.asserted());
    get(&mut port, spec::DR);
    assert_eq!((get(&mut port, spec::RIS), probe.asserted()), (0, false));
}

#[test]
fn output_is_written_and_raises_the_transmit_interrupt() {
    let (mut port, probe) = port();
    put(&mut port, spec::IMSC, spec::TRANSMIT);
    assert!(!probe.asserted());
    port.mmio_write(MmioAddress(0), spec::DR, b"h");
    put(&mut port, spec::DR, u32::from_le_bytes(*b"i..."));
    assert_eq!(port.out, b"hi");
    assert!(probe.asserted());
    put(&mut port, spec::ICR, spec::TRANSMIT);
    assert!(!probe.asserted());
    let flags = get(&mut port, spec::FR);
    assert_eq!(flags, 0x97, "both FIFOs empty, not busy, a peer connected");
}

#[test]
fn only_enabled_interrupts_reach_the_line() {
    let (mut port, probe) = port();
    port.input(b"a");
    put(&mut port, spec::DR, 0);
    assert_eq!(get(&mut port, spec::RIS), spec::RECEIVE_TIMEOUT | spec::TRANSMIT);
    assert_eq!((get(&mut port, spec::MIS), probe.asserted()), (0, false));
    put(&mut port, spec::IMSC, spec::RECEIVE_TIMEOUT | spec::RECEIVE);
    assert_eq!((get(&mut port, spec::MIS), probe.asserted()), (spec::RECEIVE_TIMEOUT, true));
    put(&mut port, spec::IMSC, 0);
    assert_eq!(probe.history(), [true, false]);
}

#[test]
fn loopback_returns_output_as_input_only() {
    let (mut port, _) = looped(true);
    assert_eq!(port.input(b"from outside"), 0);
    for byte in *b"echo" {
        put(&mut port, spec::DR, byte.into());
    }
    assert_eq!([(); 4].map(|()| get(&mut port, spec::DR) as u8), *b"echo");
    assert!(port.out.is_empty());
    assert_eq!(port.rx_space().read().expect("empty"), 1);
    put(&mut port, spec::CR, spec::CR_ENABLE | spec::CR_TRANSMIT | spec::CR_RECEIVE);
    assert_eq!(port.rx_space().read().expect("the peer is connected again"), 1);
    assert_eq!(port.input(b"from outside"), 12);
}

#[test]
fn loopback_returns_modem_outputs() {
    let (mut port, _) = looped(true);
    let control = get(&mut port, spec::CR);
    for (output, flag, interrupt) in [
        (spec::CR_RTS, spec::FR_CTS, spec::CTS),
        (spec::CR_DTR, spec::FR_DSR, spec::DSR),
        (spec::CR_OUT1, spec::FR_DCD, spec::DCD),
        (spec::CR_OUT2, spec::FR_RI, spec::RI),
    ] {
        put(&mut port, spec::CR, control | output);
        assert_eq!(get(&mut port, spec::FR) & 0x107, flag);
        assert_eq!(get(&mut port, spec::RIS), interrupt);
        put(&mut port, spec::CR, control);
        put(&mut port, spec::ICR, interrupt);
        assert_eq!(get(&mut port, spec::RIS), 0);
    }
}

#[test]
fn an_overrun_drops_the_new_character_and_is_reported() {
    let (mut port, probe) = looped(true);
    put(&mut port, spec::IMSC, spec::OVERRUN);
    for byte in 0..33 {
        assert!(!probe.asserted());
        put(&mut port, spec::DR, byte);
    }
    assert!(probe.asserted());
    assert_eq!(get(&mut port, spec::RSR_ECR), spec::RSR_OVERRUN);
    put(&mut port, spec::ICR, spec::OVERRUN);
    put(&mut port, spec::RSR_ECR, 0);
    assert_eq!((get(&mut port, spec::RSR_ECR), probe.asserted()), (0, false));
    assert_eq!(get(&mut port, spec::DR), 0);
    put(&mut port, spec::DR, 99);
    let rest: Vec<_> = (0..32).map(|_| get(&mut port, spec::DR)).collect();
    assert_eq!(rest[..31], (1..32).collect::<Vec<_>>());
    assert_eq!(rest[31], 99 | u32::from(spec::DR_OVERRUN));
}

#[test]
fn without_fifos_one_character_is_stored() {
    let (mut port, probe) = port();
    port.input(b"flushed");
    put(&mut port, spec::LCR_H, 0);
    assert_eq!(port.rx_space().read().expect("flushed"), 1);
    assert_eq!(get(&mut port, spec::DR), 0);
    put(&mut port, spec::IMSC, spec::RECEIVE);
    assert_eq!(port.input(b"ab"), 1);
    assert!(probe.asserted());
    assert_eq!(get(&mut port, spec::DR), u32::from(b'a'));
    assert!(!probe.asserted());

    let (mut port, _) = looped(false);
    put(&mut port, spec::DR, 1);
    put(&mut port, spec::DR, 2);
    assert_eq!((get(&mut port, spec::DR), get(&mut port, spec::RSR_ECR)), (1, spec::RSR_OVERRUN));
}

#[test]
fn a_disabled_receiver_accepts_no_input() {
    let (mut port, _) = port();
    for control in [0, spec::CR_ENABLE, spec::CR_RECEIVE] {
        put(&mut port, spec::CR, control);
        assert_eq!(port.input(b"x"), 0);
    }
    assert!(port.rx_space().read().is_err());
    put(&mut port, spec::CR, spec::CR_ENABLE | spec::CR_RECEIVE);
    assert_eq!(port.rx_space().read().expect("enabled"), 1);
    assert_eq!(port.input(b"x"), 1);
}

#[test]
fn the_initial_state_is_that_of_firmware() {
    let (mut port, _) = port();
    let registers = [spec::LCR_H, spec::CR, spec::IFLS, spec::IMSC, spec::RIS, spec::ILPR, spec::DMACR];
    assert_eq!(registers.map(|at| get(&mut port, at)), [0x70, 0x301, 0x12, 0, 0, 0, 0]);
    // As Linux computes the baud rate (drivers/tty/serial/amba-pl011.c).
    let baud = APB_CLOCK_HZ * 4 / (64 * get(&mut port, spec::IBRD) + get(&mut port, spec::FBRD));
    assert!((115_000..115_400).contains(&baud), "{baud}");
}

#[test]
fn it_identifies_as_a_pl011_r1p5_and_keeps_writable_bits() {
    let (mut port, _) = port();
    assert_eq!(ids(&mut port), (0x0034_1011, 0xb105_f00d));
    for (offset, mask) in [
        (spec::ILPR, 0xff),
        (spec::IBRD, 0xffff),
        (spec::FBRD, 0x3f),
        (spec::LCR_H, 0xff),
        (spec::CR, 0xff87),
        (spec::IFLS, 0x3f),
        (spec::IMSC, 0x7ff),
        (spec::DMACR, 7),
    ] {
        put(&mut port, offset, u32::MAX);
        assert_eq!(get(&mut port, offset), mask, "{offset:#x}");
    }
    for read_only in [spec::FR, spec::RIS, spec::MIS, 0x80, 0xfe0] {
        let before = get(&mut port, read_only);
        put(&mut port, read_only, !before);
        assert_eq!(get(&mut port, read_only), before, "{read_only:#x}");
    }
}
