//! Sections, in any of their forms.

use alloc::vec::Vec;

use crate::cper::{SECTION_TYPES, SectionType};
use crate::description::{Description, Value};
use crate::encode_error::{EncodeError, EncodeProblem, MAX_LEN};
use crate::guid::Guid;
use crate::layout::{Draft, Keys, byte_string, compose, number};

/// The type and the bytes of the section among `keys`.
pub(super) fn section(keys: &Keys<'_>) -> Result<(Guid, Vec<u8>), EncodeError> {
    let mut found: Option<(Guid, &'static str, Vec<u8>)> = None;
    for SectionType { guid, body, .. } in SECTION_TYPES {
        let Some((key, layout)) = body else { continue };
        let Some(value) = keys.take(key)? else { continue };
        if let Some((_, other, _)) = found {
            return Err(keys.error(key, EncodeProblem::SecondSection { other }));
        }
        let mut draft = Draft::default();
        keys.group(key, value, |keys| compose(layout, keys, &mut draft))?;
        found = Some((*guid, key, draft.into_bytes()));
    }
    let raw = keys.take(Description::SECTION_TYPE)?;
    let (guid, mut bytes) = match (found, raw) {
        (Some((_, other, _)), Some(_)) => {
            return Err(keys.error(Description::SECTION_TYPE, EncodeProblem::SecondSection { other }));
        }
        (Some((guid, _, bytes)), None) => (guid, bytes),
        (None, Some(value)) => raw_section(keys, value)?,
        (None, None) => return Err(keys.own_error(EncodeProblem::Nothing)),
    };
    push_behind(keys, &mut bytes)?;
    Ok((guid, bytes))
}

/// A section as its type and its bytes.
fn raw_section(keys: &Keys<'_>, guid: &Value) -> Result<(Guid, Vec<u8>), EncodeError> {
    let parsed = match guid {
        Value::Text(text) => Guid::parse(text),
        _ => None,
    };
    let parsed = parsed.ok_or_else(|| {
        keys.error(Description::SECTION_TYPE, EncodeProblem::expected(guid, "a GUID as text"))
    })?;
    // Both say something about the bytes that is not among them.
    keys.take(Description::SECTION_NAME)?;
    keys.take(Description::BROKEN)?;
    let bytes = match keys.take(Description::SECTION)? {
        Some(value) => byte_string(value).map_err(|problem| keys.error(Description::SECTION, problem))?,
        None => Vec::new(),
    };
    Ok((parsed, bytes))
}

/// Adds the bytes behind what is described.
pub(super) fn push_behind(keys: &Keys<'_>, bytes: &mut Vec<u8>) -> Result<(), EncodeError> {
    if let Some(value) = keys.take(Description::BYTES_BEHIND)? {
        bytes.extend(byte_string(value).map_err(|problem| keys.error(Description::BYTES_BEHIND, problem))?);
    }
    push_zeros(keys, Description::ZERO_BYTES_BEHIND, bytes)
}

/// Adds the number of zeros of a key.
pub(super) fn push_zeros(
    keys: &Keys<'_>,
    name: &'static str,
    bytes: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    let Some(value) = keys.take(name)? else { return Ok(()) };
    let zeros = number(value, u32::MAX.into()).map_err(|problem| keys.error(name, problem))?;
    let len = bytes.len().saturating_add(zeros as usize);
    if len > MAX_LEN {
        return Err(keys.error(name, EncodeProblem::TooLong { max: MAX_LEN }));
    }
    bytes.resize(len, 0);
    Ok(())
}
