//! General-purpose pins: Arm's PrimeCell GPIO PL061 (Arm DDI 0190B), with the power button on one of them.
//!
//! | offset | register | |
//! |---|---|---|
//! | 0 to 0x3fc | GPIODATA | bits 2 to 9 of the address are a mask of pins: the others read as 0, and are not written |
//! | 0x400 | GPIODIR | 1: the pin is an output |
//! | 0x404 | GPIOIS | 1: the pin interrupts by its level, 0: by edges |
//! | 0x408 | GPIOIBE | 1: by both edges, 0: by the one that GPIOIEV names |
//! | 0x40c | GPIOIEV | 1: rising edge or high level, 0: falling edge or low level |
//! | 0x410 | GPIOIE | 1: the pin's interrupt reaches the line |
//! | 0x414, 0x418 | GPIORIS, GPIOMIS | interrupts that are pending; those that reach the line |
//! | 0x41c | GPIOIC | clears pending edges |
//! | 0x420 | GPIOAFSEL | 1: other hardware drives the pin; here there is none, and it is memory |
//!
//! Each is eight bits wide, one for each pin. Only inputs interrupt. Nothing hears outputs, and no pin but the button's is
//! connected: the others are low.
//!
//! A press of the button lasts until the guest has seen it, that is, has read the pin as high. A driver looks at the pin
//! only some time after the edge, when it no longer bounces, and a slow guest takes its time: no fixed length is right.

use platform::{DeviceNode, DevicetreeIdentity, Interrupt, Property, Trigger, Window};
use vm_device::MutDeviceMmio;
use vm_device::bus::{MmioAddress, MmioAddressOffset};

use crate::line::LevelLine;
use crate::primecell::{self, Identity};

/// Bytes of the registers.
pub const LEN: u64 = primecell::LEN;
/// The pin of the power button, high while it is pressed.
pub const POWER_BUTTON_PIN: u32 = 3;

/// The pins at a GPA and on an INTID. An ACPI guest hears of the button from the event device, so it is not told of them.
#[must_use]
pub fn node(base: u64, intid: u32) -> DeviceNode {
    let mut properties = vec![
        ("gpio-controller", Property::Flag),
        ("#gpio-cells", Property::Cells(vec![2])),
        // Nothing below it has an address: whoever provides interrupts says so.
        ("#address-cells", Property::Cells(vec![0])),
        ("interrupt-controller", Property::Flag),
        ("#interrupt-cells", Property::Cells(vec![2])),
    ];
    properties.extend(primecell::clocks(&["apb_pclk"]));
    DeviceNode {
        name: NAME.into(),
        windows: vec![Window::Mmio { base, len: LEN }],
        interrupts: vec![Interrupt { gsi: intid, trigger: Trigger::Level }],
        acpi: None,
        devicetree: Some(DevicetreeIdentity {
            node_name: "gpio",
            compatible: vec!["arm,pl061", "arm,primecell"],
            properties,
            children: vec![],
        }),
    }
}

/// The name of the pins.
pub const NAME: &str = "gpio";

/// The pins.
pub struct Pl061 {
    line: LevelLine,
    /// What the outside puts on the pins.
    inputs: u8,
    outputs: u8,
    direction: u8,
    by_level: u8,
    both_edges: u8,
    event: u8,
    enabled: u8,
    /// Edges that happened and were not cleared.
    edges: u8,
    alternate: u8,
}

const IDENTITY: Identity = Identity { part: 0x061, revision: 0 };
const POWER_BUTTON: u8 = 1 << POWER_BUTTON_PIN;

// Offsets (DDI 0190B, table 3-1).
const DATA_FIRST: u64 = 0;
const DATA_LAST: u64 = 0x3fc;
const DIR: u64 = 0x400;
const IS: u64 = 0x404;
const IBE: u64 = 0x408;
const IEV: u64 = 0x40c;
const IE: u64 = 0x410;
const RIS: u64 = 0x414;
const MIS: u64 = 0x418;
const IC: u64 = 0x41c;
const AFSEL: u64 = 0x420;

impl Pl061 {
    /// Pins on a line, all inputs, with the button up.
    #[must_use]
    pub fn new(line: LevelLine) -> Self {
        Pl061 {
            line,
            inputs: 0,
            outputs: 0,
            direction: 0,
            by_level: 0,
            both_edges: 0,
            event: 0,
            enabled: 0,
            edges: 0,
            alternate: 0,
        }
    }

    /// Presses the power button, until the guest has seen it. While it is down, this does nothing.
    pub fn press_power_button(&mut self) {
        self.drive(self.inputs | POWER_BUTTON);
    }

    /// Puts levels on the pins.
    fn drive(&mut self, inputs: u8) {
        let changed = self.inputs ^ inputs;
        // A change to the level that GPIOIEV names is the edge that it names.
        let named = self.both_edges | !(inputs ^ self.event);
        self.edges |= changed & named & !self.by_level & !self.direction;
        self.inputs = inputs;
        self.update_line();
    }

    fn read(&mut self, offset: u64) -> u32 {
        let value = match offset {
            DATA_FIRST..=DATA_LAST => self.read_data(data_mask(offset)),
            DIR => self.direction,
            IS => self.by_level,
            IBE => self.both_edges,
            IEV => self.event,
            IE => self.enabled,
            RIS => self.pending(),
            MIS => self.pending() & self.enabled,
            AFSEL => self.alternate,
            _ => return IDENTITY.register(offset).unwrap_or(0),
        };
        value.into()
    }

