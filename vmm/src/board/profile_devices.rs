//! The devices of a profile: the board assigns a page of registers and an interrupt to each, and its kind creates it.

use std::sync::Arc;

use devices::PoisonObserver;
use devices::kind::{Backend, Device, DeviceError, Kind, Place, Resources, WriteEvent};
use guest_memory::GuestRam;
use machine_profile::device_kind::DeviceConfig;
use machine_profile::{Machine, TableSet};
use platform::{Arch, DeviceNode, aarch64, x86_64};

use super::{BoardError, Wiring};
use crate::command_line::CommandLine;

/// Why the devices of a profile have no place in its machine.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// There are more devices than such a machine has register pages and interrupts for.
    #[error("an {arch} machine has at most {max} devices")]
    TooMany {
        /// Architecture of the machine.
        arch: Arch,
        /// The maximum number of devices; also the position, from 0, of the first one above it.
        max: usize,
    },
    /// This build does not have that kind of device.
    #[error("this build of ghest has no device of type `{0}`")]
    Kind(&'static str),
}

/// A device of the profile at its place.
pub(crate) struct Placed<'a> {
    kind: &'static dyn Kind,
    config: &'a DeviceConfig,
    place: Place,
}

/// The devices of a profile at their places.
fn placed(machine: &Machine) -> Result<Vec<Placed<'_>>, PlaceError> {
    let (first_page, gsis): (_, Box<dyn Iterator<Item = u32>>) = match machine.arch {
        Arch::X86_64 => (x86_64::VIRTIO_MMIO.start, Box::new(x86_64::VIRTIO_GSIS.iter().copied())),
        Arch::Aarch64 => (aarch64::VIRTIO_MMIO.start, Box::new(aarch64::VIRTIO_FIRST_INTID..)),
    };
    let pages = (first_page..).step_by(Place::LEN as usize);
    let places = (0..Place::MAX).zip(pages).zip(gsis);
    let places: Vec<_> = places.take(machine.devices.len()).collect();
    if places.len() < machine.devices.len() {
        return Err(PlaceError::TooMany { arch: machine.arch, max: places.len() });
    }
    let devices = machine.devices.iter().zip(places);
    devices
        .map(|(device, ((index, base), gsi))| {
            let kind = devices::kind(device.kind).ok_or(PlaceError::Kind(device.kind))?;
            Ok(Placed { kind, config: &device.config, place: Place { index, base, gsi } })
        })
        .collect()
}

/// The nodes of the devices of a profile.
///
/// # Errors
/// Returns an error if they have no place in the machine.
pub fn nodes(machine: &Machine) -> Result<Vec<DeviceNode>, PlaceError> {
    Ok(placed(machine)?.iter().map(|device| device.kind.describe(device.place)).collect())
}

/// The kernel's command line: the profile's, and a parameter for each device that the machine's tables cannot describe
/// (`virtio_mmio.device=4K@0xd0000000:5`, which a Linux with CONFIG_VIRTIO_MMIO_CMDLINE_DEVICES reads).
///
/// # Errors
/// Returns an error if the devices have no place in the machine.
pub fn command_line(machine: &Machine) -> Result<CommandLine, PlaceError> {
    let devices = if machine.firmware == TableSet::MpTable { placed(machine)? } else { Vec::new() };
    let parameters = devices.iter().filter_map(|device| device.kind.kernel_parameter(device.place));
    Ok(CommandLine::new(&machine.boot.cmdline, &parameters.collect::<Vec<_>>()))
}

/// Vendor id of registers that have one.
const VENDOR_ID: u32 = u32::from_le_bytes(*b"GHST");

/// What the host as it is does not permit, without opening a device: the positions of devices, and why they cannot be opened.
/// What is missing is not reported.
///
/// # Errors
/// Returns an error if the devices have no place in the machine.
pub fn inspect(machine: &Machine) -> Result<Vec<(usize, DeviceError)>, PlaceError> {
    let devices = placed(machine)?.into_iter();
    Ok(devices
        .filter_map(|device| Some((device.place.index, device.kind.inspect(device.config).err()?)))
        .collect())
}

/// Opens the files of the devices of a profile, and locks them. A machine does this once: it keeps them across resets.
///
/// # Errors
/// Returns an error if the host does not provide what a device requires.
pub fn open(machine: &Machine) -> Result<Vec<Backend>, BoardError> {
    let open = |device: Placed<'_>| {
        let index = device.place.index;
        device.kind.open(device.config).map_err(|source| BoardError::Device { index, source })
    };
    placed(machine)?.into_iter().map(open).collect()
}

/// Attaches the devices of a profile, from what [`open`] has returned. `observer` is called with the position of each.
pub(crate) fn attach(
    wiring: &mut Wiring<'_>,
    machine: &Machine,
    backends: &[Backend],
    ram: &GuestRam,
    observer: impl Fn(usize) -> Arc<dyn PoisonObserver>,
) -> Result<(), BoardError> {
    for (Placed { kind, place, .. }, backend) in placed(machine)?.into_iter().zip(backends) {
        let resources = Resources {
            name: place.name(),
            ram: ram.clone(),
            line: wiring.edge_line(place.gsi)?,
            observer: observer(place.index),
            vendor_id: VENDOR_ID,
        };
        let Device { registers, write_events } = kind
            .build(backend, resources)
            .map_err(|source| BoardError::Device { index: place.index, source })?;
        wiring.bus.add_mmio(place.base, Place::LEN, registers)?;
        for WriteEvent { offset, value, event } in write_events {
            wiring.vm.signal_on_write(place.base + offset, value, &event)?;
        }
    }
    Ok(())
}
