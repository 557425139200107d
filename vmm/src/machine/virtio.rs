//! The devices of a profile, behind the transports that the machine's description names.

use std::sync::{Arc, Mutex};

use devices::virtio::block::{Block, Disk};
use devices::virtio::mmio::{self, MmioTransport};
use devices::virtio::name;
use devices::{InterruptLine, LostMemory};
use machine_profile::{Device, Machine};
use platform::Platform;

use super::{Lasting, MachineError, no};
use crate::bus::MachineBus;
use crate::kvm::KvmVm;

/// Writes down what devices tell of lost memory.
struct Logged;

impl LostMemory for Logged {
    fn touched(&self, gpa: u64, log2_len: u8) {
        tracing::error!("a device has met memory that the host has lost: 2^{log2_len} bytes at {gpa:#x}");
    }
}

/// Puts every device of the profile on the bus.
pub(super) fn add_devices(
    bus: &mut MachineBus,
    vm: &KvmVm,
    machine: &Machine,
    platform: &Platform,
    lasting: &Lasting,
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
        let transport = MmioTransport::new(Block::new(disk, &name), vm.ram().clone(), line, Arc::new(Logged));
        bus.add_mmio(window.base(), mmio::LEN, Arc::new(Mutex::new(transport)))?;
        tracing::info!(device = name, path = %path.display(), read_only, "a disk is there");
    }
    Ok(())
}
