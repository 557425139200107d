//! Reads sections by the declarations of their keys, and reports every violation.

use crate::description::{Default, DeviceKeys, Key, Optional, Required, Section, Shape};
use crate::diagnostic::{Diagnostic, Report, Reported, quoted};
use crate::forms::{Form, ValueError, listed};
use crate::keys::{self, SECTIONS};
use crate::source::Place;
use crate::suggest::closest;
use crate::tree::{Entry, Node, Table, Value};

/// The value of a key, and its place.
#[derive(Clone, Debug)]
pub struct Setting<T> {
    /// The value.
    pub value: T,
    /// Its key as `--set` addresses it: `machine.vcpus`, `device.0.path`.
    pub key: String,
    /// The place of the value, or of the section if the key was omitted.
    pub place: Place,
    /// Whether the profile gives it; `false` for a default.
    pub given: bool,
}

/// A setting, or the proof that it was reported as wrong or missing.
pub type SettingResult<T> = Result<Setting<T>, Reported>;

impl<T> Setting<T> {
    /// The setting with another value.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Setting<U> {
        Setting { value: change(self.value), key: self.key, place: self.place, given: self.given }
    }

    /// A diagnostic that refuses this value.
    pub(crate) fn refused(&self, reason: impl std::fmt::Display, help: impl Into<String>) -> Diagnostic {
        Diagnostic::refused(&self.place, &self.key, reason, help)
    }
}

/// A section that is being read.
pub(crate) struct SectionReader<'a> {
    /// Its address, as in `--set`.
    address: String,
    place: Place,
    content: Content<'a>,
}

#[derive(Clone, Copy)]
enum Content<'a> {
    Table(&'a Table),
    Absent,
    Unreadable(Reported),
}

/// Reports unknown sections. Returns the names of the sections that diagnostics suggested for them.
pub(crate) fn unknown_sections(
    root: &Table,
    device_keys: DeviceKeys<'_>,
    report: &mut Report,
) -> Vec<(&'static str, Reported)> {
    let mut suggested = Vec::new();
    for Entry { name, place, .. } in &root.entries {
        if SECTIONS.iter().any(|section| section.name == name) {
            continue;
        }
        let suggestion = closest(name, SECTIONS.iter().map(|section| section.name));
        let help = match (section_with_key(name, device_keys), suggestion.and_then(keys::section)) {
            (Some(section), None) => {
                format!("`{name}` is a key of `{}`: move it below that line", section.header())
            }
            (_, Some(section)) => format!("did you mean `{}`?", section.header()),
            (None, None) => {
                format!("the sections are {}", listed(SECTIONS.iter().map(|s| quoted(s.name)), "and"))
            }
        };
        let message = format!("unknown section {}", quoted(name));
        let reported = report.push(Diagnostic::new(place.clone(), name, message, help));
        suggested.extend(suggestion.map(|name| (name, reported)));
    }
    suggested
}

