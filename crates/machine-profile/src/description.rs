//! Declarations of keys and sections.

use serde_json::{Value as Json, json};

use crate::forms::Form;

/// A key of a section.
pub struct Key<F, A> {
    /// Its name within the section.
    pub name: &'static str,
    /// One sentence about it, for the schema and the reference.
    pub doc: &'static str,
    /// The values that it accepts.
    pub form: F,
    /// What applies if a profile omits the key: [`Required`], [`Optional`] or [`struct@Default`].
    pub absent: A,
}

/// The key must be given.
pub struct Required;
/// The key may be omitted; the text describes what applies then.
pub struct Optional(pub &'static str);
/// The key may be omitted; then it has this value.
pub struct Default<V>(pub V);

/// What applies if a key is omitted, as a schema expresses it.
pub trait Absent<F>: Sync {
    /// Whether the key must be given.
    const REQUIRED: bool = false;

    /// What applies, as a phrase.
    fn note(&self) -> Option<&'static str> {
        None
    }

    /// The default value, as JSON.
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
        Some(form.to_json(&self.0))
    }
}

/// A key without the type of its value.
pub trait KeySchema: Sync {
    /// Its name within the section.
    fn name(&self) -> &'static str;
    /// Whether it must be given.
    fn required(&self) -> bool;
    /// One sentence about it.
    fn doc(&self) -> &'static str;
    /// The values that it accepts, as a phrase.
    fn values(&self) -> String;
    /// What applies if it is omitted, as a phrase; `None` if it has a default, or must be given.
    fn note(&self) -> Option<&'static str>;
    /// An example value in TOML.
    fn example(&self) -> String;
    /// JSON Schema of its value.
    fn schema(&self) -> Json;
}

impl<F: Form, A: Absent<F>> KeySchema for Key<F, A> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn required(&self) -> bool {
        A::REQUIRED
    }

    fn doc(&self) -> &'static str {
        self.doc
    }

    fn values(&self) -> String {
        let limits = self.form.limits().map(|limits| format!(", {limits}"));
        self.form.expected() + &limits.unwrap_or_default()
    }

    fn note(&self) -> Option<&'static str> {
        self.absent.note()
    }

    fn example(&self) -> String {
        self.form.example()
    }

    fn schema(&self) -> Json {
        let mut schema = self.form.schema();
        let limits = self.form.limits().map(|limits| format!(" Values: {limits}."));
        let note = self.absent.note().map(|note| format!(" If omitted: {note}."));
        schema["description"] =
            json!([Some(self.doc.to_owned()), limits, note].map(Option::unwrap_or_default).concat());
        if let Some(default) = self.absent.default(&self.form) {
            schema["default"] = default;
        }
        schema
    }
}

/// The names of all keys of all kinds of devices.
pub(crate) type DeviceKeys<'a> = &'a [&'static str];

/// The keys of a section.
pub type Keys = &'static [&'static dyn KeySchema];

/// A section.
pub(crate) struct Section {
    pub(crate) name: &'static str,
    pub(crate) doc: &'static str,
    pub(crate) shape: Shape,
}

/// How often a section may be given, and its keys.
pub(crate) enum Shape {
    /// `[name]`, once.
    Once { required: bool, keys: Keys },
    /// `[[device]]`, any number of times: the kind of each entry declares its keys.
    Devices,
}

impl Section {
    /// Whether it has a key of that name.
    pub(crate) fn has_key(&self, name: &str, device_keys: DeviceKeys<'_>) -> bool {
        match &self.shape {
            Shape::Once { keys, .. } => keys.iter().any(|key| key.name() == name),
            Shape::Devices => device_keys.contains(&name),
        }
    }

    /// Its header in TOML.
    pub(crate) fn header(&self) -> String {
        match self.shape {
            Shape::Once { .. } => format!("[{}]", self.name),
            Shape::Devices => format!("[[{}]]", self.name),
        }
    }
}
