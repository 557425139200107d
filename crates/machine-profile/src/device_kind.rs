//! Kinds of `[[device]]`: what the caller of [`parse`](crate::parse) provides for each value of the `type` key.
//!
//! This crate defines no kind of device. A [`DeviceKind`] declares the keys of its section, and makes a configuration of its
//! own type from them. Reading, diagnostics and the JSON Schema follow from the declaration.
//!
//! ```
//! use std::path::PathBuf;
//!
//! use machine_profile::device_kind::*;
//! use machine_profile::{Source, parse};
//! use platform::Arch;
//!
//! /// `type = "pmem"`.
//! struct Pmem;
//!
//! #[derive(Debug, PartialEq)]
//! struct Config {
//!     path: PathBuf,
//!     read_only: bool,
//! }
//!
//! static PATH: Key<FilePath, Required> = Key {
//!     name: "path",
//!     doc: "The backing file, relative to the profile.",
//!     form: FilePath { example: "pmem.img" },
//!     absent: Required,
//! };
//! static READ_ONLY: Key<Flag, Default<bool>> =
//!     Key { name: "read-only", doc: "Whether the guest may only read.", form: Flag, absent: Default(false) };
//!
//! static KEYS: Keys = &[&PATH, &READ_ONLY];
//!
//! impl DeviceKind for Pmem {
//!     fn name(&self) -> &'static str {
//!         "pmem"
//!     }
//!     fn doc(&self) -> &'static str {
//!         "persistent memory"
//!     }
//!     fn keys(&self) -> Keys {
//!         KEYS
//!     }
//!     fn read(&self, section: &mut DeviceSection<'_>) -> Result<DeviceConfig, Reported> {
//!         // Read both before returning an error, so that every problem is reported.
//!         let (path, read_only) = (section.required_path(&PATH), section.value(&READ_ONLY));
//!         let (path, read_only) = (path?, read_only?.value);
//!         section.uses_file(&path, !read_only);
//!         Ok(DeviceConfig::new(Config { path: path.value, read_only }))
//!     }
//! }
//!
//! let kinds = DeviceKinds::new([&Pmem as &dyn DeviceKind]);
//! let text = "[machine]\n[[device]]\ntype = \"pmem\"\npath = \"p.img\"\n";
//! let source = Source { name: "web.toml".to_owned(), text: text.to_owned() };
//! let profile = parse(source, &[], Arch::X86_64, "/srv".as_ref(), &kinds).unwrap();
//! let config = profile.machine.devices[0].config.downcast_ref::<Config>().unwrap();
//! assert_eq!(*config, Config { path: "/srv/p.img".into(), read_only: false });
//! ```

use std::fmt::{self, Debug, Formatter};
use std::path::{Component, Path, PathBuf};

use serde_json::{Value as Json, json};

pub use crate::description::{Absent, Default, Key, KeySchema, Keys, Optional, Required};
pub use crate::device_config::DeviceConfig;
use crate::diagnostic::Report;
pub use crate::diagnostic::Reported;
use crate::forms::unknown_word;
pub use crate::forms::{
    FilePath, Flag, Form, Integer, NamedPath, NamedPaths, Period, RateLimits, Rates, Size, Text, ValueError,
    Word, Words, listed,
};
use crate::reader::SectionReader;
pub use crate::reader::{Setting, SettingResult};
use crate::socket_path;
use crate::source::Place;
pub use crate::tree::{Node, Table, Value};

/// A kind of device: one value of the `type` key of `[[device]]`.
pub trait DeviceKind: Sync {
    /// The value of `type`.
    fn name(&self) -> &'static str;
    /// A noun phrase, for the schema and the reference.
    fn doc(&self) -> &'static str;
    /// The keys of the section, without `type`.
    fn keys(&self) -> Keys;
    /// Reads a section. An implementation reads every key before it returns an error, so that all problems are reported.
    ///
    /// # Errors
    /// Returns an error if a key was reported as wrong or missing, by the section or by this method.
    fn read(&self, section: &mut DeviceSection<'_>) -> Result<DeviceConfig, Reported>;
}

/// The kinds that profiles may name.
#[derive(Clone, Default)]
pub struct DeviceKinds(Vec<&'static dyn DeviceKind>);

impl DeviceKinds {
    /// A set of kinds, in the order of the documentation. Their names must be unique.
    pub fn new(kinds: impl IntoIterator<Item = &'static dyn DeviceKind>) -> Self {
        DeviceKinds(kinds.into_iter().collect())
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &'static dyn DeviceKind> + '_ {
        self.0.iter().copied()
    }

    /// The names of the keys of all kinds, `type` among them.
    pub(crate) fn key_names(&self) -> Vec<&'static str> {
        let keys = self.iter().flat_map(|kind| kind.keys()).map(|key| key.name());
        [TYPE].into_iter().chain(keys).collect()
    }

    /// The `type` key, whose values are the names of these kinds.
    pub(crate) fn type_key(&self) -> Key<KindName<'_>, Required> {
        Key { name: TYPE, doc: TYPE_DOC, form: KindName(self), absent: Required }
    }
}

impl Debug for DeviceKinds {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter().map(DeviceKind::name)).finish()
    }
}

