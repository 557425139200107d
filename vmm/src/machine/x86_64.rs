//! The devices of an x86_64 machine, at the addresses and on the lines that its description names.

use std::sync::{Arc, Mutex};

use devices::ged::GenericEventDevice;
use devices::i8042::KeyboardController;
use devices::power::PowerRegisters;
use devices::rtc::RealTimeClock;
use devices::serial::SerialPort;
use devices::{ConsolePort, InterruptLine, ged, i8042, power, rtc, serial};
use machine_profile::TableSet;
use platform::x86_64;

use super::{Devices, MachineError, PowerButton, no};
use crate::bus::MachineBus;
use crate::console::Output;
use crate::kvm::KvmVm;
use crate::lifecycle::Lifecycle;

/// What a device needs of the host for a line.
const LINE: &str = "event descriptor";

/// Puts every device on the bus.
pub(super) fn add_devices(
    bus: &mut MachineBus,
    vm: &KvmVm,
    firmware: TableSet,
    lifecycle: &Arc<Lifecycle>,
    output: Output,
) -> Result<Devices, MachineError> {
    let line = InterruptLine::new().map_err(no(LINE))?;
    vm.bind(&line, x86_64::SERIAL_GSI)?;
    let serial = Arc::new(Mutex::new(SerialPort::new(line, output).map_err(no(LINE))?));
    bus.add_ports(x86_64::SERIAL_PORT, serial::LEN, serial.clone())?;

    bus.add_ports(x86_64::RTC_PORT, rtc::LEN, Arc::new(Mutex::new(RealTimeClock::new())))?;

    let keyboard = KeyboardController::new(lifecycle.clone());
    bus.add_ports(x86_64::I8042_DATA_PORT, i8042::LEN, Arc::new(Mutex::new(keyboard)))?;

    let registers = PowerRegisters::new(lifecycle.clone(), x86_64::S5_SLEEP_TYPE, x86_64::RESET_VALUE);
    bus.add_ports(x86_64::POWER_PORT, power::LEN, Arc::new(Mutex::new(registers)))?;

    let line = InterruptLine::new().map_err(no(LINE))?;
    vm.bind(&line, x86_64::GED_GSI)?;
    let events = Arc::new(Mutex::new(GenericEventDevice::new(line)));
    bus.add_mmio(x86_64::GED_BASE, ged::LEN, events.clone())?;

    let power_button = match firmware {
        TableSet::Acpi => PowerButton::Event(Arc::clone(&events)),
        TableSet::Devicetree | TableSet::MpTable => PowerButton::Absent,
    };
    let console: Arc<Mutex<dyn ConsolePort>> = serial;
    Ok(Devices { console, events, power_button })
}
