//! Injected error records: any status block, CPER record or section.

use std::fmt::Write as _;

use ras_core::acceptance::{GuestAction, LinuxOutcome, Rejection, linux_accepts};
use ras_core::reporters::NotInjected;
use ras_core::{DecodeError, Decoded, ErrorSource, NotOneBlock, RecordSlot};

use super::Reporting;
use super::inject::{NamedSource, RecordRequest, RecordSource};

/// Why a record is not injected.
#[derive(Debug, thiserror::Error)]
pub enum RecordRefused {
    /// It is not one.
    #[error("it has no status block, CPER record or section: {0}; `--force` writes its bytes as they are")]
    NotARecord(DecodeError),
    /// It is several.
    #[error(transparent)]
    NotOneBlock(#[from] NotOneBlock),
    /// There is no such source.
    #[error("there is no error source {id}: this machine has {sources}")]
    NoSource {
        /// Its number.
        id: u16,
        /// Those that there are.
        sources: String,
    },
    /// This machine has no source for that kind of errors.
    #[error(
        "this machine has no error source of its own for {kind} errors: name one of {sources} by its number"
    )]
    NoSourceOfKind {
        /// The kind.
        kind: &'static str,
        /// Those that there are.
        sources: String,
    },
    /// Linux would refuse it.
    #[error("Linux would refuse the status block: {0}; `--force` writes it all the same")]
    Rejected(Rejection),
    /// Linux would not see it.
    #[error(
        "Linux would not read the status block, because its status is zero; `--force` writes it all the same"
    )]
    Empty,
    /// Linux would refuse one of its sections.
    #[error("Linux would refuse section {number} of it as too short; `--force` writes it all the same")]
    TooShort {
        /// Its number, from 1.
        number: usize,
    },
    /// It cannot be written now, or into that block.
    #[error(transparent)]
    NotInjected(#[from] NotInjected),
}

impl Reporting {
    /// Writes an error record into the status block of an error source, once that is free, and notifies the guest. Called on the main
    /// thread.
    ///
    /// # Errors
    /// Returns why it is not written.
    pub fn inject_record(&self, request: &RecordRequest) -> Result<(), RecordRefused> {
        let bytes = &request.record.0;
        let block = match Decoded::read(bytes) {
            Ok(decoded) => decoded.to_block()?,
            Err(_) if request.force => bytes.clone(),
            Err(error) => return Err(RecordRefused::NotARecord(error)),
        };
        let mut state = self.lock();
        let sources = || sources(state.responder.slots());
        let id = match request.source {
            RecordSource::Id(id) => id,
            RecordSource::Named(NamedSource::Corrected) if self.has_corrected_source() => {
                ErrorSource::CORRECTED
            }
            RecordSource::Named(kind) => {
                let kind = match kind {
                    NamedSource::Corrected => "corrected",
                    NamedSource::Fatal => "fatal",
                };
                return Err(RecordRefused::NoSourceOfKind { kind, sources: sources() });
            }
        };
        let slot = state.responder.slots().find(|slot| slot.source.id == id).copied();
        let slot = slot.ok_or_else(|| RecordRefused::NoSource { id, sources: sources() })?;
        // What does not fit is refused in any case.
        if !request.force && block.len() <= slot.block_len as usize {
            check(&block, &slot)?;
        }
        let mut outcome = Err(NotInjected::NoSource);
        self.step(&mut state, None, |responder, context, sink| {
            outcome = responder.inject_block(id, &block, context, sink);
        });
        outcome?;
        tracing::info!(source = id, bytes = block.len(), "an error record was injected");
        Ok(())
    }
}

/// Checks that Linux accepts a block with all of its sections.
fn check(block: &[u8], slot: &RecordSlot) -> Result<(), RecordRefused> {
    match linux_accepts(block, slot.block_len, slot.source.notification) {
        Err(rejection) => Err(RecordRefused::Rejected(rejection)),
        Ok(LinuxOutcome::NothingToRead) => Err(RecordRefused::Empty),
        Ok(LinuxOutcome::Panic) => Ok(()),
        Ok(LinuxOutcome::Handled { actions, .. }) => {
            let short = actions.iter().find_map(|action| match action {
                GuestAction::TooShort { section } => Some(section + 1),
                _ => None,
            });
            short.map_or(Ok(()), |number| Err(RecordRefused::TooShort { number }))
        }
    }
}

/// The sources that there are, with their notifications.
fn sources<'a>(slots: impl Iterator<Item = &'a RecordSlot>) -> String {
    let mut text = String::new();
    for slot in slots {
        let separator = if text.is_empty() { "" } else { ", " };
        // Writing to a string cannot fail.
        let _ = write!(text, "{separator}{} (`{}`)", slot.source.id, slot.source.notification.name());
    }
    if text.is_empty() { "none".into() } else { text }
}
