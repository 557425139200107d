//! Kinds of virtio devices.

use std::any::Any;
use std::fmt::Debug;

use machine_profile::device_kind::{DeviceConfig, DeviceKind, DeviceSection, Keys, Reported};

use super::VirtioDevice;
use crate::kind::{Backend, DeviceError};

/// A kind of virtio device, with a configuration of type `C` and a host's side of type `B`. A transport makes it a
/// [`Kind`](crate::kind::Kind).
pub struct VirtioKind<C: 'static, B: 'static> {
    /// The value of `type`.
    pub name: &'static str,
    /// A noun phrase.
    pub doc: &'static str,
    /// The keys of its section.
    pub keys: Keys,
    /// Reads a section.
    pub read: fn(&mut DeviceSection<'_>) -> Result<C, Reported>,
    /// Checks what can be seen of the host without opening the device.
    pub inspect: fn(&C) -> Result<(), DeviceError>,
    /// Opens the files that the device needs.
    pub open: fn(&C) -> Result<B, DeviceError>,
    /// Creates the device, with the VMM's name for it.
    pub build: fn(&B, &str) -> Box<dyn VirtioDevice>,
}

impl<C: Any + Debug + PartialEq + Send + Sync, B> DeviceKind for VirtioKind<C, B> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn doc(&self) -> &'static str {
        self.doc
    }

    fn keys(&self) -> Keys {
        self.keys
    }

    fn read(&self, section: &mut DeviceSection<'_>) -> Result<DeviceConfig, Reported> {
        (self.read)(section).map(DeviceConfig::new)
    }
}

impl<C: Any, B: Any> VirtioKind<C, B> {
    /// The configuration, if this kind read it.
    pub(crate) fn config<'a>(&self, config: &'a DeviceConfig) -> Result<&'a C, DeviceError> {
        config.downcast_ref().ok_or_else(|| self.foreign("configuration"))
    }

    /// Creates the device of a host's side that this kind opened.
    pub(crate) fn device(&self, backend: &Backend, name: &str) -> Result<Box<dyn VirtioDevice>, DeviceError> {
        let backend = backend.downcast_ref().ok_or_else(|| self.foreign("backend"))?;
        Ok((self.build)(backend, name))
    }

    fn foreign(&self, what: &str) -> DeviceError {
        DeviceError {
            key: "type",
            message: format!("the {what} is not of {}", self.name),
            help: "pass what the kind itself made".into(),
        }
    }
}