/// The key that names the kind.
pub(crate) const TYPE: &str = "type";
pub(crate) const TYPE_DOC: &str = "The kind of the device.";

/// A `[[device]]` section that is being read.
pub struct DeviceSection<'a> {
    reader: SectionReader<'a>,
    context: SectionContext<'a>,
    report: &'a mut Report,
    uses: Uses,
}

/// Unix sockets by their names, in the order of the profile.
pub type NamedSockets = Vec<(String, Setting<PathBuf>)>;

/// What a device uses of the host and of the machine, for the rules about several sections.
#[derive(Default)]
pub(crate) struct Uses {
    pub(crate) files: Vec<FileUse>,
    /// The key and place of the setting for whose sake another process maps the guest's memory.
    pub(crate) shared_memory: Option<(String, Place)>,
    /// The key and place of the setting that makes the device the VMM's terminal.
    pub(crate) terminal: Option<(String, Place)>,
}

/// Where a `[[device]]` section is.
#[derive(Clone, Copy)]
pub(crate) struct SectionContext<'a> {
    /// The directory that paths are relative to.
    pub(crate) base_dir: &'a Path,
    /// The name of the machine.
    pub(crate) machine: &'a str,
    /// The position among the devices of the profile, from 0.
    pub(crate) index: usize,
}

/// A file of the host that a device opens.
pub(crate) struct FileUse {
    pub(crate) path: Setting<PathBuf>,
    pub(crate) writes: bool,
}

impl<'a> DeviceSection<'a> {
    pub(crate) fn new(
        reader: SectionReader<'a>,
        context: SectionContext<'a>,
        report: &'a mut Report,
    ) -> Self {
        DeviceSection { reader, context, report, uses: Uses::default() }
    }

    pub(crate) fn into_uses(self) -> Uses {
        self.uses
    }

