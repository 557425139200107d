//! The real-time clock of a PC: an MC146818 (Motorola data sheet, 1984) with the century register that PCs added, and
//! its battery-backed memory.
//!
//! | index | register |
//! |---|---|
//! | 0, 2, 4 | seconds, minutes, hours |
//! | 6, 7, 8, 9 | day of the week (1 is Sunday), day, month, year of the century |
//! | 0xa | A: update in progress in bit 7; rate and divider as a PC sets them |
//! | 0xb | B: SET (7) stops updates, DM (2) binary, 24/12 (1) |
//! | 0xc, 0xd | C: no interrupt is ever pending; D: memory and time are valid |
//! | 0x32 | century |
//! | others up to 0x7f | memory |
//!
//! The time is the host's (UTC) plus the offset that the guest has set. The year has four digits: the year after 9999 is 0.
//! There is no alarm, so the tables declare no interrupt.

use std::time::{SystemTime, UNIX_EPOCH};

use platform::{AcpiIdentity, DeviceNode, DeviceRole};
use time::{Date, Month, OffsetDateTime, PrimitiveDateTime, Time};
use vm_device::MutDevicePio;
use vm_device::bus::{PioAddress, PioAddressOffset};

/// Ports of the registers: index and data.
pub const LEN: u16 = 2;

/// The clock at its ports.
#[must_use]
pub fn node(base: u16) -> DeviceNode {
    DeviceNode::new(NAME)
        .ports(base, LEN)
        .role(DeviceRole::CmosRtc)
        .acpi(AcpiIdentity::new("RTC0", "PNP0B00"))
}

/// The name of the clock.
pub const NAME: &str = "rtc";

/// The clock.
pub struct RealTimeClock {
    index: u8,
    memory: [u8; 128],
    /// Seconds that the guest's clock is ahead of the host's.
    ahead: i64,
    /// The time registers, in binary, while SET stops updates.
    held: Option<Registers>,
    now: fn() -> i64,
}

const REGISTER_A: u8 = 0xa;
const REGISTER_B: u8 = 0xb;
const REGISTER_C: u8 = 0xc;
const REGISTER_D: u8 = 0xd;

/// A: 32.768 kHz time base, 1024 Hz.
const A_DIVIDER: u8 = 0x26;
/// B: updates stop, and the guest sets the time.
const B_SET: u8 = 1 << 7;
/// B: interrupt enables and the square wave, which are not implemented and read as zero.
const B_UNIMPLEMENTED: u8 = 0x78;
/// B: registers are binary, not BCD.
const B_BINARY: u8 = 1 << 2;
/// B: hours count to 24.
const B_24_HOURS: u8 = 1 << 1;
/// Hours: afternoon, in the 12-hour format.
const PM: u8 = 1 << 7;
/// D: memory and time are valid.
const D_VALID: u8 = 1 << 7;

/// The time registers, binary, hours to 24.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Registers {
    second: u8,
    minute: u8,
    hour: u8,
    weekday: u8,
    day: u8,
    month: u8,
    year: u8,
    century: u8,
}

impl RealTimeClock {
    /// A clock that shows the host's time.
    #[must_use]
    pub fn new() -> Self {
        Self::with_clock(host_time)
    }

    /// A clock whose host time is `now`, in seconds since 1970.
    fn with_clock(now: fn() -> i64) -> Self {
        let mut memory = [0; 128];
        memory[usize::from(REGISTER_B)] = B_24_HOURS;
        RealTimeClock { index: 0, memory, ahead: 0, held: None, now }
    }

    fn read(&self) -> u8 {
        let value = |registers: Registers| self.encode(registers);
        match self.index {
            REGISTER_A => A_DIVIDER,
            REGISTER_C => 0,
            REGISTER_D => D_VALID,
            index => match self.time().field(index) {
                Some(_) => value(self.time()),
                None => self.memory[usize::from(index & 0x7f)],
            },
        }
    }

    fn write(&mut self, value: u8) {
        match self.index {
            REGISTER_A | REGISTER_C | REGISTER_D => {}
            REGISTER_B => self.write_b(value),
            index => {
                let mut time = self.time();
                let binary = self.decode(value);
                match time.field_mut(index) {
                    Some(field) => *field = binary,
                    None => self.memory[usize::from(index & 0x7f)] = value,
                }
                if self.held.is_some() {
                    self.held = Some(time);
                } else {
                    self.set(time);
                }
            }
        }
    }

