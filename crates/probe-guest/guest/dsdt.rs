//! The devices and objects of the DSDT that the guest uses.

use crate::aml::{MAX_DEPTH, Object, Objects, Value, eisa_id, elements};
use crate::failure::Failure;
use crate::wire::{read_at, wire};

/// The devices and objects found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Dsdt {
    /// The Generic Event Device (ACPI 6.5, 5.6.9).
    pub(crate) ged: Option<EventDevice>,
    /// Whether it declares a PC's real-time clock.
    pub(crate) has_rtc: bool,
    /// SLP_TYP of S5: the first element of `\_S5` (ACPI 6.5, 7.4.2).
    pub(crate) s5_sleep_type: Option<u8>,
}

/// A Generic Event Device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EventDevice {
    pub(crate) interrupt: Interrupt,
    /// GPA of the register that holds pending events.
    pub(crate) selector: u64,
}

/// An interrupt of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Interrupt {
    pub(crate) gsi: u32,
    pub(crate) level: bool,
    pub(crate) active_low: bool,
}

impl Dsdt {
    /// Reads a definition block, which starts after the table's header.
    pub(crate) fn read(block: &[u8]) -> Result<Self, Failure> {
        let mut found = Dsdt::default();
        let mut drafts = [Draft::default(); MAX_DEPTH];
        let mut depth = 0usize;
        for object in Objects::of(block) {
            let object =
                object.map_err(|error| Failure::with("DSDT: unknown encoding at offset", error.at as u64))?;
            let innermost = depth.checked_sub(1).and_then(|index| drafts.get_mut(index));
            match (object, innermost) {
                (Object::Device(_), _) => {
                    if let Some(slot) = drafts.get_mut(depth) {
                        *slot = Draft::default();
                    }
                    depth += 1;
                }
                (Object::EndOfDevice, Some(draft)) => {
                    draft.finish(&mut found)?;
                    depth -= 1;
                }
                (Object::Name(name, value), Some(draft)) => draft.name(&name, value),
                (Object::Name(name, Value::Package(package)), None) if name == *b"_S5_" => {
                    if let Some(Value::Integer(sleep_type)) = elements(package).next() {
                        found.s5_sleep_type = u8::try_from(sleep_type).ok();
                    }
                }
                (Object::Region { space: 0, offset, len: 4.. }, Some(draft)) => {
                    draft.register = Some(offset);
                }
                _ => {}
            }
        }
        Ok(found)
    }
}

/// A device that is not read completely yet.
#[derive(Clone, Copy, Default)]
struct Draft {
    model: Model,
    interrupt: Option<Interrupt>,
    /// The last operation region in memory.
    register: Option<u64>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Model {
    #[default]
    Other,
    EventDevice,
    RealTimeClock,
}

impl Draft {
    fn name(&mut self, name: &[u8; 4], value: Value<'_>) {
        match (name, value) {
            (b"_HID", Value::Text(b"ACPI0013")) => self.model = Model::EventDevice,
            (b"_HID", Value::Integer(id)) if id == eisa_id(b"PNP0B00") => self.model = Model::RealTimeClock,
            (b"_HID", Value::Text(b"PNP0B00")) => self.model = Model::RealTimeClock,
            (b"_CRS", Value::Buffer(resources)) => self.interrupt = extended_interrupt(resources),
            _ => {}
        }
    }

    fn finish(&self, found: &mut Dsdt) -> Result<(), Failure> {
        match self.model {
            Model::Other => {}
            Model::RealTimeClock => found.has_rtc = true,
            Model::EventDevice => {
                found.ged = Some(EventDevice {
                    interrupt: self
                        .interrupt
                        .ok_or(Failure::new("DSDT: the event device has no interrupt"))?,
                    selector: self
                        .register
                        .ok_or(Failure::new("DSDT: the event device has no register in memory"))?,
                });
            }
        }
        Ok(())
    }
}

wire! {
    /// Extended Interrupt Descriptor with one interrupt (ACPI 6.5, 6.4.3.6, table 6.56).
    struct ExtendedInterrupt: 9 {
        _tag: u8,
        _len: u16,
        flags: u8,
        count: u8,
        first: u32,
    }
}

/// The first interrupt of the first extended interrupt descriptor.
fn extended_interrupt(resources: &[u8]) -> Option<Interrupt> {
    const EXTENDED_INTERRUPT: u8 = 0x89;
    const END: u8 = 0x78;
    let mut rest = resources;
    loop {
        let tag = *rest.first()?;
        if tag == EXTENDED_INTERRUPT {
            let descriptor = read_at::<ExtendedInterrupt>(rest, 0)?;
            return (descriptor.count > 0).then_some(Interrupt {
                gsi: descriptor.first,
                level: descriptor.flags & 1 << 1 == 0,
                active_low: descriptor.flags & 1 << 2 != 0,
            });
        }
        // ACPI 6.5, 6.4.2 and 6.4.3: a small item has its length in its tag, a large one in the two bytes after it.
        let len = match tag {
            0x80.. => 3 + usize::from(read_at::<u16>(rest, 1)?),
            _ if tag & 0xf8 == END => return None,
            _ => 1 + usize::from(tag & 7),
        };
        rest = rest.get(len..)?;
    }
}
