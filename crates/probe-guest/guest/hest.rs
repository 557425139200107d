//! The Hardware Error Source Table (ACPI 6.5, 18.3.2): the error sources.

use crate::acpi::{GenericAddress, Header};
use crate::failure::Failure;
use crate::wire::{Field, read_at, wire};

wire! {
    /// What follows the header (table 18.3).
    struct Hest: 4 {
        count: u32,
    }
}

wire! {
    /// Hardware Error Notification (18.3.2.9, table 18.14).
    struct NotificationStructure: 28 {
        kind: u8,
        _len: u8,
        _configuration: u16,
        _interval: u32,
        vector: u32,
        _thresholds: [u8; 16],
    }
}

wire! {
    /// Generic Hardware Error Source version 2 (18.3.2.8, table 18.13).
    struct GenericSourceV2: 92 {
        _kind: u16,
        id: u16,
        _related_id: u16,
        _flags: u8,
        enabled: u8,
        _records: u32,
        _sections: u32,
        _raw_data_len: u32,
        status_address: GenericAddress,
        notification: NotificationStructure,
        block_len: u32,
        ack_register: GenericAddress,
        ack_preserve: u64,
        ack_write: u64,
    }
}

/// How a source notifies the operating system of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Notification {
    Polled,
    External {
        gsi: u32,
    },
    Sci,
    Nmi,
    Gpio,
    Sea,
    Sei,
    Gsiv,
    /// A type that this guest does not support.
    Other,
}

impl Notification {
    fn of(structure: &NotificationStructure) -> Self {
        match structure.kind {
            0 => Notification::Polled,
            1 => Notification::External { gsi: structure.vector },
            3 => Notification::Sci,
            4 => Notification::Nmi,
            7 => Notification::Gpio,
            8 => Notification::Sea,
            9 => Notification::Sei,
            10 => Notification::Gsiv,
            _ => Notification::Other,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Notification::Polled => "polled",
            Notification::External { .. } => "external",
            Notification::Sci => "sci",
            Notification::Nmi => "nmi",
            Notification::Gpio => "gpio",
            Notification::Sea => "sea",
            Notification::Sei => "sei",
            Notification::Gsiv => "gsiv",
            Notification::Other => "other",
        }
    }

    /// Whether it is raised by an event device that notifies the error device (PNP0C33).
    pub(crate) fn is_event(self) -> bool {
        matches!(self, Notification::Sci | Notification::Gpio | Notification::Gsiv)
    }
}

/// A Generic Hardware Error Source version 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Source {
    pub(crate) id: u16,
    pub(crate) notification: Notification,
    /// GPA of the 64 bits that hold the GPA of the status block.
    pub(crate) cell: u64,
    /// Maximum length of a status block in bytes.
    pub(crate) block_len: u32,
    /// GPA of the 64-bit acknowledge register.
    pub(crate) ack: u64,
    /// Bits of the register that an acknowledgement preserves, and bits that it sets.
    pub(crate) preserve: u64,
    pub(crate) write: u64,
}

/// The enabled GHESv2 sources of a table, which includes its header. Other kinds are skipped.
pub(crate) fn sources(table: &[u8]) -> impl Iterator<Item = Result<Source, Failure>> {
    let mut left = read_at::<Hest>(table, Header::SIZE).map(|fixed| fixed.count);
    let mut rest = table.get(Header::SIZE + Hest::SIZE..).unwrap_or_default();
    core::iter::from_fn(move || {
        let count = left.as_mut()?;
        while *count > 0 {
            *count -= 1;
            let offset = (table.len() - rest.len()) as u64;
            match next(&mut rest, offset) {
                Ok(Some(source)) => return Some(Ok(source)),
                Ok(None) => {}
                Err(broken) => {
                    left = None;
                    return Some(Err(broken));
                }
            }
        }
        left = None;
        let more = (!rest.is_empty())
            .then_some(Failure::with("HEST: unexpected bytes after its sources:", rest.len() as u64));
        more.map(Err)
    })
}

/// Splits a source off the front of `rest`. `None` if it is skipped.
fn next(rest: &mut &[u8], offset: u64) -> Result<Option<Source>, Failure> {
    const GENERIC_V2: u16 = 10;
    let broken = Failure::with("HEST: broken source at offset", offset);
    let source = *rest;
    let kind = read_at::<u16>(source, 0).ok_or(broken)?;
    let len = len(kind, source).ok_or(broken)?;
    *rest = source.get(len..).ok_or(broken)?;
    if kind != GENERIC_V2 {
        return Ok(None);
    }
    let source = read_at::<GenericSourceV2>(source, 0).ok_or(broken)?;
    if source.enabled == 0 {
        return Ok(None);
    }
    Ok(Some(Source {
        id: source.id,
        notification: Notification::of(&source.notification),
        cell: quadword(&source.status_address).ok_or(broken)?,
        block_len: source.block_len,
        ack: quadword(&source.ack_register).ok_or(broken)?,
        preserve: source.ack_preserve,
        write: source.ack_write,
    }))
}

/// Length of a source by its kind, since sources have no length field (18.3.2.1 to 18.3.2.11).
fn len(kind: u16, source: &[u8]) -> Option<usize> {
    const BANK: usize = 28;
    let banks = |at: usize| source.get(at).map(|count| usize::from(*count) * BANK);
    Some(match kind {
        0 => 40 + banks(32)?,
        1 | 11 => 48 + banks(44)?,
        2 => 20,
        6 => 48,
        7 => 44,
        8 => 56,
        9 => 64,
        10 => GenericSourceV2::SIZE,
        _ => return None,
    })
}

/// The address of a 64-bit register in memory. `None` for any other register.
fn quadword(register: &GenericAddress) -> Option<u64> {
    const MEMORY: u8 = 0;
    const QUADWORD: u8 = 4;
    let is_one = register.space == MEMORY
        && (register.width, register.offset, register.access) == (64, 0, QUADWORD)
        && register.address != 0
        && register.address.is_multiple_of(8);
    is_one.then_some(register.address)
}
