//! What is printed about a file with error records.

use ras_core::{Decoded, Description, Value};

/// The printed form of a file.
pub(crate) fn text(bytes: &[u8]) -> String {
    Decoded::read(bytes).expect("a file with a record").describe().to_string()
}

/// The values of a name that are no groups, printed, at any depth and in their order.
pub(crate) fn values(bytes: &[u8], name: &str) -> Vec<String> {
    fn collect(description: &Description, name: &str, found: &mut Vec<String>) {
        for (field, value) in description.fields() {
            match value {
                Value::Group(group) => collect(group, name, found),
                Value::List(groups) => groups.iter().for_each(|group| collect(group, name, found)),
                value if *field == name => found.push(value.to_string()),
                _ => {}
            }
        }
    }
    let mut found = Vec::new();
    collect(&Decoded::read(bytes).expect("a file with a record").describe(), name, &mut found);
    found
}
