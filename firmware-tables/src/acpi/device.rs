//! A device as AML.

use acpi_tables::aml::{
    And, Device, EISAName, Field, FieldAccessType, FieldEntry, FieldLockRule, FieldUpdateRule, If, Local,
    Method, Name, Notify, OpRegion, OpRegionSpace, Package, Path, Store, ZERO,
};
use acpi_tables::{Aml, AmlSink};
use platform::{AcpiIdentity, AcpiObject, DeviceNode, EventSource, Window};

use super::resources;
use super::validate::{HardwareId, is_name, is_text};
use crate::BuildError;

/// `_STA` (ACPI 6.5, 6.3.7): present, enabled, shown, functioning.
const WORKING: u8 = 0xf;
/// The most elements of a package (ACPI 6.5, 20.2.5.4: NumElements is a byte).
const MAX_ELEMENTS: usize = 255;

/// Encoded AML.
pub(super) struct Encoded(pub(super) Vec<u8>);

impl Aml for Encoded {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        sink.vec(&self.0);
    }
}

/// `Device (name) { _HID, _UID, _STA, _CRS, other objects }`. The caller has validated the identity's name.
pub(super) fn device(node: &DeviceNode, identity: &AcpiIdentity) -> Result<Vec<u8>, BuildError> {
    let mut scope = Scope { node, taken: Vec::new(), body: Vec::new() };
    match HardwareId::of(identity.hid) {
        Some(HardwareId::Eisa) => scope.name("_HID", &EISAName::new(identity.hid))?,
        Some(HardwareId::Acpi) => scope.name("_HID", &identity.hid)?,
        None => return Err(BuildError::HardwareId { device: node.name.clone(), hid: identity.hid }),
    }
    scope.name("_UID", &identity.uid)?;
    scope.name("_STA", &WORKING)?;
    if let Some(crs) = resources::current(node)? {
        scope.name("_CRS", &Encoded(crs))?;
    }
    for object in &identity.objects {
        match object {
            AcpiObject::Integer { name, value } => scope.name(name, value)?,
            AcpiObject::Text { name, value } if is_text(value) => scope.name(name, value)?,
            AcpiObject::Text { name, .. } => {
                return Err(BuildError::Text { device: node.name.clone(), name });
            }
            AcpiObject::Integers { name, values } if values.len() <= MAX_ELEMENTS => {
                let elements = values.iter().map(|value| value as &dyn Aml).collect();
                scope.name(name, &Package::new(elements))?;
            }
            AcpiObject::Integers { name, values } => {
                let (device, elements) = (node.name.clone(), values.len());
                return Err(BuildError::Package { device, name, elements });
            }
            AcpiObject::GenericEvents { selector, sources } => scope.events(*selector, sources)?,
        }
    }
    Ok(encode(&Device::new(identity.name.into(), vec![&Encoded(scope.body)])))
}

/// The objects of one device.
struct Scope<'a> {
    node: &'a DeviceNode,
    taken: Vec<&'static str>,
    body: Vec<u8>,
}

impl Scope<'_> {
    fn name(&mut self, name: &'static str, value: &dyn Aml) -> Result<(), BuildError> {
        self.reserve(name)?;
        Name::new(name.into(), value).to_aml_bytes(&mut self.body);
        Ok(())
    }

    /// Validates a name and reserves it in this scope.
    fn reserve(&mut self, name: &'static str) -> Result<(), BuildError> {
        if !is_name(name) {
            return Err(BuildError::Name { device: self.node.name.clone(), name });
        }
        if self.taken.contains(&name) {
            return Err(BuildError::DuplicateName { device: self.node.name.clone(), name: name.into() });
        }
        self.taken.push(name);
        Ok(())
    }

    /// The register and `_EVT` of a Generic Event Device (ACPI 6.5, 5.6.9).
    ///
    /// Reading the register clears it: the method reads it once and tests the bits of the copy.
    fn events(&mut self, selector: Window, sources: &[EventSource]) -> Result<(), BuildError> {
        const REGION: &str = "ESEL";
        const PENDING: &str = "EPND";
        for name in [REGION, PENDING, "_EVT"] {
            self.reserve(name)?;
        }
        let space = match selector {
            Window::Ports { len: 4, .. } => OpRegionSpace::SystemIO,
            Window::Mmio { len: 4, .. } => OpRegionSpace::SystemMemory,
            window => return Err(BuildError::EventSelector { device: self.node.name.clone(), window }),
        };
        OpRegion::new(REGION.into(), space, &selector.base(), &4u8).to_aml_bytes(&mut self.body);
        Field::new(
            REGION.into(),
            FieldAccessType::DWord,
            FieldLockRule::NoLock,
            // The field is never written. `Preserve` would read it before a write.
            FieldUpdateRule::WriteAsZeroes,
            vec![FieldEntry::Named(*b"EPND", 32)],
        )
        .to_aml_bytes(&mut self.body);

        let mut body = encode(&Store::new(&Local(0), &Path::new(PENDING)));
        for source in sources {
            If::new(
                &And::new(&ZERO, &Local(0), &source.mask),
                vec![&Notify::new(&Path::new(source.target), &source.value)],
            )
            .to_aml_bytes(&mut body);
        }
        Method::new("_EVT".into(), 1, true, vec![&Encoded(body)]).to_aml_bytes(&mut self.body);
        Ok(())
    }
}

/// Encodes `aml`.
pub(super) fn encode(aml: &dyn Aml) -> Vec<u8> {
    let mut bytes = Vec::new();
    aml.to_aml_bytes(&mut bytes);
    bytes
}
