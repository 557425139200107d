//! TOML text as a tree in which every key and every value has its place.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use toml::de::{DeInteger, DeTable, DeValue};

use crate::diagnostic::{Diagnostic, Report, quoted, shortened};
use crate::source::{Document, Place};

/// A value and its place in the text.
#[derive(Clone, Debug)]
pub struct Node {
    /// The place of the value; for a `[table]` and an `[[array]]`, of its header.
    pub place: Place,
    /// The value.
    pub value: Value,
}

/// A TOML value.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Value {
    /// A string.
    Text(String),
    /// An integer, saturated to 128 bits.
    Integer(i128),
    /// A boolean.
    Boolean(bool),
    /// An array.
    Array(Vec<Node>),
    /// A table.
    Table(Table),
    /// A float, date or time: its type in TOML, with an article.
    Other(&'static str),
}

/// A TOML table.
#[derive(Clone, Debug, Default)]
pub struct Table {
    /// In the order of the text, followed by those that `--set` adds.
    pub(crate) entries: Vec<Entry>,
}

#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) place: Place,
    pub(crate) node: Node,
}

impl Value {
    /// Its type in TOML, with an article.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Value::Text(_) => "a string",
            Value::Integer(_) => "an integer",
            Value::Boolean(_) => "a boolean",
            Value::Array(_) => "an array",
            Value::Table(_) => "a table",
            Value::Other(kind) => kind,
        }
    }
}

impl Table {
    pub(crate) fn get(&self, name: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.name == name)
    }

    /// Visits every key below this table with its address, outer keys first. The places are those of the key and its value.
    pub(crate) fn walk<'a>(&'a self, prefix: &str, visit: &mut impl FnMut(String, &'a Place, &'a Place)) {
        for Entry { name, place, node } in &self.entries {
            let address = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
            visit(address.clone(), place, &node.place);
            match &node.value {
                Value::Table(table) => table.walk(&address, visit),
                Value::Array(items) => {
                    for (index, item) in items.iter().enumerate() {
                        if let Value::Table(table) = &item.value {
                            let address = format!("{address}.{index}");
                            visit(address.clone(), &item.place, &item.place);
                            table.walk(&address, visit);
                        }
                    }
                }
                _ => {}
            }
        }
    }
}

/// Parses a document. Syntax errors are reported, and the rest is parsed as far as possible.
pub(crate) fn parse_document(source: &Arc<Document>, report: &mut Report) -> Table {
    let (document, errors) = DeTable::parse_recoverable(&source.text);
    let root = table(document.get_ref(), source, 0);
    if !errors.is_empty() {
        let keys = Keys::of(&root);
        for error in errors {
            let place = Place::new(source, error.span().unwrap_or_default());
            report.push(syntax_error(&keys, place, error.message()));
        }
    }
    root
}

/// Parses the value that starts at byte `offset` of its source: as TOML, or as a bare string if it is not TOML.
pub(crate) fn parse_value(source: &Arc<Document>, offset: usize) -> Node {
    let text = source.text.get(offset..).unwrap_or_default();
    match DeValue::parse(text) {
        Ok(value) => node(value.get_ref(), value.span(), source, offset),
        Err(_) => {
            Node { place: Place::new(source, offset..source.text.len()), value: Value::Text(text.to_owned()) }
        }
    }
}

fn table(table: &DeTable<'_>, source: &Arc<Document>, offset: usize) -> Table {
    let mut entries: Vec<Entry> = table
        .iter()
        .map(|(key, value)| Entry {
            name: key.get_ref().clone().into_owned(),
            place: Place::new(source, shifted(key.span(), offset)),
            node: node(value.get_ref(), value.span(), source, offset),
        })
        .collect();
    entries.sort_by_key(|entry| entry.place.span().start);
    Table { entries }
}

fn node(value: &DeValue<'_>, span: std::ops::Range<usize>, source: &Arc<Document>, offset: usize) -> Node {
    let value = match value {
        DeValue::String(text) => Value::Text(text.clone().into_owned()),
        DeValue::Integer(number) => Value::Integer(integer(number)),
        DeValue::Boolean(flag) => Value::Boolean(*flag),
        DeValue::Float(_) => Value::Other("a float"),
        DeValue::Datetime(_) => Value::Other("a date or time"),
        DeValue::Array(items) => {
            Value::Array(items.iter().map(|item| node(item.get_ref(), item.span(), source, offset)).collect())
        }
        DeValue::Table(inner) => Value::Table(table(inner, source, offset)),
    };
    Node { place: Place::new(source, shifted(span, offset)), value }
}

fn integer(number: &DeInteger<'_>) -> i128 {
    let text = number.as_str();
    let saturated = if text.starts_with('-') { i128::MIN } else { i128::MAX };
    i128::from_str_radix(text, number.radix()).unwrap_or(saturated)
}

fn shifted(span: std::ops::Range<usize>, offset: usize) -> std::ops::Range<usize> {
    span.start + offset..span.end + offset
}

/// Every key of a document, to find those around a syntax error. There may be as many errors as keys, so each is found by a
/// search, and addresses are made for errors only.
struct Keys<'a> {
    all: Vec<KnownKey<'a>>,
    /// Positions in `all`, in the order of the text.
    order: Vec<usize>,
    /// The same, of the keys of each text.
    by_text: HashMap<&'a str, Vec<usize>>,
}

