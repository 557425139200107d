//! The devices of every aarch64 machine.

use std::sync::{Arc, Mutex};

use devices::ged::GenericEventDevice;
use devices::pl011::Pl011;
use devices::pl031::Pl031;
use devices::{ConsolePort, error_device, ged, generation_id, pl011, pl031, power_button};
use machine_profile::TableSet;
use platform::{DeviceNode, aarch64};

use super::{Board, BoardError, EventLine, GENERATION_ID_HID, Wiring};
use crate::console::Output;

/// `_HID` of the real-time clock: ours, as ACPI defines no id for a PL031.
const RTC_HID: &str = "GHST0031";

pub(super) fn nodes() -> Vec<DeviceNode> {
    vec![
        pl011::node(aarch64::SERIAL_BASE, aarch64::SERIAL_INTID),
        pl031::node(aarch64::RTC_BASE, RTC_HID),
        ged::node(aarch64::GED_BASE, aarch64::GED_INTID),
        power_button::aarch64_node(aarch64::POWER_BUTTON_INTID),
        error_device::node(),
        generation_id::aarch64_node(
            aarch64::GENERATION_ID.start,
            GENERATION_ID_HID,
            aarch64::GENERATION_INTID,
        ),
    ]
}

pub(super) fn attach(
    wiring: &mut Wiring<'_>,
    firmware: TableSet,
    output: Output,
) -> Result<Board, BoardError> {
    let line = wiring.level_line(aarch64::SERIAL_INTID);
    let serial = Arc::new(Mutex::new(Pl011::new(line, output).map_err(BoardError::EventFd)?));
    wiring.bus.add_mmio(aarch64::SERIAL_BASE, pl011::LEN, serial.clone())?;

    wiring.bus.add_mmio(aarch64::RTC_BASE, pl031::LEN, Arc::new(Mutex::new(Pl031::new())))?;

    let line = wiring.edge_line(aarch64::GED_INTID)?;
    let events = Arc::new(Mutex::new(GenericEventDevice::new(line)));
    wiring.bus.add_mmio(aarch64::GED_BASE, ged::LEN, events.clone())?;

    let event_line = |event, intid| {
        Ok::<_, BoardError>(match firmware {
            TableSet::Acpi => EventLine::Ged(Arc::clone(&events), event),
            TableSet::Devicetree | TableSet::MpTable => EventLine::Interrupt(wiring.edge_line(intid)?),
        })
    };
    let power_button = event_line(ged::POWER_BUTTON, aarch64::POWER_BUTTON_INTID)?;
    let new_generation = event_line(ged::NEW_GENERATION, aarch64::GENERATION_INTID)?;
    let console: Arc<Mutex<dyn ConsolePort>> = serial;
    Ok(Board { console, events, power_button, new_generation })
}