impl<'a> SectionReader<'a> {
    /// Opens a section that may be given once. `suggested` are the names that diagnostics suggested for unknown sections:
    /// such a section is not reported as missing. `start` is the place of a section that is omitted.
    pub(crate) fn open(
        section: &Section,
        root: &'a Table,
        suggested: &[(&str, Reported)],
        start: &Place,
        device_keys: DeviceKeys<'_>,
        report: &mut Report,
    ) -> SectionReader<'a> {
        let address = section.name.to_owned();
        let content = match (root.get(section.name), &section.shape) {
            (Some(Entry { node, .. }), Shape::Once { keys, .. }) => {
                let known: Vec<_> = keys.iter().map(|key| key.name()).collect();
                return SectionReader::of_node(section, address, node, report).reject_unknown_keys(
                    &known,
                    device_keys,
                    report,
                );
            }
            (None, Shape::Once { required: true, .. }) => {
                let misspelt = suggested.iter().find(|(name, _)| *name == section.name);
                Content::Unreadable(
                    misspelt.map_or_else(|| report.push(missing(section, start)), |&(_, reported)| reported),
                )
            }
            _ => Content::Absent,
        };
        SectionReader { address, place: start.clone(), content }
    }

    /// Opens every entry of a section that may be given several times.
    pub(crate) fn open_all(
        section: &Section,
        root: &'a Table,
        report: &mut Report,
    ) -> Result<Vec<SectionReader<'a>>, Reported> {
        let Some(Entry { node, .. }) = root.get(section.name) else { return Ok(Vec::new()) };
        let Value::Array(items) = &node.value else {
            let help = format!("write `{}`: every entry starts with that line", section.header());
            let reason = format!("expected a list of entries, got {}", node.value.kind());
            return Err(report.push(Diagnostic::refused(&node.place, section.name, reason, help)));
        };
        Ok(items
            .iter()
            .enumerate()
            .map(|(index, item)| {
                SectionReader::of_node(section, format!("{}.{index}", section.name), item, report)
            })
            .collect())
    }

    fn of_node(section: &Section, address: String, node: &'a Node, report: &mut Report) -> SectionReader<'a> {
        let content = match &node.value {
            Value::Table(table) => Content::Table(table),
            other => {
                let help = format!("write `{}` once, and its keys below that line", section.header());
                let reason = format!("expected a section, got {}", other.kind());
                Content::Unreadable(report.push(Diagnostic::refused(&node.place, &address, reason, help)))
            }
        };
        SectionReader { address, place: node.place.clone(), content }
    }

    /// Reports every key that is not one of `known`.
    pub(crate) fn reject_unknown_keys(
        self,
        known: &[&'static str],
        device_keys: DeviceKeys<'_>,
        report: &mut Report,
    ) -> SectionReader<'a> {
        let Content::Table(table) = self.content else { return self };
        for Entry { name, place, .. } in &table.entries {
            if known.contains(&name.as_str()) {
                continue;
            }
            let help = match (closest(name, known.iter().copied()), section_with_key(name, device_keys)) {
                (Some(close), _) => format!("did you mean `{close}`?"),
                (None, Some(section)) => format!("it is a key of `{}`", section.header()),
                (None, None) => format!("the keys are {}", listed(known.iter().copied().map(quoted), "and")),
            };
            let key = format!("{}.{name}", self.address);
            let message = format!("unknown key {}", quoted(&key));
            report.push(Diagnostic::new(place.clone(), key, message, help));
        }
        self
    }

    /// The place of the section.
    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    /// A diagnostic of a section that lacks something, at its start.
    pub(crate) fn incomplete(&self, reason: impl std::fmt::Display, help: impl Into<String>) -> Diagnostic {
        let message = format!("`{}` {reason}", self.address);
        Diagnostic::new(self.place.clone(), &self.address, message, help)
    }

    /// The value of a key with a default.
    pub(crate) fn value<F: Form>(
        &self,
        key: &Key<F, Default<F::Value>>,
        report: &mut Report,
    ) -> SettingResult<F::Value> {
        Ok(self.read(key, report)?.unwrap_or_else(|| Setting {
            value: key.absent.0.clone(),
            key: self.address_of(key.name),
            place: self.place.clone(),
            given: false,
        }))
    }

    /// The value of an optional key.
    pub(crate) fn optional<F: Form>(
        &self,
        key: &Key<F, Optional>,
        report: &mut Report,
    ) -> Result<Option<Setting<F::Value>>, Reported> {
        self.read(key, report)
    }

    /// The value of a required key.
    pub(crate) fn required_value<F: Form>(
        &self,
        key: &Key<F, Required>,
        report: &mut Report,
    ) -> SettingResult<F::Value> {
        self.read(key, report)?.ok_or_else(|| {
            let address = self.address_of(key.name);
            let message = format!("`{address}` is missing: expected {}", key.form.expected());
            let help = format!("add a line `{} = {}`", key.name, key.form.example());
            report.push(Diagnostic::new(self.place.clone(), address, message, help))
        })
    }

    fn read<F: Form, A>(
        &self,
        key: &Key<F, A>,
        report: &mut Report,
    ) -> Result<Option<Setting<F::Value>>, Reported> {
        let table = match self.content {
            Content::Table(table) => table,
            Content::Absent => return Ok(None),
            Content::Unreadable(reported) => return Err(reported),
        };
        let Some(Entry { node, .. }) = table.get(key.name) else { return Ok(None) };
        let address = self.address_of(key.name);
        match key.form.read(&node.value) {
            Ok(value) => Ok(Some(Setting { value, key: address, place: node.place.clone(), given: true })),
            Err(error) => Err(report.push(value_diagnostic(error, key, &address, node))),
        }
    }

    fn address_of(&self, key: &str) -> String {
        format!("{}.{key}", self.address)
    }
}

fn missing(section: &Section, start: &Place) -> Diagnostic {
    let header = section.header();
    let message = format!("the section `{header}` is missing");
    let help = format!("add a line `{header}`; its keys are optional");
    Diagnostic::new(start.clone(), section.name, message, help)
}

fn value_diagnostic<F: Form, A>(
    error: ValueError,
    key: &Key<F, A>,
    address: &str,
    node: &Node,
) -> Diagnostic {
    match error {
        ValueError::Invalid { reason, help } => Diagnostic::refused(&node.place, address, reason, help),
        ValueError::WrongType => {
            let reason = format!("expected {}, got {}", key.form.expected(), node.value.kind());
            let help = requoted(&key.form, node)
                .unwrap_or_else(|| format!("for example `{} = {}`", key.name, key.form.example()));
            Diagnostic::refused(&node.place, address, reason, help)
        }
    }
}

/// The suggestion if only the quotes are wrong.
fn requoted<F: Form>(form: &F, node: &Node) -> Option<String> {
    let bare = match &node.value {
        Value::Text(text) => {
            let value = match text.parse() {
                Ok(number) => Value::Integer(number),
                Err(_) => Value::Boolean(text.parse().ok()?),
            };
            form.read(&value).ok()?;
            return Some(format!("write it without quotes: `{text}`"));
        }
        Value::Integer(_) | Value::Boolean(_) | Value::Other(_) => node.place.text(),
        Value::Array(_) | Value::Table(_) => return None,
    };
    form.read(&Value::Text(bare.to_owned())).ok()?;
    Some(format!("write it in quotes: `\"{bare}\"`"))
}

/// The section that has a key of that name.
fn section_with_key(key: &str, device_keys: DeviceKeys<'_>) -> Option<&'static Section> {
    SECTIONS.iter().copied().find(|section| section.has_key(key, device_keys))
}
