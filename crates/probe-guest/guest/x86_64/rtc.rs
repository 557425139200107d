//! The real-time clock of a PC (Motorola MC146818A, with the century at the index from the FADT).

use super::cpu::{pause, port_in, port_out};
use crate::date::Date;
use crate::failure::Failure;
use crate::report::say;

const INDEX: u16 = 0x70;
const DATA: u16 = 0x71;

const SECONDS: u8 = 0x00;
const MINUTES: u8 = 0x02;
const HOURS: u8 = 0x04;
const DAY: u8 = 0x07;
const MONTH: u8 = 0x08;
const YEAR: u8 = 0x09;
const STATUS_A: u8 = 0x0a;
const STATUS_B: u8 = 0x0b;

const UPDATE_IN_PROGRESS: u8 = 1 << 7;
const BINARY: u8 = 1 << 2;
const HOURS_24: u8 = 1 << 1;
const AFTERNOON: u8 = 1 << 7;

/// Maximum number of reads until two consecutive ones agree.
const MAX_READS: usize = 100;

/// Prints the time; `century` is the index of the century's byte, 0 if there is none.
pub(crate) fn report(century: u8) -> Result<(), Failure> {
    let mut time = read(century);
    for _ in 0..MAX_READS {
        let again = read(century);
        if again == time {
            say!("rtc ", time);
            return time.check();
        }
        time = again;
    }
    Err(Failure::new("the real-time clock does not show a stable time"))
}

fn read(century: u8) -> Date {
    for _ in 0..100_000 {
        if register(STATUS_A) & UPDATE_IN_PROGRESS == 0 {
            break;
        }
        pause();
    }
    let mode = register(STATUS_B);
    let number =
        |value: u8| u64::from(if mode & BINARY != 0 { value } else { (value >> 4) * 10 + (value & 0xf) });
    let raw_hour = register(HOURS);
    let hour = match mode & HOURS_24 {
        0 => number(raw_hour & !AFTERNOON) % 12 + if raw_hour & AFTERNOON != 0 { 12 } else { 0 },
        _ => number(raw_hour),
    };
    let century = if century == 0 { 20 } else { number(register(century)) };
    Date {
        year: 100 * century + number(register(YEAR)),
        month: number(register(MONTH)),
        day: number(register(DAY)),
        hour,
        minute: number(register(MINUTES)),
        second: number(register(SECONDS)),
    }
}

fn register(index: u8) -> u8 {
    port_out(INDEX, index);
    port_in(DATA)
}
