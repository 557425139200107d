//! The real-time clock: Arm's PrimeCell RTC PL031 (Arm DDI 0224C), with its description.
//!
//! It counts seconds since 1970 in 32 bits, which wrap in 2106: the host's time (UTC) plus the offset that the guest has
//! set. It always runs. There is no alarm: the match register and the interrupt mask only keep their values, and no interrupt
//! is ever pending. The devicetree therefore gives it no interrupt, which the binding allows (`arm,pl031.yaml`), and Linux
//! registers a clock without an alarm. With an interrupt, a process that waits for an alarm or an update would wait forever.

use platform::{AcpiIdentity, AcpiObject, DeviceNode, DevicetreeIdentity};
use vm_device::MutDeviceMmio;
use vm_device::bus::{MmioAddress, MmioAddressOffset};

use crate::primecell::{self, Identity};
use crate::rtc::host_time;

/// The name of the clock, the same as on x86_64: a machine has one of the two.
pub use crate::rtc::NAME;

/// Bytes of the registers.
pub const LEN: u64 = primecell::LEN;

/// The clock at a GPA, with the `_HID` that ACPI lists it by (`ABCD0031`: a vendor's id, as no standard one exists).
///
/// On a server, EFI runtime services provide the time; this machine has none. Linux binds a device whose `_CID` is
/// `ARMH0061` to its AMBA bus and selects the driver by the identification registers. Other systems see an unknown id.
#[must_use]
pub fn node(base: u64, hid: &'static str) -> DeviceNode {
    DeviceNode::new(NAME)
        .mmio(base, LEN)
        .acpi(
            AcpiIdentity::new("RTC0", hid)
                .object(AcpiObject::Text { name: "_CID", value: "ARMH0061".into() }),
        )
        .devicetree(
            DevicetreeIdentity::new("rtc", ["arm,pl031", "arm,primecell"])
                .properties(primecell::clocks(&["apb_pclk"])),
        )
}

/// RTCDR: the time.
const DATA: u64 = 0;
/// RTCMR: the time of an alarm.
const MATCH: u64 = 4;
/// RTCLR: sets the time, and keeps what was written.
const LOAD: u64 = 8;
/// RTCCR: its only bit starts the clock; later writes have no effect until a reset (DDI 0224C, 3.3.4).
const CONTROL: u64 = 0xc;
/// RTCIMSC: its only bit enables the interrupt.
const MASK: u64 = 0x10;

/// Revision 1, as of the r1p3 that DDI 0224C describes. The values of its table 3-1 have 0 in that field (RTCPeriphID2,
/// bits 7 to 4); QEMU, Cloud Hypervisor and bhyve answer 1, and kvm-unit-tests asks for it. Linux, FreeBSD and EDK II ignore
/// the field.
const IDENTITY: Identity = Identity { part: 0x031, revision: 1 };

/// The clock.
pub struct Pl031 {
    alarm: u32,
    load: u32,
    mask: u32,
    /// Seconds that the guest's clock is ahead of the host's, modulo 2^32.
    ahead: u32,
    now: fn() -> i64,
}

impl Pl031 {
    /// A clock that shows the host's time.
    #[must_use]
    pub fn new() -> Self {
        Self::with_clock(host_time)
    }

    /// A clock whose host time is `now`, in seconds since 1970.
    fn with_clock(now: fn() -> i64) -> Self {
        Pl031 { alarm: 0, load: 0, mask: 0, ahead: 0, now }
    }

    /// The host's time, as the counter has it.
    fn host_count(&self) -> u32 {
        (self.now)() as u32
    }

    fn read(&self, offset: u64) -> u32 {
        match offset {
            DATA => self.host_count().wrapping_add(self.ahead),
            MATCH => self.alarm,
            LOAD => self.load,
            CONTROL => 1,
            MASK => self.mask,
            // The interrupt status is 0, and so are reserved offsets.
            _ => IDENTITY.register(offset).unwrap_or(0),
        }
    }

