//! Numbers for the nodes that others refer to.

use platform::{DeviceNode, DevicetreeIdentity, Platform, Property, aarch64};

use crate::BuildError;

/// The interrupt controller's: every device with an interrupt refers to it.
pub(super) const INTERRUPT_CONTROLLER: u32 = 1;

/// The phandles of the nodes, by the device's name, that a property refers to. Others have none.
pub(super) struct Phandles(Vec<&'static str>);

impl Phandles {
    /// Numbers them in the order in which they are first referred to.
    pub(super) fn of(platform: &Platform) -> Result<Self, BuildError> {
        let mut names = Vec::new();
        for (device, identity) in
            platform.devices.iter().filter_map(|device| Some((device, device.devicetree.as_ref()?)))
        {
            for name in references(identity) {
                if !is_there(name, &platform.devices) {
                    return Err(BuildError::Reference { device: device.name.clone(), target: name });
                }
                if !names.contains(&name) {
                    names.push(name);
                }
            }
        }
        Ok(Phandles(names))
    }

    /// The phandle of the device of that name, where one refers to it.
    pub(super) fn get(&self, name: &str) -> Option<u32> {
        let position = self.0.iter().position(|named| *named == name)?;
        Some(INTERRUPT_CONTROLLER + 1 + u32::try_from(position).ok()?)
    }

    /// The first number that no device has.
    pub(super) fn first_free(&self) -> u32 {
        INTERRUPT_CONTROLLER + 1 + self.0.len() as u32
    }
}

fn references(identity: &DevicetreeIdentity) -> impl Iterator<Item = &'static str> {
    let below = identity.children.iter().flat_map(|child| &child.properties);
    identity.properties.iter().chain(below).flat_map(|(_, property)| match property {
        Property::Devices(devices) => devices.iter().map(|(name, _)| *name).collect(),
        _ => Vec::new(),
    })
}

fn is_there(name: &str, devices: &[DeviceNode]) -> bool {
    name == aarch64::APB_CLOCK
        || devices.iter().any(|device| device.name == name && device.devicetree.is_some())
}
