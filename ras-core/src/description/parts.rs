//! Everything in a file.

use alloc::string::ToString;

use super::{Description, Value};
use crate::cper::record::SectionDescriptor;
use crate::decoded::{Content, Part};

/// Bytes of unknown parts that are shown. A file that is not one of error records has no use for more.
const SHOWN_BYTES: usize = 256;

impl Description {
    /// The names of the attributes of an EFI variable, lowest bit first (UEFI 2.10, 8.2, GetVariable).
    pub(crate) const ATTRIBUTES: [&str; 8] = [
        "non-volatile",
        "boot-service-access",
        "runtime-access",
        "hardware-error-record",
        "authenticated-write-access",
        "time-based-authenticated-write-access",
        "append-write",
        "enhanced-authenticated-access",
    ];

    /// The fields of a single block, record or section; of several, a list of each kind. Then what else is in the file.
    pub(crate) fn of_parts(parts: &[Part<'_>]) -> Self {
        let mut records = parts.iter().filter(|part| part.is_record());
        let mut description = match (records.next(), records.next()) {
            (Some(only), None) if only.offset == 0 => Description::of_part(only),
            (Some(only), None) => Description::located(only),
            _ => {
                let mut lists = Description::default();
                lists.add_list("block", located(parts, |content| matches!(content, Content::Block(..))));
                lists.add_list("record", located(parts, |content| matches!(content, Content::Record(..))));
                lists.add_list(
                    Self::SECTION,
                    located(parts, |content| matches!(content, Content::Section(..))),
                );
                lists
            }
        };
        let zeros: usize = parts
            .iter()
            .map(|part| match part.content {
                Content::Zeros(len) => len,
                _ => 0,
            })
            .sum();
        if zeros > 0 {
            description.add(Self::ZERO_BYTES, Value::Number(zeros as u64));
        }
        description.add_list("undecoded", located(parts, |content| matches!(content, Content::Unknown(..))));
        description
    }

    fn of_part(part: &Part<'_>) -> Self {
        let mut description = Description::default();
        match &part.content {
            Content::Block(block, problem) => {
                description = Description::of_block(block);
                description.add_warnings(problem);
            }
            Content::Record(attributes, record, problems) => {
                description = Description::of_record(record);
                description.add_warnings(problems);
                if let Some(attributes) = attributes {
                    description.add_flags(Self::VARIABLE_ATTRIBUTES, (*attributes).into(), &Self::ATTRIBUTES);
                }
            }
            Content::Section(section) => {
                let behind_descriptor = size_of::<SectionDescriptor>();
                description = Description::of_record_section(section, behind_descriptor);
                let offset = section.descriptor.offset.get();
                if offset as usize != behind_descriptor {
                    description.add(Self::SECTION_OFFSET, Value::Hex(offset.into()));
                }
            }
            Content::Unknown(bytes, error) => {
                description.add("length", Value::Number(bytes.len() as u64));
                description.add(Self::BROKEN, Value::Text(error.to_string()));
                description.add("bytes", Value::Bytes(bytes.get(..SHOWN_BYTES).unwrap_or(bytes).to_vec()));
            }
            Content::Zeros(_) => {}
        }
        description
    }

    /// A part after its offset in the file.
    fn located(part: &Part<'_>) -> Self {
        let mut located = Description::default();
        located.add(Self::OFFSET, Value::Hex(part.offset as u64));
        located.fields.extend(Description::of_part(part).fields);
        located
    }
}

/// The parts of one kind.
fn located<'a>(
    parts: &'a [Part<'a>],
    is_kind: impl Fn(&Content<'_>) -> bool + 'a,
) -> impl Iterator<Item = Description> + 'a {
    parts.iter().filter(move |part| is_kind(&part.content)).map(Description::located)
}
