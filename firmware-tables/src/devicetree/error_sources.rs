//! Error sources: firmware that tells of errors by records in memory and an interrupt (Linux,
//! `firmware/arm,ras-cper.yaml`, as posted in July 2026).
//!
//! The status block and the acknowledge register are regions of reserved memory with names of their own. A driver takes their
//! lengths from there: it copies all of the first with each interrupt, and accepts four or eight bytes for the second. What lies
//! around them is reserved with them, in whole blocks of 64 KiB, so that a kernel maps nothing else with them.

use platform::{Interrupt, Platform, Range, Trigger};
use ras_core::{ErrorSource, Notification, RecordArea, Slot};

use super::{NAME, interrupts};
use crate::fdt::Node;
use crate::{BuildError, records};

/// What the platform's error sources are in a devicetree.
pub(super) struct ErrorSources {
    pub(super) area: RecordArea,
    /// Of the first source's block; its register has the next.
    first_phandle: u32,
}

impl ErrorSources {
    /// None where there are no sources.
    pub(super) fn of(platform: &Platform, first_phandle: u32) -> Result<Option<Self>, BuildError> {
        let sources = &platform.error_sources;
        for (index, &ErrorSource { id, notification }) in sources.iter().enumerate() {
            let before = sources.get(..index).unwrap_or_default();
            if let Some(reason) = obstacle(platform, before, notification) {
                return Err(BuildError::ErrorSource { tables: NAME, id, notification, reason });
            }
        }
        if sources.is_empty() {
            return Ok(None);
        }
        Ok(Some(ErrorSources { area: records::lay_out(NAME, platform)?, first_phandle }))
    }

    /// The node of each source.
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

    /// The reserved memory that `room` is divided into.
    pub(super) fn reserved(&self, room: Range) -> Vec<Node> {
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
        let mut next = room.start;
        for (name, range, phandle) in named {
            nodes.extend(rest(next, range.start));
            nodes.push(super::reserved(name, range).cells("phandle", &[phandle]));
            next = range.end();
        }
        nodes.extend(rest(next, room.end()));
        nodes
    }

    /// The place of each source, and the phandles of its block and of its register.
    fn numbered(&self) -> impl Iterator<Item = (Slot, u32, u32)> {
        self.area.slots().zip((self.first_phandle..).step_by(2)).map(|(slot, block)| (slot, block, block + 1))
    }
}

/// Bytes of an acknowledge register.
const REGISTER_LEN: u64 = 8;

fn rest(start: u64, end: u64) -> Option<Node> {
    (start < end).then(|| super::reserved("firmware", Range::between(start, end)))
}

/// An edge with each record.
fn interrupt(notification: Notification) -> Option<Interrupt> {
    match notification {
        Notification::External { gsi } => Some(Interrupt { gsi, trigger: Trigger::Edge }),
        _ => None,
    }
}

/// Why the guest would never hear of an error in that way.
fn obstacle(platform: &Platform, before: &[ErrorSource], notification: Notification) -> Option<&'static str> {
    let Some(own) = interrupt(notification) else {
        return Some("a devicetree's sources have interrupts of their own");
    };
    if interrupts::shared(own).is_none() {
        Some("its interrupt is one of INTID 32 to 1019")
    } else if records::is_taken(platform, own.gsi) {
        Some("a device has that interrupt for itself")
    } else if before.iter().any(|source| source.notification == notification) {
        Some("another source has that interrupt for itself")
    } else {
        None
    }
}
