//! The devices of an aarch64 machine, at the addresses and on the lines that its description names.

use std::sync::{Arc, Mutex};

use devices::ged::GenericEventDevice;
use devices::pl011::Pl011;
use devices::pl031::Pl031;
use devices::{ConsolePort, InterruptLine, LevelLine, ged, pl011, pl031};
use machine_profile::TableSet;
use platform::aarch64;

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
    _: &Arc<Lifecycle>,
    output: Output,
) -> Result<Devices, MachineError> {
    let line = LevelLine::new(vm.level(aarch64::SERIAL_INTID));
    let serial = Arc::new(Mutex::new(Pl011::new(line, output).map_err(no(LINE))?));
    bus.add_mmio(aarch64::SERIAL_BASE, pl011::LEN, serial.clone())?;

    bus.add_mmio(aarch64::RTC_BASE, pl031::LEN, Arc::new(Mutex::new(Pl031::new())))?;

    let line = InterruptLine::new().map_err(no(LINE))?;
    vm.bind(&line, aarch64::GED_INTID)?;
    let events = Arc::new(Mutex::new(GenericEventDevice::new(line)));
    bus.add_mmio(aarch64::GED_BASE, ged::LEN, events.clone())?;

    // The button is wired to what the guest's tables say of it.
    let power_button = match firmware {
        TableSet::Acpi => PowerButton::Event(Arc::clone(&events)),
        TableSet::Devicetree | TableSet::MpTable => {
            let line = InterruptLine::new().map_err(no(LINE))?;
            vm.bind(&line, aarch64::POWER_BUTTON_INTID)?;
            PowerButton::Line(line)
        }
    };
    let console: Arc<Mutex<dyn ConsolePort>> = serial;
    Ok(Devices { console, events, power_button })
}
