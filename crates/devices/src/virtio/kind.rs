//! Kinds of virtio devices.

use std::any::Any;
use std::fmt::Debug;

use machine_profile::device_kind::{DeviceConfig, DeviceKind, DeviceSection, Keys, Reported};

use super::VirtioDevice;
use crate::kind::DeviceError;

/// A kind of virtio device, with a configuration of type `C`. A transport makes it a [`Kind`](crate::kind::Kind).
pub struct VirtioKind<C: 'static> {
    /// The value of `type`.
    pub name: &'static str,
    /// A noun phrase.
    pub doc: &'static str,
    /// The keys of its section.
    pub keys: Keys,
    /// Reads a section.
    pub read: fn(&mut DeviceSection<'_>) -> Result<C, Reported>,
    /// Creates the device of a configuration, with the VMM's name for it.
    pub build: fn(&C, &str) -> BuildResult,
}

/// A device, or why it cannot be created.
pub type BuildResult = Result<Box<dyn VirtioDevice>, DeviceError>;

impl<C: Any + Debug + PartialEq + Send + Sync> DeviceKind for VirtioKind<C> {
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

impl<C: Any> VirtioKind<C> {
    /// Creates the device of a configuration that this kind read.
    pub(crate) fn device(&self, config: &DeviceConfig, name: &str) -> BuildResult {
        let config = config.downcast_ref().ok_or_else(|| DeviceError {
            key: "type",
            message: format!("the configuration of {name} is not of {}", self.name),
            help: "pass the configuration that the kind itself read",
        })?;
        (self.build)(config, name)
    }
}
