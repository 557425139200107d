//! Phandles of nodes that properties refer to.

use platform::{DevicetreeIdentity, Platform, Property};

use crate::BuildError;

/// The interrupt controller's phandle: the root refers to it as `interrupt-parent`.
pub(super) const INTERRUPT_CONTROLLER: u32 = 1;

/// The names of the devices and clocks that a property refers to, in the order of their phandles. Others have none.
pub(super) struct Phandles(Vec<&'static str>);

impl Phandles {
    /// Assigns phandles in the order of first reference.
    pub(super) fn of(platform: &Platform) -> Result<Self, BuildError> {
        let mut names = Vec::new();
        for (device, identity) in
            platform.devices.iter().filter_map(|device| Some((device, device.devicetree.as_ref()?)))
        {
            for name in references(identity) {
                if !exists(name, platform) {
                    return Err(BuildError::Reference { device: device.name.clone(), target: name });
                }
                if !names.contains(&name) {
                    names.push(name);
                }
            }
        }
        Ok(Phandles(names))
    }

    /// The phandle of the device or clock of that name. `None` if no property refers to it.
    pub(super) fn get(&self, name: &str) -> Option<u32> {
        let position = self.0.iter().position(|named| *named == name)?;
        Some(INTERRUPT_CONTROLLER + 1 + u32::try_from(position).ok()?)
    }

    /// The lowest unused phandle.
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

fn exists(name: &str, platform: &Platform) -> bool {
    platform.clocks.iter().any(|clock| clock.name == name)
        || platform.devices.iter().any(|device| device.name == name && device.devicetree.is_some())
}