    fn write(&mut self, offset: u64, value: u32) {
        let value = value as u8;
        match offset {
            DATA_FIRST..=DATA_LAST => {
                let mask = data_mask(offset) & self.direction;
                self.outputs = self.outputs & !mask | value & mask;
            }
            DIR => self.direction = value,
            IS => self.by_level = value,
            IBE => self.both_edges = value,
            IEV => self.event = value,
            IE => self.enabled = value,
            IC => self.edges &= !value,
            AFSEL => self.alternate = value,
            _ => {}
        }
        self.update_line();
    }

    fn read_data(&mut self, mask: u8) -> u8 {
        let pins = self.inputs & !self.direction | self.outputs & self.direction;
        let seen = self.inputs & !self.direction & mask & POWER_BUTTON;
        self.drive(self.inputs & !seen);
        pins & mask
    }

    fn pending(&self) -> u8 {
        let levels = !(self.inputs ^ self.event) & self.by_level & !self.direction;
        self.edges & !self.by_level | levels
    }

    fn update_line(&mut self) {
        self.line.set(self.pending() & self.enabled != 0);
    }
}

/// The pins that an access to GPIODATA is about.
fn data_mask(offset: u64) -> u8 {
    (offset >> 2) as u8
}

impl MutDeviceMmio for Pl061 {
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
    use crate::line::probe::Probe;
    use crate::primecell::access::{get, ids, put};

    const BUTTON: u32 = 8;
    /// GPIODATA, masked to the button's pin.
    const DATA_BUTTON: u64 = 8 << 2;

    fn pins() -> (Pl061, Probe) {
        let probe = Probe::default();
        (Pl061::new(probe.line()), probe)
    }

    #[test]
    fn a_press_lasts_until_it_was_seen() {
        let (mut pins, probe) = pins();
        put(&mut pins, IBE, BUTTON);
        put(&mut pins, IE, BUTTON);
        pins.press_power_button();
        assert_eq!((get(&mut pins, MIS), probe.asserted()), (BUTTON, true));
        put(&mut pins, IC, BUTTON);
        assert!(!probe.asserted());
        assert_eq!(get(&mut pins, 0xf7 << 2), 0, "the mask leaves the button out");
        assert_eq!(get(&mut pins, DATA_BUTTON), BUTTON);
        assert_eq!((get(&mut pins, MIS), probe.asserted()), (BUTTON, true), "the release is an edge too");
        put(&mut pins, IC, BUTTON);
        assert_eq!(get(&mut pins, DATA_BUTTON), 0);
        assert_eq!(probe.history(), [true, false, true, false]);
    }

    #[test]
    fn the_event_register_chooses_the_edge() {
        for (event, pressed, released) in [(BUTTON, BUTTON, 0), (0, 0, BUTTON)] {
            let (mut pins, _) = pins();
            put(&mut pins, IEV, event);
            pins.press_power_button();
            assert_eq!(get(&mut pins, RIS), pressed);
            put(&mut pins, IC, 0xff);
            get(&mut pins, DATA_BUTTON);
            assert_eq!(get(&mut pins, RIS), released);
        }
    }

    #[test]
    fn a_second_press_of_a_pressed_button_is_no_edge() {
        let (mut pins, _) = pins();
        put(&mut pins, IEV, BUTTON);
        pins.press_power_button();
        put(&mut pins, IC, BUTTON);
        pins.press_power_button();
        assert_eq!(get(&mut pins, RIS), 0);
    }

    #[test]
    fn a_level_interrupts_for_as_long_as_it_holds() {
        let (mut pins, probe) = pins();
        put(&mut pins, IEV, 0xff);
        put(&mut pins, IS, 0xff);
        put(&mut pins, IE, 0xff);
        pins.press_power_button();
        put(&mut pins, IC, 0xff);
        assert_eq!((get(&mut pins, RIS), probe.asserted()), (BUTTON, true));
        get(&mut pins, DATA_BUTTON);
        assert!(!probe.asserted());
        put(&mut pins, IEV, 0xfe);
        assert_eq!((get(&mut pins, RIS), probe.asserted()), (1, true), "a low level where low is named");
    }

    #[test]
    fn a_masked_edge_is_pending_and_stays_off_the_line() {
        let (mut pins, probe) = pins();
        put(&mut pins, IEV, BUTTON);
        pins.press_power_button();
        assert_eq!((get(&mut pins, RIS), get(&mut pins, MIS)), (BUTTON, 0));
        assert!(!probe.asserted());
        put(&mut pins, IE, BUTTON);
        assert!(probe.asserted());
    }

    #[test]
    fn outputs_are_written_through_the_mask_and_do_not_interrupt() {
        let (mut pins, _) = pins();
        put(&mut pins, DATA_LAST, 0xff);
        assert_eq!(get(&mut pins, DATA_LAST), 0, "inputs are not written");
        put(&mut pins, DIR, 0xf8);
        put(&mut pins, 0x30 << 2, 0xff);
        assert_eq!(get(&mut pins, DATA_LAST), 0x30);
        put(&mut pins, IBE, 0xff);
        pins.press_power_button();
        assert_eq!((get(&mut pins, DATA_LAST), get(&mut pins, RIS)), (0x30, 0));
    }

    #[test]
    fn it_is_a_pl061_and_keeps_its_registers() {
        let (mut pins, _) = pins();
        assert_eq!(ids(&mut pins), (0x0004_1061, 0xb105_f00d));
        for (offset, value) in [(DIR, 0xf0), (IS, 1), (IBE, 2), (IEV, 3), (IE, 4), (AFSEL, 5)] {
            assert_eq!(get(&mut pins, offset), 0);
            put(&mut pins, offset, value | 0xff00);
            assert_eq!(get(&mut pins, offset), value);
        }
        assert!((0x424..0xfe0).step_by(4).all(|offset| get(&mut pins, offset) == 0));
    }
}
