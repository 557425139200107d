//! CPER records, and sections that follow their descriptor without one.

use alloc::vec::Vec;

use super::block::require_severity;
use super::section::{push_behind, section};
use crate::cper::record::{RecordHeader, SectionDescriptor};
use crate::description::{Description, Value};
use crate::encode_error::{EncodeError, EncodeProblem, MAX_LEN};
use crate::guid::Guid;
use crate::layout::{Bits, Draft, Keys, bits, byte_string, compose, flag_set, number};
use crate::severity::Severity;

/// The record that `keys` describe, behind the attributes of its EFI variable, if they are there.
pub(super) fn record(keys: &Keys<'_>) -> Result<Vec<u8>, EncodeError> {
    let attributes = match keys.take(Description::VARIABLE_ATTRIBUTES)? {
        Some(value) => Some(
            flag_set(value, &Description::ATTRIBUTES, u32::MAX.into())
                .map_err(|problem| keys.error(Description::VARIABLE_ATTRIBUTES, problem))?,
        ),
        None => None,
    };
    keys.take(Description::WARNING)?;
    let mut draft = Draft::default();
    compose(RecordHeader::LAYOUT, keys, &mut draft)?;

    let descriptions = keys.list(Description::SECTION)?;
    let mut sections = Vec::new();
    let mut worst = None;
    for (index, description) in descriptions.iter().enumerate() {
        let keys = keys.of_item(Description::SECTION, index, description);
        let base = draft.len();
        require_severity(&keys)?;
        compose(SectionDescriptor::LAYOUT, &keys, &mut draft)?;
        let severity = bits!(SectionDescriptor, severity).get(draft.behind(base)).unwrap_or(0);
        let severity = u32::try_from(severity).ok().and_then(Severity::from_number);
        worst = worst.map_or(severity, |worst: Severity| severity.map(|severity| worst.worse(severity)));
        sections.push((base, keys));
    }
    for (base, keys) in &sections {
        keys.all(|keys| {
            gap(keys, &mut draft)?;
            let start = draft.len();
            let (kind, bytes) = section(keys)?;
            draft.push(&bytes);
            place(keys, &mut draft, *base, kind, (start, bytes.len()))
        })?;
    }
    let mut behind = Vec::new();
    push_behind(keys, &mut behind)?;
    draft.push(&behind);

    let len = draft.len() as u64;
    let count = sections.len() as u64;
    let mut set = |name: &str, bits: Bits, value: u64| {
        draft.set(0, bits, value).map_err(|_| {
            let number = bits.get(draft.behind(0)).unwrap_or(0);
            keys.error(name, EncodeProblem::Contradiction { number, other: value })
        })
    };
    set("record_length", bits!(RecordHeader, record_length), len)?;
    if count > u16::MAX.into() {
        let problem = EncodeProblem::TooMany { number: count, max: u16::MAX.into() };
        return Err(keys.error(Description::SECTION, problem));
    }
    set(Description::SECTION, bits!(RecordHeader, section_count), count)?;
    if !keys.has("severity") {
        let worst = worst.unwrap_or(Severity::Informational).number();
        set(Description::SECTION, bits!(RecordHeader, severity), worst.into())?;
    }
    let record = draft.into_bytes();
    Ok(match attributes {
        Some(attributes) => [&(attributes as u32).to_le_bytes(), &record[..]].concat(),
        None => record,
    })
}

/// The section that `keys` describe behind its descriptor, without a record.
pub(super) fn bare_section(keys: &Keys<'_>) -> Result<Vec<u8>, EncodeError> {
    let mut draft = Draft::default();
    require_severity(keys)?;
    compose(SectionDescriptor::LAYOUT, keys, &mut draft)?;
    let start = draft.len();
    let (kind, bytes) = section(keys)?;
    draft.push(&bytes);
    let offset = keys.take(Description::SECTION_OFFSET)?;
    let offset = offset.map_or(Ok(start as u64), |value| number(value, u32::MAX.into()));
    let offset = offset.map_err(|problem| keys.error(Description::SECTION_OFFSET, problem))?;
    place(keys, &mut draft, 0, kind, (offset as usize, bytes.len()))?;
    Ok(draft.into_bytes())
}

/// Writes into the descriptor at `base` the type of its section, its offset and its length.
fn place(
    keys: &Keys<'_>,
    draft: &mut Draft,
    base: usize,
    kind: Guid,
    (offset, len): (usize, usize),
) -> Result<(), EncodeError> {
    let written = draft.set_bytes(base, bits!(SectionDescriptor, section_type), kind.bytes());
    let written = written
        .and_then(|()| draft.set(base, bits!(SectionDescriptor, offset), offset as u64))
        .and_then(|()| draft.set(base, bits!(SectionDescriptor, length), len as u64));
    written.map_err(|_| keys.own_error(EncodeProblem::ContradictingBytes))
}

/// Adds what is between a section and the one before it: its bytes, or zeros up to its offset.
fn gap(keys: &Keys<'_>, draft: &mut Draft) -> Result<(), EncodeError> {
    if let Some(value) = keys.take(Description::BYTES_BEFORE)? {
        let bytes = byte_string(value).map_err(|problem| keys.error(Description::BYTES_BEFORE, problem))?;
        draft.push(&bytes);
    }
    let Some(value) = keys.take(Description::SECTION_OFFSET)? else { return Ok(()) };
    let name = Description::SECTION_OFFSET;
    let offset = number(value, u32::MAX.into()).map_err(|problem| keys.error(name, problem))?;
    let end = draft.len() as u64;
    if offset < end {
        return Err(keys.error(name, EncodeProblem::Overlap { offset, end }));
    }
    if offset > MAX_LEN as u64 {
        return Err(keys.error(name, EncodeProblem::TooLong { max: MAX_LEN }));
    }
    draft.grow((offset - end) as usize);
    Ok(())
}

/// Whether those keys are of a record: some that its header has, and nothing else.
pub(super) fn is_record(description: &Description) -> bool {
    const OF_HEADERS: [&str; 6] =
        ["creator_id", "notification", "record_id", "record_length", "persistence", "platform_id"];
    let has_header = OF_HEADERS.iter().any(|name| description.get(name).is_some());
    let sections = description.get(Description::SECTION);
    has_header
        || matches!(sections, Some(Value::List(sections)) if sections.iter().all(|it| it.get("offset").is_none()))
}