    fn write_b(&mut self, value: u8) {
        self.memory[usize::from(REGISTER_B)] = value & !B_UNIMPLEMENTED;
        match (value & B_SET != 0, self.held) {
            (true, None) => self.held = Some(self.time()),
            (false, Some(time)) => {
                self.held = None;
                self.set(time);
            }
            _ => {}
        }
    }

    /// The current time, or the one while SET stops updates.
    fn time(&self) -> Registers {
        self.held.unwrap_or_else(|| Registers::at((self.now)().saturating_add(self.ahead)))
    }

    /// Sets the time. An invalid date is ignored.
    fn set(&mut self, time: Registers) {
        match time.timestamp() {
            Some(timestamp) => self.ahead = timestamp.saturating_sub((self.now)()),
            None => tracing::debug!(?time, "the guest set its clock to an invalid date: ignored"),
        }
    }

    fn b(&self) -> u8 {
        self.memory[usize::from(REGISTER_B)]
    }

    /// The register at the index, in the format of register B.
    fn encode(&self, time: Registers) -> u8 {
        let binary = time.field(self.index).unwrap_or(0);
        let hours = self.index == 4 && self.b() & B_24_HOURS == 0;
        let (binary, pm) = if hours { ((binary % 12 + 11) % 12 + 1, binary >= 12) } else { (binary, false) };
        let coded = if self.b() & B_BINARY != 0 { binary } else { ((binary / 10) << 4) | (binary % 10) };
        if pm { coded | PM } else { coded }
    }

    /// The binary value of the register at the index, from a value in the format of register B.
    fn decode(&self, value: u8) -> u8 {
        let hours = self.index == 4 && self.b() & B_24_HOURS == 0;
        let (value, pm) = if hours { (value & !PM, value & PM != 0) } else { (value, false) };
        let binary = if self.b() & B_BINARY != 0 { value } else { (value >> 4) * 10 + (value & 0xf) };
        if hours { binary % 12 + if pm { 12 } else { 0 } } else { binary }
    }
}

/// Seconds since 1970 of the host's clock, whatever it is set to.
pub(crate) fn host_time() -> i64 {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_secs()).map_or(i64::MIN, |seconds| -seconds),
    }
}

impl Default for RealTimeClock {
    fn default() -> Self {
        Self::new()
    }
}

/// 0000-01-01 00:00:00 of the proleptic Gregorian calendar, in seconds since 1970.
const YEAR_0: i64 = -62_167_219_200;
/// 25 times the 146,097 days, or 20,871 weeks, after which dates and days of the week repeat.
const TEN_THOUSAND_YEARS: i64 = 25 * 146_097 * 86_400;

impl Registers {
    fn at(timestamp: i64) -> Self {
        let since_year_0 = timestamp.saturating_sub(YEAR_0).rem_euclid(TEN_THOUSAND_YEARS);
        // The range of `time` ends at 9999.
        let time =
            OffsetDateTime::from_unix_timestamp(YEAR_0 + since_year_0).unwrap_or(OffsetDateTime::UNIX_EPOCH);
        let year = u16::try_from(time.year()).unwrap_or(0);
        Registers {
            second: time.second(),
            minute: time.minute(),
            hour: time.hour(),
            weekday: time.weekday().number_from_sunday(),
            day: time.day(),
            month: time.month().into(),
            year: (year % 100) as u8,
            century: (year / 100) as u8,
        }
    }

    fn timestamp(self) -> Option<i64> {
        let year = i32::from(self.century) * 100 + i32::from(self.year);
        let date = Date::from_calendar_date(year, Month::try_from(self.month).ok()?, self.day).ok()?;
        let time = Time::from_hms(self.hour, self.minute, self.second).ok()?;
        Some(PrimitiveDateTime::new(date, time).assume_utc().unix_timestamp())
    }

    fn field(mut self, index: u8) -> Option<u8> {
        self.field_mut(index).copied()
    }

    fn field_mut(&mut self, index: u8) -> Option<&mut u8> {
        Some(match index {
            0 => &mut self.second,
            2 => &mut self.minute,
            4 => &mut self.hour,
            6 => &mut self.weekday,
            7 => &mut self.day,
            8 => &mut self.month,
            9 => &mut self.year,
            0x32 => &mut self.century,
            _ => return None,
        })
    }
}

