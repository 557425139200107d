//! The configuration of a device. Its kind defines the type; this crate treats it as opaque.

use std::any::Any;
use std::fmt::{self, Debug, Formatter};
use std::sync::Arc;

/// The configuration of one device, of the type that its kind chose.
#[derive(Clone)]
pub struct DeviceConfig(Arc<dyn ErasedConfig>);

impl DeviceConfig {
    /// Wraps a configuration.
    pub fn new<C: Any + Debug + PartialEq + Send + Sync>(config: C) -> Self {
        DeviceConfig(Arc::new(config))
    }

    /// The configuration; `None` if it is of another type.
    #[must_use]
    pub fn downcast_ref<C: Any>(&self) -> Option<&C> {
        self.0.as_any().downcast_ref()
    }
}

impl Debug for DeviceConfig {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        Debug::fmt(&self.0, f)
    }
}

impl PartialEq for DeviceConfig {
    fn eq(&self, other: &Self) -> bool {
        self.0.equals(other.0.as_any())
    }
}

trait ErasedConfig: Debug + Send + Sync {
    fn as_any(&self) -> &dyn Any;
    fn equals(&self, other: &dyn Any) -> bool;
}

impl<C: Any + Debug + PartialEq + Send + Sync> ErasedConfig for C {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn equals(&self, other: &dyn Any) -> bool {
        other.downcast_ref().is_some_and(|other| self == other)
    }
}
