//! The nodes of devices.

use platform::{DeviceNode, DevicetreeIdentity, Property, Range, Window};

use super::phandles::Phandles;
use super::{SET, interrupts};
use crate::BuildError;
use crate::fdt::Node;

/// The name of a device's node with its unit address. `None` if a devicetree does not list the device.
pub(super) fn node_name(device: &DeviceNode) -> Option<String> {
    Some(bare(device, device.devicetree.as_ref()?).name().to_owned())
}

/// The node of a device: registers, interrupts, and what its devicetree description adds.
pub(super) fn node(
    device: &DeviceNode,
    identity: &DevicetreeIdentity,
    phandles: &Phandles,
) -> Result<Node, BuildError> {
    let mut node = bare(device, identity).texts("compatible", &identity.compatible);
    let registers = registers(device)?;
    if !registers.is_empty() {
        node = node.reg(&registers);
    }
    let interrupts = interrupts::of_device(device, &device.interrupts)?;
    if !interrupts.is_empty() {
        node = node.cells("interrupts", &interrupts);
    }
    node = with_properties(node, device, &identity.properties, phandles)?;
    if let Some(phandle) = phandles.get(&device.name) {
        node = node.cells("phandle", &[phandle]);
    }
    identity.children.iter().try_fold(node, |node, child| {
        let child = with_properties(Node::new(child.node_name), device, &child.properties, phandles)?;
        Ok(node.child(child))
    })
}

/// A node with only its name. The unit address is that of the first register window.
fn bare(device: &DeviceNode, identity: &DevicetreeIdentity) -> Node {
    match device.windows.first() {
        Some(window) => Node::at(identity.node_name, window.base()),
        None => Node::new(identity.node_name),
    }
}

fn registers(device: &DeviceNode) -> Result<Vec<Range>, BuildError> {
    let range = |window: &Window| match *window {
        Window::Ports { .. } => Err(BuildError::Ports { set: SET, device: device.name.clone() }),
        Window::Mmio { base, len } if len > 0 && base.checked_add(len - 1).is_some() => {
            Ok(Range { start: base, len })
        }
        window => Err(BuildError::Window { device: device.name.clone(), window }),
    };
    device.windows.iter().map(range).collect()
}

fn with_properties(
    node: Node,
    device: &DeviceNode,
    properties: &[(&'static str, Property)],
    phandles: &Phandles,
) -> Result<Node, BuildError> {
    properties.iter().try_fold(node, |node, (name, property)| match property {
        Property::Flag => Ok(node.flag(name)),
        Property::Cells(cells) => Ok(node.cells(name, cells)),
        Property::Text(texts) => Ok(node.texts(name, texts)),
        Property::Devices(devices) => {
            let cells: Vec<u32> = devices
                .iter()
                .flat_map(|(name, cells)| phandles.get(name).into_iter().chain(cells.iter().copied()))
                .collect();
            Ok(node.cells(name, &cells))
        }
        Property::Interrupts(lines) => Ok(node.cells(name, &interrupts::of_device(device, lines)?)),
    })
}
