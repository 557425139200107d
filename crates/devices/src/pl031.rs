//! The real-time clock: Arm's PrimeCell RTC PL031 (Arm DDI 0224C), vm-superio's, with its description.
//!
//! It counts seconds since 1970 in 32 bits: the host's time (UTC) plus the offset that the guest has set. It always runs.
//! There is no alarm: the match register and the interrupt mask only keep their values, and no interrupt is ever pending.
//! The devicetree therefore gives it no interrupt, which the binding allows (`arm,pl031.yaml`), and Linux registers a clock
//! without an alarm. With an interrupt, a process that waits for an alarm or an update would wait forever.

use platform::{AcpiIdentity, AcpiObject, DeviceNode, DevicetreeIdentity};
use vm_device::MutDeviceMmio;
use vm_device::bus::{MmioAddress, MmioAddressOffset};
use vm_superio::Rtc;
use vm_superio::rtc_pl031::NoEvents;

use crate::primecell;

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

/// RTCCR: its only bit starts the clock; later writes have no effect until a reset (DDI 0224C, 3.3.4).
const CONTROL: u64 = 0xc;

/// The clock.
pub struct Pl031(Rtc<NoEvents>);

impl Pl031 {
    /// A clock that shows the host's time.
    #[must_use]
    pub fn new() -> Self {
        Pl031(Rtc::new())
    }

    fn read(&mut self, offset: u64) -> u32 {
        // Reserved offsets leave the zeros.
        let mut data = [0; 4];
        if let Ok(offset) = offset.try_into() {
            self.0.read(offset, &mut data);
        }
        u32::from_le_bytes(data)
    }

    fn write(&mut self, offset: u64, value: u32) {
        // vm-superio would reset the offset that the guest has set.
        if offset == CONTROL {
            return;
        }
        if let Ok(offset) = offset.try_into() {
            self.0.write(offset, &value.to_le_bytes());
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
    use time::OffsetDateTime;

    use super::*;
    use crate::primecell::access::{get, ids, put};

    const DATA: u64 = 0;
    const MATCH: u64 = 4;
    const LOAD: u64 = 8;
    const MASK: u64 = 0x10;
    const RAW_STATUS: u64 = 0x14;
    const MASKED_STATUS: u64 = 0x18;
    const CLEAR: u64 = 0x1c;

    fn host() -> i64 {
        OffsetDateTime::now_utc().unix_timestamp()
    }

    /// Asserts that the clock is `ahead` seconds ahead of the host's.
    fn assert_ahead(clock: &mut Pl031, ahead: i64) {
        let before = host();
        let shown = i64::from(get(clock, DATA));
        assert!((before + ahead..=host() + ahead).contains(&shown), "{shown} is not {ahead} s ahead");
    }

    #[test]
    fn it_shows_the_hosts_time_until_it_is_set() {
        let mut clock = Pl031::new();
        assert_ahead(&mut clock, 0);
        let tomorrow = u32::try_from(host() + 86_400).expect("before 2106");
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
        assert_eq!(ids(&mut clock), (0x0004_1031, 0xb105_f00d));
        assert!((0x20..0xfe0).step_by(4).all(|offset| get(&mut clock, offset) == 0));
        put(&mut clock, DATA, 0);
        assert_ahead(&mut clock, 0);
    }
}