    fn write(&mut self, offset: u64, value: u32) {
        match offset {
            MATCH => self.alarm = value,
            LOAD => {
                self.load = value;
                self.ahead = value.wrapping_sub(self.host_count());
            }
            MASK => self.mask = value & 1,
            _ => {}
        }
    }
}

impl Default for Pl031 {
    fn default() -> Self {
        Self::new()
    }
}

impl MutDeviceMmio for Pl031 {
    fn mmio_read(&mut self, _: MmioAddress, offset: MmioAddressOffset, data: &mut [u8]) {
        primecell::read(offset, data, |offset| self.read(offset));
    }

    fn mmio_write(&mut self, _: MmioAddress, offset: MmioAddressOffset, data: &[u8]) {
        primecell::write(offset, data, |offset, value| self.write(offset, value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::primecell::access::{get, ids, put};

    const RAW_STATUS: u64 = 0x14;
    const MASKED_STATUS: u64 = 0x18;
    const CLEAR: u64 = 0x1c;

    /// Asserts that the clock is `ahead` seconds ahead of the host's.
    fn assert_ahead(clock: &mut Pl031, ahead: i64) {
        let before = host_time();
        let shown = i64::from(get(clock, DATA));
        assert!((before + ahead..=host_time() + ahead).contains(&shown), "{shown} is not {ahead} s ahead");
    }

    #[test]
    fn it_shows_the_hosts_time_until_it_is_set() {
        let mut clock = Pl031::new();
        assert_ahead(&mut clock, 0);
        let tomorrow = u32::try_from(host_time() + 86_400).expect("before 2106");
        put(&mut clock, LOAD, tomorrow);
        assert_eq!(get(&mut clock, LOAD), tomorrow);
        let shown = get(&mut clock, DATA);
        assert!((tomorrow..tomorrow + 10).contains(&shown));
    }

    #[test]
    fn starting_a_running_clock_has_no_effect() {
        let mut clock = Pl031::new();
        assert_eq!(get(&mut clock, CONTROL), 1);
        put(&mut clock, LOAD, 1_000_000);
        for value in [1, 0] {
            put(&mut clock, CONTROL, value);
            assert_eq!(get(&mut clock, CONTROL), 1);
            assert_eq!(get(&mut clock, LOAD), 1_000_000);
            assert!((1_000_000..1_000_010).contains(&get(&mut clock, DATA)));
        }
    }

    #[test]
    fn alarm_registers_keep_their_values_and_raise_no_interrupt() {
        let mut clock = Pl031::new();
        put(&mut clock, MASK, 0xffff_ffff);
        put(&mut clock, LOAD, 500);
        put(&mut clock, MATCH, 500);
        assert_eq!(
            [MATCH, MASK, RAW_STATUS, MASKED_STATUS, CLEAR].map(|at| get(&mut clock, at)),
            [500, 1, 0, 0, 0]
        );
    }

    #[test]
    fn it_identifies_as_a_pl031_and_reserved_offsets_read_as_zero() {
        let mut clock = Pl031::new();
        assert_eq!(ids(&mut clock), (0x0014_1031, 0xb105_f00d));
        assert!((0x20..0xfe0).step_by(4).all(|offset| get(&mut clock, offset) == 0));
        put(&mut clock, DATA, 0);
        assert_ahead(&mut clock, 0);
    }

    #[test]
    fn the_counter_wraps_whatever_the_host_s_time_is() {
        for (now, shown) in [
            ((|| 1 << 32) as fn() -> i64, 0),
            (|| -1, u32::MAX),
            // 10000-01-01, and the ends of the range.
            (|| 253_402_300_800, 253_402_300_800_u64 as u32),
            (|| i64::MIN, 0),
            (|| i64::MAX, u32::MAX),
        ] {
            let mut clock = Pl031::with_clock(now);
            assert_eq!(get(&mut clock, DATA), shown);
            put(&mut clock, LOAD, 7);
            assert_eq!((get(&mut clock, LOAD), get(&mut clock, DATA)), (7, 7));
        }
    }
}
