//! DSDT: the processors, the devices, and the S5 state.

use acpi_tables::Aml;
use acpi_tables::aml::{Device, Name, Package, Scope};
use platform::{AcpiIdentity, AcpiObject, Cpu, DeviceNode, PowerControl};

use super::device::{Encoded, device, encode};
use super::osc;
use super::validate::is_name;
use super::{AcpiTable, Body, Context, version};
use crate::BuildError;

/// Maximum number of processors: their names are `C000` to `CFFF`.
const MAX_CPUS: usize = 0x1000;

/// Differentiated System Description Table (ACPI 6.5, 5.2.11.1). The FADT points at it.
pub(super) const TABLE: AcpiTable =
    AcpiTable { signature: *b"DSDT", name: "dsdt", file_name: "dsdt.aml", body };

fn body(context: &Context<'_>) -> Result<Option<Body>, BuildError> {
    let platform = context.platform;
    let described = platform.devices.iter().filter_map(|node| Some((node, node.acpi.as_ref()?)));
    check_names(platform.cpus.len(), described.clone())?;

    let mut bus = if platform.error_sources.is_empty() { Vec::new() } else { osc::method() };
    for (position, cpu) in platform.cpus.iter().enumerate() {
        bus.extend(processor(position, *cpu));
    }
    for (node, identity) in described {
        bus.extend(device(node, identity)?);
    }
    let mut bytes = encode(&Scope::new("_SB_".into(), vec![&Encoded(bus)]));
    if let PowerControl::AcpiRegisters { s5_sleep_type, .. } = platform.power {
        soft_off(s5_sleep_type).to_aml_bytes(&mut bytes);
    }
    Ok(Some(Body { revision: version::DSDT, bytes }))
}

/// `Device (C000) { _HID ACPI0007, _UID index }` (ACPI 6.5, 8.4). The MADT refers to it by the UID.
fn processor(position: usize, cpu: Cpu) -> Vec<u8> {
    let hid = Name::new("_HID".into(), &"ACPI0007");
    let uid = Name::new("_UID".into(), &cpu.index);
    encode(&Device::new(processor_name(position).as_str().into(), vec![&hid, &uid]))
}

fn processor_name(index: usize) -> String {
    format!("C{index:03X}")
}

/// `\_S5` (ACPI 6.5, 7.4.2.6): the sleep type for the sleep control register, and three values that hardware-reduced
/// machines do not use.
fn soft_off(sleep_type: u8) -> Name {
    Name::new("_S5_".into(), &Package::new(vec![&sleep_type, &0u8, &0u8, &0u8]))
}

/// Checks that names are unique under `\_SB`, and that the target of every event exists.
fn check_names<'a>(
    cpus: usize,
    described: impl Iterator<Item = (&'a DeviceNode, &'a AcpiIdentity)> + Clone,
) -> Result<(), BuildError> {
    if cpus > MAX_CPUS {
        return Err(BuildError::TooManyCpus { table: "DSDT", cpus, limit: MAX_CPUS });
    }
    let mut taken: Vec<&str> = Vec::new();
    let processors: Vec<String> = (0..cpus).map(processor_name).collect();
    for (node, identity) in described.clone() {
        let name = identity.name;
        if !is_name(name) {
            return Err(BuildError::Name { device: node.name.clone(), name });
        }
        if name == osc::NAME || taken.contains(&name) || processors.iter().any(|processor| processor == name)
        {
            return Err(BuildError::DuplicateName { device: node.name.clone(), name: name.into() });
        }
        taken.push(name);
    }
    for (node, identity) in described {
        for object in &identity.objects {
            let AcpiObject::GenericEvents { sources, .. } = object else { continue };
            if let Some(source) = sources.iter().find(|source| !taken.contains(&source.target)) {
                return Err(BuildError::EventTarget { device: node.name.clone(), target: source.target });
            }
        }
    }
    Ok(())
}
