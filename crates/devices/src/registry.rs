//! The kinds of devices of this build. One line here adds a kind.

use machine_profile::device_kind::{DeviceKind, DeviceKinds};

use crate::kind::Kind;

/// Every kind, in the order of the documentation.
static KINDS: &[&dyn Kind] = &[
    #[cfg(feature = "virtio-block")]
    &crate::virtio_block::KIND,
    #[cfg(feature = "virtio-fs")]
    &crate::virtio_fs::KIND,
    #[cfg(feature = "virtio-net")]
    &crate::virtio_net::KIND,
    #[cfg(feature = "virtio-rng")]
    &crate::virtio_rng::KIND,
    #[cfg(feature = "virtio-vsock")]
    &crate::virtio_vsock::KIND,
    #[cfg(feature = "virtio-balloon")]
    &crate::virtio_balloon::KIND,
    #[cfg(feature = "virtio-console")]
    &crate::virtio_console::KIND,
];

/// All kinds, for [`machine_profile::parse`].
#[must_use]
pub fn kinds() -> DeviceKinds {
    DeviceKinds::new(KINDS.iter().map(|kind| *kind as &dyn DeviceKind))
}

/// The kind of that name, the value of `type`; `None` if this build does not have it.
#[must_use]
pub fn kind(name: &str) -> Option<&'static dyn Kind> {
    KINDS.iter().copied().find(|kind| kind.name() == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_kinds_are_unique() {
        for (index, kind) in KINDS.iter().enumerate() {
            assert!(KINDS.iter().take(index).all(|other| other.name() != kind.name()), "{}", kind.name());
        }
    }
}