    /// The name of the machine, for what a device derives from it.
    #[must_use]
    pub fn machine(&self) -> &'a str {
        self.context.machine
    }

    /// The position of the section among those of the devices, from 0.
    #[must_use]
    pub fn index(&self) -> usize {
        self.context.index
    }

    /// The value of a key with a default.
    ///
    /// # Errors
    /// Returns an error if the value was reported as wrong.
    pub fn value<F: Form>(&mut self, key: &Key<F, Default<F::Value>>) -> SettingResult<F::Value> {
        self.reader.value(key, self.report)
    }

    /// The value of an optional key.
    ///
    /// # Errors
    /// Returns an error if the value was reported as wrong.
    pub fn optional<F: Form>(
        &mut self,
        key: &Key<F, Optional>,
    ) -> Result<Option<Setting<F::Value>>, Reported> {
        self.reader.optional(key, self.report)
    }

    /// The value of a required key.
    ///
    /// # Errors
    /// Returns an error if the value was reported as wrong or missing.
    pub fn required<F: Form>(&mut self, key: &Key<F, Required>) -> SettingResult<F::Value> {
        self.reader.required_value(key, self.report)
    }

    /// The value of a required key that holds a path, resolved against the directory of the profile.
    ///
    /// # Errors
    /// Returns an error if the value was reported as wrong or missing.
    pub fn required_path(&mut self, key: &Key<FilePath, Required>) -> SettingResult<PathBuf> {
        let path = self.reader.required_value(key, self.report)?;
        Ok(path.map(|path| resolve(self.context.base_dir, &path)))
    }

    /// The value of an optional key that holds a path, resolved against the directory of the profile.
    ///
    /// # Errors
    /// Returns an error if the value was reported as wrong.
    pub fn optional_path(
        &mut self,
        key: &Key<FilePath, Optional>,
    ) -> Result<Option<Setting<PathBuf>>, Reported> {
        let path = self.reader.optional(key, self.report)?;
        Ok(path.map(|path| path.map(|path| resolve(self.context.base_dir, &path))))
    }

    /// States that the device opens a file. Two devices that open the same one, at least one of them for writing, are
    /// refused.
    pub fn uses_file(&mut self, path: &Setting<PathBuf>, writes: bool) {
        self.uses.files.push(FileUse { path: path.clone(), writes });
    }

    /// The value of a required key that holds the path of a Unix socket, resolved against the directory of the profile.
    ///
    /// # Errors
    /// Returns an error if the value was reported as wrong or missing, or is too long for an address of a socket.
    pub fn required_socket(&mut self, key: &Key<FilePath, Required>) -> SettingResult<PathBuf> {
        let socket = self.required_path(key)?;
        self.short_socket(&socket)?;
        Ok(socket)
    }

    /// The value of an optional key that holds the path of a Unix socket, resolved against the directory of the profile.
    ///
    /// # Errors
    /// As [`required_socket`](Self::required_socket).
    pub fn optional_socket(
        &mut self,
        key: &Key<FilePath, Optional>,
    ) -> Result<Option<Setting<PathBuf>>, Reported> {
        let socket = self.optional_path(key)?;
        socket.as_ref().map_or(Ok(()), |socket| self.short_socket(socket))?;
        Ok(socket)
    }

    /// The names and paths of an optional key that holds the paths of Unix sockets, resolved against the directory of the profile. The
    /// key of a path is that of the table, with the name behind it.
    ///
    /// # Errors
    /// As [`required_socket`](Self::required_socket).
    pub fn optional_sockets(
        &mut self,
        key: &Key<NamedPaths, Optional>,
    ) -> Result<Option<Setting<NamedSockets>>, Reported> {
        let Some(table) = self.reader.optional(key, self.report)? else { return Ok(None) };
        let mut sockets = Vec::new();
        for NamedPath { name, path, place } in &table.value {
            let socket = Setting {
                value: resolve(self.context.base_dir, path),
                key: format!("{}.{name}", table.key),
                place: place.clone(),
                given: true,
            };
            sockets.push((name.clone(), socket));
        }
        // All of them, so that every problem is reported.
        let checked: Vec<_> = sockets.iter().map(|(_, socket)| self.short_socket(socket)).collect();
        checked.into_iter().collect::<Result<(), _>>()?;
        Ok(Some(table.map(|_| sockets)))
    }

    fn short_socket(&mut self, socket: &Setting<PathBuf>) -> Result<(), Reported> {
        socket_path::too_long(socket).map_or(Ok(()), |refused| Err(self.report.push(refused)))
    }

    /// States that, for the sake of a setting, another process maps the guest's memory. A profile whose memory is private to the VMM
    /// is refused.
    pub fn shares_memory<T>(&mut self, setting: &Setting<T>) {
        self.uses.shared_memory = Some((setting.key.clone(), setting.place.clone()));
    }

    /// States that, by a setting, the device is on the VMM's standard input and output. A second such device is refused.
    pub fn uses_terminal<T>(&mut self, setting: &Setting<T>) {
        self.uses.terminal = Some((setting.key.clone(), setting.place.clone()));
    }

    /// Reports a value as wrong: "`key` cannot be `value`: reason", and how to correct it.
    pub fn refuse<T>(
        &mut self,
        setting: &Setting<T>,
        reason: impl fmt::Display,
        help: impl Into<String>,
    ) -> Reported {
        self.report.push(setting.refused(reason, help))
    }

    /// Reports the section as incomplete, where it starts: "`device.0` reason", and how to complete it. For a key that is missing,
    /// there is [`required`](Self::required).
    pub fn incomplete(&mut self, reason: impl fmt::Display, help: impl Into<String>) -> Reported {
        self.report.push(self.reader.incomplete(reason, help))
    }
}

/// A path relative to `base_dir`, without `.` components, so that two spellings of a path are equal, except for links and
/// `..`.
pub(crate) fn resolve(base_dir: &Path, path: &Path) -> PathBuf {
    let joined = base_dir.join(path);
    let plain: PathBuf = joined.components().filter(|part| *part != Component::CurDir).collect();
    if plain.as_os_str().is_empty() { joined } else { plain }
}

/// The name of a kind.
pub(crate) struct KindName<'a>(&'a DeviceKinds);

impl KindName<'_> {
    fn names(&self) -> impl Iterator<Item = &'static str> {
        self.0.iter().map(DeviceKind::name)
    }
}

impl Form for KindName<'_> {
    type Value = &'static dyn DeviceKind;

    fn read(&self, value: &Value) -> Result<Self::Value, ValueError> {
        let Value::Text(text) = value else { return Err(ValueError::WrongType) };
        let kind = self.0.iter().find(|kind| kind.name() == text);
        kind.ok_or_else(|| unknown_word(text, self.names(), &self.expected()))
    }

    fn expected(&self) -> String {
        listed(self.names().map(|name| format!("\"{name}\"")), "or")
    }

    fn example(&self) -> String {
        self.names().next().map(|name| format!("\"{name}\"")).unwrap_or_default()
    }

    fn schema(&self) -> Json {
        json!({ "type": "string", "enum": self.names().collect::<Vec<_>>() })
    }

    fn to_json(&self, kind: &Self::Value) -> Json {
        json!(kind.name())
    }
}
