//! What can be said of a key and of a section.

use serde_json::{Value as Json, json};

use crate::forms::{Form, Words};
use crate::keys::device;

/// A key: its name within its section, its form, and what holds where a profile leaves it out.
pub(crate) struct Key<F, A> {
    pub(crate) name: &'static str,
    pub(crate) doc: &'static str,
    pub(crate) form: F,
    pub(crate) absent: A,
}

/// A profile cannot leave it out.
pub(crate) struct Required;
/// A profile may leave it out; the text says what holds then.
pub(crate) struct Optional(pub(crate) &'static str);
/// A profile may leave it out, and then it has this value.
pub(crate) struct Default<V>(pub(crate) V);

/// What holds where a key is left out, as a schema says it.
pub(crate) trait Absent<F>: Sync {
    const REQUIRED: bool = false;

    /// In words.
    fn note(&self) -> Option<&'static str> {
        None
    }

    /// As a value.
    fn default(&self, _: &F) -> Option<Json> {
        None
    }
}

impl<F> Absent<F> for Required {
    const REQUIRED: bool = true;
}

impl<F> Absent<F> for Optional {
    fn note(&self) -> Option<&'static str> {
        Some(self.0)
    }
}

impl<F: Form> Absent<F> for Default<F::Value> {
    fn default(&self, form: &F) -> Option<Json> {
        Some(form.write(&self.0))
    }
}

/// A key, whatever its value is.
pub(crate) trait Described: Sync {
    fn name(&self) -> &'static str;
    fn required(&self) -> bool;
    fn schema(&self) -> Json;
}

impl<F: Form, A: Absent<F>> Described for Key<F, A> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn required(&self) -> bool {
        A::REQUIRED
    }

    fn schema(&self) -> Json {
        let mut schema = self.form.schema();
        schema["description"] = match self.absent.note() {
            Some(note) => json!(format!("{} Left out: {note}.", self.doc)),
            None => json!(self.doc),
        };
        if let Some(default) = self.absent.default(&self.form) {
            schema["default"] = default;
        }
        schema
    }
}

/// The keys of a section.
pub(crate) type Keys = &'static [&'static dyn Described];

/// A section.
pub(crate) struct Section {
    pub(crate) name: &'static str,
    pub(crate) doc: &'static str,
    pub(crate) shape: Shape,
}

/// How a section is written.
pub(crate) enum Shape {
    /// `[name]`, once.
    Once { required: bool, keys: Keys },
    /// `[[name]]`, as often as wanted: its type says which keys an entry has.
    Many { kind: &'static Key<Words<device::Type>, Required>, keys: fn(device::Type) -> Keys },
}

impl Section {
    /// The names of all its keys.
    pub(crate) fn key_names(&self) -> Vec<&'static str> {
        match &self.shape {
            Shape::Once { keys, .. } => keys.iter().map(|key| key.name()).collect(),
            Shape::Many { kind, keys } => {
                kind.form.0.iter().flat_map(|word| keys(word.value)).map(|key| key.name()).collect()
            }
        }
    }

    /// Its header, as TOML has it.
    pub(crate) fn header(&self) -> String {
        match self.shape {
            Shape::Once { .. } => format!("[{}]", self.name),
            Shape::Many { .. } => format!("[[{}]]", self.name),
        }
    }
}
