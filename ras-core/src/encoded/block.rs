//! Status blocks.

use alloc::vec::Vec;

use super::section::section;
use crate::description::Description;
use crate::encode_error::{EncodeError, EncodeProblem};
use crate::layout::{Bits, Draft, Keys, bits, byte_string, compose};
use crate::severity::Severity;
use crate::status_block::{DataEntryHeader, StatusBlockHeader, block_status};

/// The status block that `keys` describe. Without a status, a count or a severity, those of its entries.
pub(super) fn block(keys: &Keys<'_>) -> Result<Vec<u8>, EncodeError> {
    let mut draft = Draft::default();
    compose(StatusBlockHeader::LAYOUT, keys, &mut draft)?;
    let header_len = draft.len();
    let mut severities = Vec::new();
    for (index, description) in keys.list("entry")?.iter().enumerate() {
        severities.push(keys.item("entry", index, description, |keys| entry(keys, &mut draft))?);
    }
    let data_length = draft.len() - header_len;
    raw_data(keys, &mut draft)?;
    keys.take(Description::WARNING)?;

    let mut set = |name: &str, bits: Bits, value: u64| {
        draft.set(0, bits, value).map_err(|_| {
            let number = bits.get(draft.behind(0)).unwrap_or(0);
            keys.error(name, EncodeProblem::Contradiction { number, other: value })
        })
    };
    set("data_length", bits!(StatusBlockHeader, data_length), data_length as u64)?;
    let status = bits!(StatusBlockHeader, block_status);
    let count = status.range(4, 14);
    if !keys.has("entry_count") {
        set("entry", count, (severities.len() as u64).min(count.max()))?;
    }
    if !keys.has("block_status") {
        set("entry", status.range(0, 4), status_of(&severities).into())?;
    }
    if !keys.has("severity") {
        let worst = severities.iter().copied().flatten().reduce(Severity::worse);
        let worst = worst.unwrap_or(Severity::Informational).number();
        set("entry", bits!(StatusBlockHeader, severity), worst.into())?;
    }
    Ok(draft.into_bytes())
}

fn status_of(severities: &[Option<Severity>]) -> u32 {
    let is_uncorrected =
        |severity: &&Option<Severity>| matches!(severity, Some(Severity::Recoverable | Severity::Fatal));
    let uncorrected = severities.iter().filter(is_uncorrected).count();
    let corrected = severities.iter().filter(|severity| **severity == Some(Severity::Corrected)).count();
    block_status::of(uncorrected as u32, corrected as u32)
}

/// Adds an entry, and returns its severity.
fn entry(keys: &Keys<'_>, draft: &mut Draft) -> Result<Option<Severity>, EncodeError> {
    require_severity(keys)?;
    let base = draft.len();
    compose(DataEntryHeader::LAYOUT, keys, draft)?;
    let (kind, bytes) = section(keys)?;
    draft.push(&bytes);
    let result = draft.set_bytes(base, bits!(DataEntryHeader, section_type), kind.bytes());
    let result =
        result.and_then(|()| draft.set(base, bits!(DataEntryHeader, error_data_length), bytes.len() as u64));
    result.map_err(|_| keys.own_error(EncodeProblem::ContradictingBytes))?;
    let severity = bits!(DataEntryHeader, severity).get(draft.behind(base)).unwrap_or(0);
    Ok(u32::try_from(severity).ok().and_then(Severity::from_number))
}

/// An error without a severity would be recoverable: too easily said.
pub(super) fn require_severity(keys: &Keys<'_>) -> Result<(), EncodeError> {
    if keys.has("severity") {
        return Ok(());
    }
    let expected = "`recoverable`, `fatal`, `corrected` or `informational`".into();
    Err(keys.error("severity", EncodeProblem::Missing { expected }))
}

/// Adds the raw data and what is before it.
fn raw_data(keys: &Keys<'_>, draft: &mut Draft) -> Result<(), EncodeError> {
    let read = |name: &'static str| {
        let value = keys.take(name)?;
        let bytes = value.map_or(Ok(Vec::new()), byte_string);
        bytes.map_err(|problem| keys.error(name, problem))
    };
    let before = read("bytes_before_raw_data")?;
    let mut before_and_zeros = before;
    super::section::push_zeros(keys, "zero_bytes_before_raw_data", &mut before_and_zeros)?;
    let raw_data = read("raw_data")?;
    if !raw_data.is_empty() {
        let offset = draft.len() + before_and_zeros.len();
        draft.push(&before_and_zeros);
        draft.push(&raw_data);
        let set = draft.set(0, bits!(StatusBlockHeader, raw_data_offset), offset as u64);
        let set =
            set.and_then(|()| draft.set(0, bits!(StatusBlockHeader, raw_data_length), raw_data.len() as u64));
        set.map_err(|_| keys.error("raw_data", EncodeProblem::ContradictingBytes))?;
    }
    Ok(())
}
