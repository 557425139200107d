//! `--set path=value`.

use std::str::FromStr;
use std::sync::Arc;

use crate::description::Shape;
use crate::diagnostic::{Diagnostic, Report, quoted};
use crate::keys;
use crate::source::{Document, Place, Source};
use crate::tree::{self, Entry, Node, Table, Value};

/// A key, and the value that replaces the profile's.
///
/// The path is `section.key`, or `device.INDEX.key` with the index of the entry from 0; one past the last adds an entry.
/// The value is read as TOML, or as a bare string if it is not TOML: `machine.vcpus=4`, `machine.memory=2GiB`,
/// `boot.cmdline=console=ttyS0`. Nothing after the `=` of a key that has no default and may be omitted removes it: `boot.initrd=`.
#[derive(Clone, Debug)]
pub struct Override {
    source: Arc<Document>,
    path: Vec<Segment>,
    /// `None` removes the key.
    value: Option<Node>,
}

#[derive(Clone, Debug)]
struct Segment {
    name: String,
    place: Place,
}

impl Override {
    /// Parses the argument of `--set`.
    ///
    /// # Errors
    ///
    /// Returns an error if the text has no `=`, or the text before it is not the path of a key.
    pub fn parse(text: &str) -> Result<Override, Diagnostic> {
        let source = Document::new(Source { name: "--set".to_owned(), text: text.to_owned() });
        let refused = |span, message: &str| {
            let message = format!("{} {message}", quoted(text));
            Diagnostic::new(Place::new(&source, span), "", message, HELP)
        };
        let Some((path_text, value_text)) = text.split_once('=') else {
            return Err(refused(0..text.len(), "has no `=`"));
        };
        let path = segments(&source, path_text);
        if path.iter().any(|segment| segment.name.is_empty()) {
            return Err(refused(0..path_text.len(), "does not name a key"));
        }
        let is_list =
            |name: &str| keys::section(name).is_some_and(|section| matches!(section.shape, Shape::Devices));
        let well_formed = match path.as_slice() {
            [section, index, _] => is_list(&section.name) && index.name.parse::<usize>().is_ok(),
            [section, _] => !is_list(&section.name),
            _ => false,
        };
        if !well_formed {
            return Err(refused(0..path_text.len(), "does not name a key"));
        }
        let removes = value_text.is_empty() && is_optional(&path);
        let value = (!removes).then(|| tree::parse_value(&source, path_text.len() + 1));
        Ok(Override { source, path, value })
    }

    pub(crate) fn source(&self) -> &Arc<Document> {
        &self.source
    }

    /// Sets the value. A value that it replaces is not checked any more.
    pub(crate) fn apply(&self, root: &mut Table, report: &mut Report) {
        match self.path.as_slice() {
            [section, key] => {
                let entry = entry(root, section, Value::Table(Table::default()));
                // A section that is not a table stays as it is: the reader reports it.
                if let Value::Table(table) = &mut entry.node.value {
                    self.set(table, key);
                }
            }
            [section, index, key] => {
                let entry = entry(root, section, Value::Array(Vec::new()));
                if let Value::Array(items) = &mut entry.node.value {
                    self.set_in_item(items, index, key, report);
                }
            }
            _ => {}
        }
    }

    fn set_in_item(&self, items: &mut Vec<Node>, index: &Segment, key: &Segment, report: &mut Report) {
        let count = items.len();
        let position = index.name.parse().unwrap_or(usize::MAX);
        if position == count {
            items.push(Node { place: index.place.clone(), value: Value::Table(Table::default()) });
        }
        match items.get_mut(position).map(|item| &mut item.value) {
            Some(Value::Table(table)) => self.set(table, key),
            Some(_) => {}
            None => {
                let address: Vec<&str> = self.path.iter().map(|segment| segment.name.as_str()).collect();
                report.push(Diagnostic::new(
                    index.place.clone(),
                    address.join("."),
                    format!(
                        "`{}` has no entry {}: the profile has {count}",
                        self.path[0].name,
                        quoted(&index.name)
                    ),
                    format!("count from 0; `{count}` adds an entry"),
                ));
            }
        }
    }

    fn set(&self, table: &mut Table, key: &Segment) {
        let Some(node) = self.value.clone() else {
            return table.entries.retain(|entry| entry.name != key.name);
        };
        let new = Entry { name: key.name.clone(), place: key.place.clone(), node };
        match table.entries.iter_mut().find(|entry| entry.name == key.name) {
            Some(entry) => *entry = new,
            None => table.entries.push(new),
        }
    }
}

impl FromStr for Override {
    type Err = Diagnostic;

    fn from_str(text: &str) -> Result<Override, Diagnostic> {
        Override::parse(text)
    }
}

/// Whether a path is that of a key without a default that may be omitted. None of them has an empty value.
fn is_optional(path: &[Segment]) -> bool {
    let [section, key] = path else { return false };
    let shape = keys::section(&section.name).map(|section| &section.shape);
    let Some(Shape::Once { keys, .. }) = shape else { return false };
    keys.iter().any(|known| known.name() == key.name && known.note().is_some())
}

const HELP: &str = "write `section.key=value`, for example `machine.vcpus=4` or `device.0.path=disk.img`";

fn segments(source: &Arc<Document>, path: &str) -> Vec<Segment> {
    let mut start = 0;
    path.split('.')
        .map(|segment| {
            let place = Place::new(source, start..start + segment.len());
            start += segment.len() + 1;
            Segment { name: segment.to_owned(), place }
        })
        .collect()
}

/// The section's entry; added with the value `empty` if the profile has none.
fn entry<'a>(root: &'a mut Table, section: &Segment, empty: Value) -> &'a mut Entry {
    let position = root.entries.iter().position(|entry| entry.name == section.name).unwrap_or_else(|| {
        root.entries.push(Entry {
            name: section.name.clone(),
            place: section.place.clone(),
            node: Node { place: section.place.clone(), value: empty },
        });
        root.entries.len() - 1
    });
    &mut root.entries[position]
}
