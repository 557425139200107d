//! A device's `_CRS`: its register windows and interrupts as resource descriptors (ACPI 6.5, 6.4).

use acpi_tables::aml::{AddressSpace, IO, Interrupt, Memory32Fixed, ResourceTemplate};
use acpi_tables::{Aml, AmlSink};
use platform::{AcpiObject, DeviceNode, Trigger, Window};
use zerocopy::little_endian::{U16, U64};
use zerocopy::{Immutable, IntoBytes, Unaligned};

use crate::BuildError;

/// The value of `_CRS`. `None` if there are neither windows nor interrupts to list.
///
/// The windows of a device may be [left to an object](platform::AcpiIdentity::without_windows) of its own.
/// A Generic Event Device lists only interrupts (ACPI 6.5, 5.6.9.1; Linux rejects others): its register is the operation
/// region that `_EVT` reads.
pub(super) fn current(device: &DeviceNode) -> Result<Option<Vec<u8>>, BuildError> {
    let is_event_device = |object: &AcpiObject| matches!(object, AcpiObject::GenericEvents { .. });
    let lists_windows = device
        .acpi
        .iter()
        .all(|identity| identity.lists_windows && !identity.objects.iter().any(is_event_device));
    let windows = device.windows.iter().filter(|_| lists_windows).map(|window| {
        descriptor(*window).ok_or_else(|| BuildError::Window { device: device.name.clone(), window: *window })
    });
    let interrupts = device.interrupts.iter().map(|interrupt| {
        let edge = interrupt.trigger == Trigger::Edge;
        Ok(Box::new(Interrupt::new(true, edge, false, false, interrupt.gsi)) as Box<dyn Aml>)
    });
    let descriptors = windows.chain(interrupts).collect::<Result<Vec<_>, _>>()?;
    if descriptors.is_empty() {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    ResourceTemplate::new(descriptors.iter().map(AsRef::as_ref).collect()).to_aml_bytes(&mut bytes);
    Ok(Some(bytes))
}

/// The smallest descriptor for the window. `None` if the window is empty or exceeds its address space.
fn descriptor(window: Window) -> Option<Box<dyn Aml>> {
    match window {
        Window::Ports { base, len } => {
            let last = base.checked_add(len.checked_sub(1)?)?;
            Some(match u8::try_from(len) {
                Ok(len) => Box::new(IO::new(base, base, 1, len)),
                Err(_) => Box::new(AddressSpace::new_io(base, last, None)),
            })
        }
        Window::Mmio { base, len } => {
            let last = base.checked_add(len.checked_sub(1)?)?;
            Some(match (u32::try_from(base), u32::try_from(len), u32::try_from(last)) {
                (Ok(base), Ok(len), Ok(_)) => Box::new(Memory32Fixed::new(true, base, len)),
                _ => Box::new(QWordMemory::fixed(base, last, len)),
            })
        }
    }
}

/// QWord Address Space Descriptor (ACPI 6.5, 6.4.3.5.1) of memory that a device consumes: not cacheable, writable.
#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct QWordMemory {
    tag: u8,
    length: U16,
    resource_type: u8,
    general_flags: u8,
    type_flags: u8,
    granularity: U64,
    min: U64,
    max: U64,
    translation: U64,
    len: U64,
}

const _: () = assert!(size_of::<QWordMemory>() == 46);

impl QWordMemory {
    fn fixed(min: u64, max: u64, len: u64) -> Self {
        /// Bit 0: consumer; bits 2 and 3: minimum and maximum are fixed.
        const CONSUMER_FIXED: u8 = 0b1101;
        const READ_WRITE: u8 = 1;
        QWordMemory {
            tag: 0x8a,
            length: U16::new(0x2b),
            resource_type: 0,
            general_flags: CONSUMER_FIXED,
            type_flags: READ_WRITE,
            granularity: U64::ZERO,
            min: U64::new(min),
            max: U64::new(max),
            translation: U64::ZERO,
            len: U64::new(len),
        }
    }
}

impl Aml for QWordMemory {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        sink.vec(self.as_bytes());
    }
}
