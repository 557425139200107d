//! virtio devices behind this transport: their description and their registers.

use std::any::Any;
use std::fmt::Debug;
use std::sync::{Arc, Mutex};

use machine_profile::device_kind::DeviceConfig;
use platform::{AcpiIdentity, AcpiObject, DeviceNode, DevicetreeIdentity, Property, Trigger};

use super::MmioTransport;
use crate::kind::{Backend, Device, DeviceError, Kind, Place, Resources};
use crate::virtio::VirtioKind;

impl<C, B> Kind for VirtioKind<C, B>
where
    C: Any + Debug + PartialEq + Send + Sync,
    B: Any + Send + Sync,
{
    fn describe(&self, place: Place) -> DeviceNode {
        node(place)
    }

    fn kernel_parameter(&self, place: Place) -> Option<String> {
        Some(kernel_parameter(place))
    }

    fn inspect(&self, config: &DeviceConfig) -> Result<(), DeviceError> {
        (self.inspect)(self.config(config)?)
    }

    fn open(&self, config: &DeviceConfig) -> Result<Backend, DeviceError> {
        Ok(Backend::new((self.open)(self.config(config)?)?))
    }

    fn build(&self, backend: &Backend, resources: Resources) -> Result<Device, DeviceError> {
        let Resources { name, ram, line, observer, vendor_id } = resources;
        let device = self.device(backend, &name)?;
        let transport =
            MmioTransport::new(device, ram, line, observer, vendor_id).map_err(|error| DeviceError {
                key: "type",
                message: format!("eventfd(2): {error}"),
                help: "raise the limit of open files (ulimit -n)".into(),
            })?;
        let write_events = transport.write_events().collect();
        Ok(Device { registers: Arc::new(Mutex::new(transport)), write_events })
    }
}

/// Names under `\_SB`.
const ACPI_NAMES: [&str; Place::MAX] = [
    "VR00", "VR01", "VR02", "VR03", "VR04", "VR05", "VR06", "VR07", "VR08", "VR09", "VR10", "VR11", "VR12",
    "VR13", "VR14", "VR15", "VR16", "VR17", "VR18", "VR19", "VR20", "VR21", "VR22", "VR23", "VR24", "VR25",
    "VR26", "VR27", "VR28", "VR29", "VR30", "VR31",
];

/// Describes a transport. ACPI lists the first [`Place::MAX`] only.
#[must_use]
pub fn node(place: Place) -> DeviceNode {
    let Place { index, base, gsi } = place;
    let node = DeviceNode::new(place.name()).mmio(base, Place::LEN).interrupt(gsi, Trigger::Edge).devicetree(
        DevicetreeIdentity::new("virtio_mmio", ["virtio,mmio"]).property("dma-coherent", Property::Flag),
    );
    match (ACPI_NAMES.get(index), u32::try_from(index)) {
        (Some(name), Ok(uid)) => node.acpi(
            // The _HID by which Linux and EDK II identify a virtio-mmio transport.
            AcpiIdentity::new(name, "LNRO0005")
                .uid(uid)
                // Without _CCA (ACPI 6.5, 6.2.17), Linux on arm64 takes the device's accesses to be not cache coherent.
                .object(AcpiObject::Integer { name: "_CCA", value: 1 }),
        ),
        _ => node,
    }
}

/// The kernel parameter that describes a transport to a Linux whose tables cannot: the size and address of its registers,
/// and its interrupt (Linux, `drivers/virtio/virtio_mmio.c`).
fn kernel_parameter(place: Place) -> String {
    format!("virtio_mmio.device={}K@{:#x}:{}", Place::LEN >> 10, place.base, place.gsi)
}