struct KnownKey<'a> {
    /// Position in `all` of the key whose value has this key.
    parent: Option<usize>,
    /// The position of its table in the array that is the parent's value.
    index: Option<usize>,
    name: &'a str,
    place: &'a Place,
    value: &'a Place,
}

impl<'a> Keys<'a> {
    fn of(root: &'a Table) -> Self {
        let mut all = Vec::new();
        Self::add(root, None, None, &mut all);
        let mut order: Vec<usize> = (0..all.len()).collect();
        order.sort_by_key(|&at| all[at].place.span().start);
        let mut by_text: HashMap<&str, Vec<usize>> = HashMap::new();
        for &at in &order {
            by_text.entry(all[at].place.text()).or_default().push(at);
        }
        Keys { all, order, by_text }
    }

    fn add(table: &'a Table, parent: Option<usize>, index: Option<usize>, all: &mut Vec<KnownKey<'a>>) {
        for Entry { name, place, node } in &table.entries {
            let at = all.len();
            all.push(KnownKey { parent, index, name, place, value: &node.place });
            match &node.value {
                Value::Table(table) => Self::add(table, Some(at), None, all),
                Value::Array(items) => {
                    for (index, item) in items.iter().enumerate() {
                        if let Value::Table(table) = &item.value {
                            Self::add(table, Some(at), Some(index), all);
                        }
                    }
                }
                _ => {}
            }
        }
    }

    /// The last key of this text that ends before an offset.
    fn before(&self, text: &str, offset: usize) -> Option<usize> {
        let same = self.by_text.get(text)?;
        let count = same.partition_point(|&at| self.all[at].place.span().end <= offset);
        count.checked_sub(1).map(|last| same[last])
    }

    /// The keys that start at an offset or before it, the nearest first.
    fn up_to(&self, offset: usize) -> impl Iterator<Item = usize> + '_ {
        let count = self.order.partition_point(|&at| self.all[at].place.span().start <= offset);
        self.order[..count].iter().rev().copied()
    }

    /// The address, as of `--set`, with long names shortened.
    fn address(&self, at: usize) -> String {
        let mut segments = Vec::new();
        let mut next = Some(at);
        while let Some(at) = next {
            let key = &self.all[at];
            segments.push(shortened(key.name));
            segments.extend(key.index.map(|index| index.to_string()));
            next = key.parent;
        }
        segments.reverse();
        segments.join(".")
    }
}

/// Values that are searched for the one around a syntax error: those of dotted keys are within each other.
const MAX_NESTED_VALUES: usize = 16;

fn syntax_error(keys: &Keys<'_>, place: Place, message: &str) -> Diagnostic {
    // The nearest key before the error on its line, the bare value around it, and the last key of the same name.
    let (start, end) = (place.span().start, place.span().end);
    let first = keys.before(place.text(), start).map(|at| (keys.address(at), keys.all[at].place));
    let on_line = keys.up_to(start).next().filter(|&at| keys.all[at].place.line() == place.line());
    let key = on_line.map_or_else(String::new, |at| keys.address(at));
    let around = |value: &&Place| {
        value.span().start <= start && end <= value.span().end && !value.text().starts_with(OPENING)
    };
    let values = keys.up_to(start).take(MAX_NESTED_VALUES).map(|at| keys.all[at].value);
    let bare = values.into_iter().find(around).map(Place::text);
    let text = place.text().to_owned();
    if message == "duplicate key" {
        let message = format!("{} is defined twice", quoted(&text));
        let duplicate = |key| Diagnostic::new(place.clone(), key, message, "remove one of the two");
        return match first {
            Some((address, first)) => duplicate(address).with_label(first, "first defined here"),
            None => duplicate(text),
        };
    }
    let (message, help) = match bare {
        Some("") => (format!("`{key}` has no value"), "write a value after the `=`".to_owned()),
        Some(bare) => (
            format!("{} is not valid TOML: {message}", quoted(bare)),
            format!("write it in quotes: `\"{bare}\"`"),
        ),
        None if text.trim().is_empty() => {
            (format!("this is not valid TOML: {message}"), SYNTAX_HELP.to_owned())
        }
        None => (format!("{} is not valid TOML: {message}", quoted(&text)), SYNTAX_HELP.to_owned()),
    };
    Diagnostic::new(place, key, message, help)
}

/// The lines that these syntax errors make unreliable: the line of each error, and below a broken header all lines up to
/// the next header.
pub(crate) fn unparsed_lines(errors: &[Diagnostic]) -> HashSet<usize> {
    let mut unparsed = HashSet::new();
    for error in errors {
        let line = error.line();
        if !unparsed.insert(line) {
            continue;
        }
        let header = |text: &str| text.trim_start().starts_with('[');
        let mut lines = error.source().text.get(error.place.lines().start..).unwrap_or_default().lines();
        if lines.next().is_some_and(header) {
            unparsed.extend((line + 1..).zip(lines.take_while(|text| !header(text))).map(|(line, _)| line));
        }
    }
    unparsed
}

/// The first character of every value that is not bare.
const OPENING: [char; 4] = ['"', '\'', '[', '{'];
const SYNTAX_HELP: &str =
    "a section starts with a line `[section]`, and a key is set by a line `key = value`";
