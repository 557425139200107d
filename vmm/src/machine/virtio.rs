//! The devices of a profile, behind the transports that the machine's description names.

use std::sync::{Arc, Mutex};

use devices::InterruptLine;
use devices::virtio::block::{Block, Disk};
use devices::virtio::mmio::{self, MmioTransport};
use devices::virtio::name;
use machine_profile::{Device, Machine};
use platform::Platform;

use super::{MachineError, PreservedState, host_error};
use crate::bus::MachineBus;
use crate::kvm::KvmVm;

/// Puts every device of the profile on the bus.
pub(super) fn add_devices(
    bus: &mut MachineBus,
    vm: &KvmVm,
    machine: &Machine,
    platform: &Platform,
    preserved: &PreservedState,
) -> Result<(), MachineError> {
    for (index, device) in machine.devices.iter().enumerate() {
        let Device::VirtioBlock { path, read_only } = device;
        let disk = Disk::open(path, *read_only).map_err(|source| MachineError::Disk {
            index,
            path: path.clone(),
            source,
        })?;
        let name = name(index);
        let described = platform.devices.iter().find(|node| node.name == name);
        let described = described.and_then(|node| node.windows.first().zip(node.interrupts.first()));
        // A platform describes every device of its machine.
        let Some((window, interrupt)) = described else { continue };

        let line = InterruptLine::new().map_err(host_error("eventfd(2)"))?;
        vm.bind(&line, interrupt.gsi)?;
        let transport = MmioTransport::new(
            Block::new(disk, &name),
            preserved.ram.clone(),
            line,
            preserved.poison_observer(),
        );
        bus.add_mmio(window.base(), mmio::LEN, Arc::new(Mutex::new(transport)))?;
        tracing::info!(device = name, path = %path.display(), read_only, "a disk is there");
    }
    Ok(())
}