impl MutDevicePio for RealTimeClock {
    fn pio_read(&mut self, _: PioAddress, offset: PioAddressOffset, data: &mut [u8]) {
        // The index port cannot be read.
        data.fill(0xff);
        if let (1, [byte]) = (offset, data) {
            *byte = self.read();
        }
    }

    fn pio_write(&mut self, _: PioAddress, offset: PioAddressOffset, data: &[u8]) {
        match (offset, data) {
            // Bit 7 masks NMIs on a PC; it is ignored here.
            (0, &[index, ..]) => self.index = index & 0x7f,
            (1, &[value]) => self.write(value),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-23 15:04:05 UTC, a Monday.
    const NOW: i64 = 1_795_446_245;

    fn clock() -> RealTimeClock {
        RealTimeClock::with_clock(|| NOW)
    }

    fn get(clock: &mut RealTimeClock, index: u8) -> u8 {
        let mut byte = [0];
        clock.pio_write(PioAddress(0x70), 0, &[index]);
        clock.pio_read(PioAddress(0x70), 1, &mut byte);
        byte[0]
    }

    fn put(clock: &mut RealTimeClock, index: u8, value: u8) {
        clock.pio_write(PioAddress(0x70), 0, &[index]);
        clock.pio_write(PioAddress(0x70), 1, &[value]);
    }

    fn all(clock: &mut RealTimeClock) -> Vec<u8> {
        [0x32, 9, 8, 7, 4, 2, 0, 6].map(|index| get(clock, index)).to_vec()
    }

    #[test]
    fn the_time_is_in_the_format_of_register_b() {
        let mut clock = clock();
        assert_eq!(all(&mut clock), [0x20, 0x26, 0x11, 0x23, 0x15, 0x04, 0x05, 2]);
        put(&mut clock, REGISTER_B, B_BINARY);
        assert_eq!(get(&mut clock, 4), 3 | PM);
        put(&mut clock, REGISTER_B, B_BINARY | B_24_HOURS);
        assert_eq!(all(&mut clock), [20, 26, 11, 23, 15, 4, 5, 2]);
    }

    #[test]
    fn a_time_is_set_as_a_whole_when_set_is_cleared() {
        let mut clock = clock();
        put(&mut clock, REGISTER_B, B_SET | B_24_HOURS);
        for (index, value) in [(0, 0x59), (2, 0x58), (4, 0x23), (7, 0x31), (8, 0x12), (9, 0x99), (0x32, 0x19)]
        {
            put(&mut clock, index, value);
        }
        put(&mut clock, REGISTER_B, B_24_HOURS);
        assert_eq!(all(&mut clock), [0x19, 0x99, 0x12, 0x31, 0x23, 0x58, 0x59, 6]);
    }

    #[test]
    fn an_invalid_date_is_ignored() {
        let mut clock = clock();
        put(&mut clock, 8, 0x13);
        put(&mut clock, 7, 0xff);
        assert_eq!(all(&mut clock), [0x20, 0x26, 0x11, 0x23, 0x15, 0x04, 0x05, 2]);
    }

    #[test]
    fn a_year_has_four_digits() {
        // 10000-01-01 00:00:00, a Saturday.
        let mut clock = RealTimeClock::with_clock(|| 253_402_300_800);
        assert_eq!(all(&mut clock), [0, 0, 1, 1, 0, 0, 0, 7]);
        let mut clock = RealTimeClock::with_clock(|| 253_402_300_799);
        assert_eq!(all(&mut clock), [0x99, 0x99, 0x12, 0x31, 0x23, 0x59, 0x59, 6]);
        for now in [|| i64::MIN, || i64::MAX, || YEAR_0 - 1] {
            let mut clock = RealTimeClock::with_clock(now);
            assert_eq!(all(&mut clock).len(), 8);
            put(&mut clock, 0, 1);
        }
        // A guest in 2100 that sets a later century.
        let mut clock = RealTimeClock::with_clock(|| 4_102_444_800);
        put(&mut clock, 0x32, 0x99);
        assert_eq!(get(&mut clock, 0x32), 0x99);
    }

    #[test]
    fn the_other_indices_are_memory() {
        let mut clock = clock();
        put(&mut clock, 0x40, 0xa5);
        assert_eq!((get(&mut clock, 0x40), get(&mut clock, REGISTER_D)), (0xa5, D_VALID));
    }
}
