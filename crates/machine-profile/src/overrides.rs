//! `--set path=value`.

use std::str::FromStr;
use std::sync::Arc;

use crate::description::Shape;
use crate::diagnostic::{Diagnostic, Report, quoted};
use crate::keys;
use crate::source::{Place, Source};
use crate::tree::{self, Entry, Node, Table, Value};

/// One key and the value that replaces the profile's.
///
/// The path is `section.key`, or `device.INDEX.key` with the index of the entry from 0; one past the last adds an entry.
/// The value is read as TOML where it is TOML, else as a bare string: `machine.vcpus=4`, `machine.memory=2GiB`,
/// `boot.cmdline=console=ttyS0`.
#[derive(Clone, Debug)]
pub struct Override {
    source: Arc<Source>,
    path: Vec<Segment>,
    value: Node,
}

#[derive(Clone, Debug)]
struct Segment {
    name: String,
    place: Place,
}

impl Override {
    /// Reads what follows `--set`.
    ///
    /// # Errors
    ///
    /// There is no `=`, or what stands before it is no path of a key.
    pub fn parse(text: &str) -> Result<Override, Diagnostic> {
        let source = Arc::new(Source { name: "--set".to_owned(), text: text.to_owned() });
        let refused = |span, message: &str| {
            let message = format!("{} {message}", quoted(text));
            Diagnostic::new(Place::new(&source, span), "", message, HELP)
        };
        let Some((path_text, _)) = text.split_once('=') else {
            return Err(refused(0..text.len(), "sets nothing: it has no `=`"));
        };
        let path = segments(&source, path_text);
        if path.iter().any(|segment| segment.name.is_empty()) {
            return Err(refused(0..path_text.len(), "names no key"));
        }
        let many =
            |name: &str| keys::section(name).is_some_and(|section| matches!(section.shape, Shape::Devices));
        let well_formed = match path.as_slice() {
            [section, index, _] => many(&section.name) && index.name.parse::<usize>().is_ok(),
            [section, _] => !many(&section.name),
            _ => false,
        };
        if !well_formed {
            return Err(refused(0..path_text.len(), "names no key"));
        }
        let value = tree::parse_value(&source, path_text.len() + 1);
        Ok(Override { source, path, value })
    }

    pub(crate) fn source(&self) -> &Arc<Source> {
        &self.source
    }

    /// Puts the value into its place. What it displaces is gone, and so is everything that was wrong with it.
    pub(crate) fn apply(&self, root: &mut Table, report: &mut Report) {
        match self.path.as_slice() {
            [section, key] => {
                let entry = entry(root, section, Value::Table(Table::default()));
                // A section that is no table stays as it is: it is reported where it stands.
                if let Value::Table(table) = &mut entry.node.value {
                    self.put(table, key);
                }
            }
            [section, index, key] => {
                let entry = entry(root, section, Value::Array(Vec::new()));
                if let Value::Array(items) = &mut entry.node.value {
                    self.put_in_item(items, index, key, report);
                }
            }
            _ => {}
        }
    }

    fn put_in_item(&self, items: &mut Vec<Node>, index: &Segment, key: &Segment, report: &mut Report) {
        let count = items.len();
        let position = index.name.parse().unwrap_or(usize::MAX);
        if position == count {
            items.push(Node { place: index.place.clone(), value: Value::Table(Table::default()) });
        }
        match items.get_mut(position).map(|item| &mut item.value) {
            Some(Value::Table(table)) => self.put(table, key),
            Some(_) => {}
            None => {
                let address: Vec<&str> = self.path.iter().map(|segment| segment.name.as_str()).collect();
                report.push(Diagnostic::new(
                    index.place.clone(),
                    address.join("."),
                    format!("there is no entry {}: the profile has {count}", quoted(&index.name)),
                    format!("count from 0; `{count}` adds an entry"),
                ));
            }
        }
    }

    fn put(&self, table: &mut Table, key: &Segment) {
        let new = Entry { name: key.name.clone(), place: key.place.clone(), node: self.value.clone() };
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

const HELP: &str = "write `section.key=value`, for example `machine.vcpus=4` or `device.0.path=disk.img`";

fn segments(source: &Arc<Source>, path: &str) -> Vec<Segment> {
    let mut start = 0;
    path.split('.')
        .map(|segment| {
            let place = Place::new(source, start..start + segment.len());
            start += segment.len() + 1;
            Segment { name: segment.to_owned(), place }
        })
        .collect()
}

/// The section's entry, made of `empty` where the profile has none.
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
