//! The section of a balloon in a profile, and the device that it makes.

use machine_profile::device_kind::{Default, DeviceSection, Flag, Key, Optional, Reported, Size};

use super::{Balloon, BalloonControl, PAGE};
use crate::kind::DeviceError;
use crate::virtio::VirtioKind;

/// `type = "virtio-balloon"`.
pub static KIND: VirtioKind<BalloonConfig, BalloonBackend> = VirtioKind {
    name: "virtio-balloon",
    doc: "a balloon, by which the guest gives memory back to the host",
    keys: &[&SIZE, &DEFLATE_ON_OOM, &FREE_PAGE_REPORTING],
    read: BalloonConfig::read,
    inspect: |_| Ok(()),
    open: BalloonConfig::open,
    build: |backend, name| {
        tracing::info!(device = name, size = backend.control.target(), "balloon attached");
        Box::new(Balloon::new(backend.control.clone(), backend.config))
    },
};

/// The configuration of a balloon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BalloonConfig {
    /// Bytes to take from the guest at start.
    pub size: u64,
    /// Whether the guest may take pages back rather than to run out of memory.
    pub deflate_on_oom: bool,
    /// Whether the guest reports free pages.
    pub free_page_reporting: bool,
}

/// The host's side of a balloon, which outlives the device.
pub struct BalloonBackend {
    config: BalloonConfig,
    control: BalloonControl,
}

impl BalloonBackend {
    /// The VMM's control of the balloon.
    #[must_use]
    pub fn control(&self) -> &BalloonControl {
        &self.control
    }
}

static SIZE: Key<Size, Optional> = Key {
    name: "size",
    doc: "Memory that the balloon takes from the guest.",
    form: Size {
        min: (PAGE, "the size of the device's pages"),
        max: (u32::MAX as u64 * PAGE, "the limit of the device's 32-bit number of pages"),
    },
    absent: Optional("the balloon is empty until its size is changed"),
};
static DEFLATE_ON_OOM: Key<Flag, Default<bool>> = Key {
    name: "deflate-on-oom",
    doc: "Whether the guest may take pages back from the balloon when it would run out of memory otherwise.",
    form: Flag,
    absent: Default(true),
};
static FREE_PAGE_REPORTING: Key<Flag, Default<bool>> = Key {
    name: "free-page-reporting",
    doc: "Whether the guest reports its free pages, which are given back to the host until the guest uses them.",
    form: Flag,
    absent: Default(true),
};

impl BalloonConfig {
    fn read(section: &mut DeviceSection<'_>) -> Result<Self, Reported> {
        let (size, deflate) = (section.optional(&SIZE), section.value(&DEFLATE_ON_OOM));
        let reporting = section.value(&FREE_PAGE_REPORTING);
        Ok(BalloonConfig {
            size: size?.map_or(0, |size| size.value),
            deflate_on_oom: deflate?.value,
            free_page_reporting: reporting?.value,
        })
    }

    fn open(&self) -> Result<BalloonBackend, DeviceError> {
        let control = BalloonControl::new(self.size).map_err(|error| DeviceError {
            key: "type",
            message: format!("eventfd(2): {error}"),
            help: "raise the limit of open files (ulimit -n)".into(),
        })?;
        Ok(BalloonBackend { config: *self, control })
    }
}
