//! Error sources: firmware that reports errors by records in memory and an interrupt (Linux,
//! `firmware/arm,ras-cper.yaml`, as posted in July 2026).
//!
//! The status block and the acknowledge register are two named regions of reserved memory. A driver uses their lengths:
//! it copies the whole status block at each interrupt, and accepts an acknowledge register of four or eight bytes. The
//! rest of the record area is reserved too, in whole blocks of 64 KiB, so that a kernel maps nothing else with them.

use platform::{Interrupt, Platform, Range, Trigger};
use ras_core::{ErrorSource, Notification, RecordArea, RecordSlot};

use super::{SET, interrupts};
use crate::fdt::Node;
use crate::{BuildError, records};

/// The platform's error sources, described by a devicetree.
pub(super) struct ErrorSources {
    pub(super) area: RecordArea,
    /// The phandle of the first source's status block; its acknowledge register has the next.
    first_phandle: u32,
}

impl ErrorSources {
    /// `None` if the platform has no error sources.
    pub(super) fn of(platform: &Platform, first_phandle: u32) -> Result<Option<Self>, BuildError> {
        let sources = &platform.error_sources;
        for (index, &ErrorSource { id, notification }) in sources.iter().enumerate() {
            let before = sources.get(..index).unwrap_or_default();
            if let Some(reason) = obstacle(platform, before, notification) {
                return Err(BuildError::ErrorSource { set: SET, id, notification, reason });
            }
        }
        if sources.is_empty() {
            return Ok(None);
        }
        Ok(Some(ErrorSources { area: records::lay_out(SET, platform)?, first_phandle }))
    }

    /// One node for each source.
    pub(super) fn nodes(&self) -> impl Iterator<Item = Node> {
        self.numbered().filter_map(|(slot, block, register)| {
            let interrupt = interrupts::shared(interrupt(slot.source.notification)?)?;
            Some(
                Node::new(format!("error-source-{}", slot.source.id))
                    .text("compatible", "arm,ras-cper")
                    .cells("memory-region", &[block, register])
                    .cells("interrupts", &interrupt),
            )
        })
    }

    /// Nodes of reserved memory that cover `area` without a gap.
    pub(super) fn reserved(&self, area: Range) -> Vec<Node> {
        let mut named: Vec<_> = self
            .numbered()
            .flat_map(|(slot, block, register)| {
                let block_range = Range { start: slot.block_gpa, len: slot.block_len.into() };
                let register_range = Range { start: slot.ack_gpa, len: REGISTER_LEN };
                [("error-status", block_range, block), ("error-acknowledge", register_range, register)]
            })
            .collect();
        named.sort_by_key(|(_, range, _)| range.start);
        let mut nodes = Vec::new();
        let mut next = area.start;
        for (name, range, phandle) in named {
            nodes.extend(gap(next, range.start));
            nodes.push(super::reserved(name, range).cells("phandle", &[phandle]));
            next = range.end();
        }
        nodes.extend(gap(next, area.end()));
        nodes
    }

    /// The slot of each source, and the phandles of its status block and acknowledge register.
    fn numbered(&self) -> impl Iterator<Item = (RecordSlot, u32, u32)> {
        self.area.slots().zip((self.first_phandle..).step_by(2)).map(|(slot, block)| (slot, block, block + 1))
    }
}

/// Length of an acknowledge register in bytes.
const REGISTER_LEN: u64 = 8;

/// Reserved memory between two regions. `None` if they are adjacent.
fn gap(start: u64, end: u64) -> Option<Node> {
    (start < end).then(|| super::reserved("firmware", Range::between(start, end)))
}

/// The interrupt of a source: one edge for each record. `None` if the source has no interrupt of its own.
fn interrupt(notification: Notification) -> Option<Interrupt> {
    match notification {
        Notification::External { gsi } => Some(Interrupt { gsi, trigger: Trigger::Edge }),
        _ => None,
    }
}

/// The reason why a guest would never be notified. `None` if it is.
fn obstacle(platform: &Platform, before: &[ErrorSource], notification: Notification) -> Option<&'static str> {
    let Some(own) = interrupt(notification) else {
        return Some("a devicetree requires a source with its own interrupt (external)");
    };
    if interrupts::shared(own).is_none() {
        Some("its interrupt must be an SPI, INTID 32 to 1019 (Arm IHI 0069, 2.2)")
    } else if records::is_taken(platform, own.gsi) {
        Some("a device uses its interrupt")
    } else if before.iter().any(|source| source.notification == notification) {
        Some("another source uses its interrupt")
    } else {
        None
    }
}
