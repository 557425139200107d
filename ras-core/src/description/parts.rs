//! Everything in a file.

use super::Description;
use crate::decoded::{Content, Part};

/// Bytes of unknown parts that are shown. A file that is not one of error records has no use for more.
const SHOWN_BYTES: usize = 256;

/// The names of the attributes of an EFI variable, lowest bit first (UEFI 2.10, 8.2, GetVariable).
const ATTRIBUTES: [&str; 8] = [
    "non-volatile",
    "boot-service-access",
    "runtime-access",
    "hardware-error-record",
    "authenticated-write-access",
    "time-based-authenticated-write-access",
    "append-write",
    "enhanced-authenticated-access",
];

impl Description {
    /// The fields of a single block, record or section; of several, a list of each kind. Then what else is in the file.
    pub(crate) fn of_parts(parts: &[Part<'_>]) -> Self {
        let mut records = parts.iter().filter(|part| part.is_record());
        let description = match (records.next(), records.next()) {
            (Some(only), None) => Description::of_part(only),
            _ => Description::default()
                .list("block", located(parts, |content| matches!(content, Content::Block(..))))
                .list("record", located(parts, |content| matches!(content, Content::Record(..))))
                .list("section", located(parts, |content| matches!(content, Content::Section(..)))),
        };
        let zeros: usize = parts
            .iter()
            .map(|part| match part.content {
                Content::Zeros(len) => len,
                _ => 0,
            })
            .sum();
        description
            .when(zeros > 0, |described| described.number("zero_bytes", zeros as u64))
            .list("undecoded", located(parts, |content| matches!(content, Content::Unknown(..))))
    }

    fn of_part(part: &Part<'_>) -> Self {
        match &part.content {
            Content::Block(block, problem) => Description::of_block(block).warnings(problem),
            Content::Record(attributes, record, problems) => {
                let description = Description::of_record(record).warnings(problems);
                match attributes {
                    Some(attributes) => description.flags("variable_attributes", *attributes, &ATTRIBUTES),
                    None => description,
                }
            }
            Content::Section(descriptor, section, bytes) => {
                Description::of_record_section(descriptor, *section, bytes)
            }
            Content::Unknown(bytes, error) => Description::default()
                .number("length", bytes.len() as u64)
                .text("broken", error)
                .bytes("bytes", bytes.get(..SHOWN_BYTES).unwrap_or(bytes)),
            Content::Zeros(_) => Description::default(),
        }
    }
}

/// The parts of one kind, each after its offset in the file.
fn located<'a>(
    parts: &'a [Part<'a>],
    is_kind: impl Fn(&Content<'_>) -> bool + 'a,
) -> impl Iterator<Item = Description> + 'a {
    parts.iter().filter(move |part| is_kind(&part.content)).map(|part| {
        let mut located = Description::default().hex("offset", part.offset as u64);
        located.fields.extend(Description::of_part(part).fields);
        located
    })
}
