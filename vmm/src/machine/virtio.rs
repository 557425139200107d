//! The devices of a profile, behind the transports that the machine's description names.

use std::sync::{Arc, Mutex};

use devices::InterruptLine;
use devices::virtio::name;
use devices::virtio_block::{Block, Disk};
use devices::virtio_mmio::{self, MmioTransport};
use machine_profile::{Device, Machine};
use platform::Platform;

use super::{MachineError, PreservedState, no};
use crate::bus::MachineBus;
use crate::kvm::KvmVm;

/// VendorID of the transports.
const VENDOR_ID: u32 = u32::from_le_bytes(*b"GHST");

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

        let line = InterruptLine::new().map_err(no("event descriptor"))?;
        vm.bind(&line, interrupt.gsi)?;
        let block = Box::new(Block::new(disk, &name));
        let transport =
            MmioTransport::new(block, preserved.ram.clone(), line, preserved.touched(), VENDOR_ID);
        bus.add_mmio(window.base(), virtio_mmio::LEN, Arc::new(Mutex::new(transport)))?;
        tracing::info!(device = name, path = %path.display(), read_only, "disk attached");
    }
    Ok(())
}
