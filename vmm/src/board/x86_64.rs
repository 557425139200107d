//! The devices of every x86_64 machine.

use std::sync::{Arc, Mutex};

use devices::ged::GenericEventDevice;
use devices::i8042::KeyboardController;
use devices::power::PowerRegisters;
use devices::rtc::RealTimeClock;
use devices::serial::SerialPort;
use devices::{ConsolePort, error_device, ged, generation_id, i8042, power, power_button, rtc, serial};
use machine_profile::TableSet;
use platform::{DeviceNode, x86_64};

use super::{Board, BoardError, EventLine, GENERATION_ID_HID, Wiring};
use crate::console::Output;
use crate::lifecycle::Lifecycle;

pub(super) fn nodes() -> Vec<DeviceNode> {
    vec![
        serial::node(x86_64::SERIAL_PORT, x86_64::SERIAL_GSI),
        rtc::node(x86_64::RTC_PORT),
        i8042::node(x86_64::I8042_DATA_PORT),
        ged::node(x86_64::GED_BASE, x86_64::GED_GSI),
        power_button::x86_64_node(),
        error_device::node(),
        generation_id::x86_64_node(x86_64::GENERATION_ID.start, GENERATION_ID_HID),
    ]
}

pub(super) fn attach(
    wiring: &mut Wiring<'_>,
    firmware: TableSet,
    lifecycle: &Arc<Lifecycle>,
    output: Output,
) -> Result<Board, BoardError> {
    let line = wiring.edge_line(x86_64::SERIAL_GSI)?;
    let serial = Arc::new(Mutex::new(SerialPort::new(line, output).map_err(BoardError::EventFd)?));
    wiring.bus.add_ports(x86_64::SERIAL_PORT, serial::LEN, serial.clone())?;

    wiring.bus.add_ports(x86_64::RTC_PORT, rtc::LEN, Arc::new(Mutex::new(RealTimeClock::new())))?;

    let keyboard = KeyboardController::new(lifecycle.clone());
    wiring.bus.add_ports(x86_64::I8042_DATA_PORT, i8042::LEN, Arc::new(Mutex::new(keyboard)))?;

    let registers = PowerRegisters::new(lifecycle.clone(), x86_64::S5_SLEEP_TYPE, x86_64::RESET_VALUE);
    wiring.bus.add_ports(x86_64::POWER_PORT, power::LEN, Arc::new(Mutex::new(registers)))?;

    let line = wiring.edge_line(x86_64::GED_GSI)?;
    let events = Arc::new(Mutex::new(GenericEventDevice::new(line)));
    wiring.bus.add_mmio(x86_64::GED_BASE, ged::LEN, events.clone())?;

    // An MP table describes neither a power button nor a generation id.
    let event_line = |event| match firmware {
        TableSet::Acpi => EventLine::Ged(Arc::clone(&events), event),
        TableSet::Devicetree | TableSet::MpTable => EventLine::Absent,
    };
    let (power_button, new_generation) = (event_line(ged::POWER_BUTTON), event_line(ged::NEW_GENERATION));
    let console: Arc<Mutex<dyn ConsolePort>> = serial;
    Ok(Board { console, events, power_button, new_generation })
}
