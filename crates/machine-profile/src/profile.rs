//! Parsing: from a text to a machine.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::hash::Hash;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use platform::Arch;

use crate::constraints;
use crate::device_kind::DeviceKinds;
use crate::diagnostic::{Diagnostic, Report, quoted};
use crate::keys::machine;
use crate::machine::Machine;
use crate::overrides::Override;
use crate::settings::ProfileSettings;
use crate::source::{Document, Place, Source};
use crate::tree;

/// A machine, and the places of its settings.
#[derive(Clone, Debug)]
pub struct Profile {
    /// The machine.
    pub machine: Machine,
    source: Arc<Document>,
    /// The place of the value of every given key, by the key's address.
    places: BTreeMap<String, Place>,
}

/// Parses a profile. `overrides` are applied in their order.
///
/// Relative paths in the profile are relative to `base_dir`. No other file is opened: a caller that finds that one does not
/// exist reports it with [`Profile::problem`].
///
/// # Errors
///
/// Returns every problem: those of the text in its order, then those of the overrides. For a line that is not TOML, only
/// the syntax error is reported.
pub fn parse(
    source: Source,
    overrides: &[Override],
    arch: Arch,
    base_dir: &Path,
    kinds: &DeviceKinds,
) -> Result<Profile, Vec<Diagnostic>> {
    let source = Document::new(source);
    let (mut syntax, mut semantic) = (Report::default(), Report::default());
    let mut root = tree::parse_document(&source, &mut syntax);
    for over in overrides {
        over.apply(&mut root, &mut semantic);
    }
    let default_name = machine::name_of_file(&source.stem());
    let start = Place::start_of(&source);
    let settings = ProfileSettings::read(&root, base_dir, default_name, &start, kinds, &mut semantic);
    constraints::check(&settings, arch, &mut semantic);
    let machine = settings.into_machine(arch);

    let sources: Vec<&Arc<Document>> =
        [&source].into_iter().chain(overrides.iter().map(Override::source)).collect();
    // A line that is not TOML yields wrong values, and a section or key that seems to be missing may be in it.
    let unparsed = tree::unparsed_lines(syntax.diagnostics());
    let keep = |diagnostic: &Diagnostic| {
        let place = &diagnostic.place;
        let unreliable = place.span().is_empty() || unparsed.contains(&place.line());
        unparsed.is_empty() || !place.is_in(&source) || !unreliable
    };
    syntax.append_if(semantic, keep);
    let machine = syntax.finish(machine, &sources)?;
    let mut places = BTreeMap::new();
    root.walk("", &mut |address, _, value| {
        places.insert(address, value.clone());
    });
    Ok(Profile { machine, source, places })
}

/// The maximum length of a profile's file, in bytes. A profile of ten thousand devices has half of it.
pub const MAX_LEN: u64 = 1 << 20;

/// Reads and parses a file. Relative paths in the profile are relative to the file's directory.
///
/// # Errors
///
/// Returns one diagnostic if the file cannot be read, is longer than [`MAX_LEN`] or is not UTF-8; otherwise as [`parse`].
pub fn load(
    path: &Path,
    overrides: &[Override],
    arch: Arch,
    kinds: &DeviceKinds,
) -> Result<Profile, Vec<Diagnostic>> {
    let name = path.display().to_string();
    let unreadable = |message: String, help: &str| {
        let source = Document::new(Source { name: name.clone(), text: String::new() });
        vec![Diagnostic::new(Place::start_of(&source), "", message, help)]
    };
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_LEN + 1).read_to_end(&mut bytes));
    read.map_err(|error| {
        let message = format!("the profile cannot be read: {error}");
        unreadable(message, "name a readable file that contains a machine profile")
    })?;
    if bytes.len() as u64 > MAX_LEN {
        let message = format!("the profile has more than {MAX_LEN} bytes, the maximum");
        return Err(unreadable(message, "name a file that contains a machine profile"));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        // Each invalid sequence is replaced by one character, and the text before the first one does not change.
        let start = error.utf8_error().valid_up_to();
        let text = String::from_utf8_lossy(error.as_bytes()).into_owned();
        let source = Document::new(Source { name: name.clone(), text });
        let place = Place::new(&source, start..start + char::REPLACEMENT_CHARACTER.len_utf8());
        let message = format!("byte {start} of the profile is not UTF-8");
        vec![Diagnostic::new(place, "", message, "save the file as UTF-8")]
    })?;
    let base_dir = path.parent().unwrap_or(Path::new(""));
    parse(Source { name, text }, overrides, arch, base_dir, kinds)
}

/// Reports conflicts between machines that run at the same time: two with one control socket, one file of metrics, one store, one ledger,
/// or one memory.
///
/// Disks are not compared: profiles that boot one guest with different firmware share them, and do not run together.
#[must_use]
pub fn conflicts(profiles: &[Profile]) -> Vec<Diagnostic> {
    let sockets = shared(profiles, "control.socket", "socket", |it| it.control_socket.as_deref());
    let files = shared(profiles, "metrics.file", "file", |it| {
        it.metrics.as_ref().map(|metrics| metrics.file.as_path())
    });
    let stores = shared(profiles, "ras.persistent-store", "store", |it| it.ras.persistent_store.as_deref());
    let ledgers = shared(profiles, "ras.ledger", "ledger", |it| it.ras.ledger.as_deref());
    let memory = shared(profiles, "memory.path", "memory", |it| it.memory.path.as_deref());
    sockets.into_iter().chain(files).chain(stores).chain(ledgers).chain(memory).collect()
}

/// Reports paths that several machines have for a key. `noun` is what the key names.
fn shared(
    profiles: &[Profile],
    key: &str,
    noun: &str,
    path: impl Fn(&Machine) -> Option<&Path>,
) -> Vec<Diagnostic> {
    let mut conflicts = Vec::new();
    let mut first_with = HashMap::new();
    for profile in profiles {
        let Some(path) = path(&profile.machine) else { continue };
        let first: &Profile = first_with.entry(path).or_insert(profile);
        if !std::ptr::eq(first, profile) {
            let place = profile.place(key);
            let reason = format!("{} uses that {noun} too", quoted(&first.source.name));
            let refused = Diagnostic::refused(&place, key, reason, "choose another path");
            conflicts.push(refused.with_label(&first.place(key), format!("the same {noun}")));
        }
    }
    conflicts
}

impl Profile {
    /// A diagnostic of a problem that was detected after parsing: a file that does not exist, or a host that does not
    /// support what a key requests.
    ///
    /// `key` is an address, for example `boot.kernel` or `device.0.path`. If the profile omits the key, the diagnostic
    /// points at its section, and if it omits the section too, at the start of the text.
    #[must_use]
    pub fn problem(&self, key: &str, message: impl Into<String>, help: impl Into<String>) -> Diagnostic {
        Diagnostic::new(self.place(key), key, message, help)
    }

    /// Reports files of the host that two devices open, at least one of them with write access. `identify` returns what is
    /// equal for two paths of one file, for example its device and inode; `None` if there is no such file.
    ///
    /// Equal paths are refused by [`parse`] already; this detects links.
    pub fn shared_files<I: Eq + Hash>(&self, identify: impl Fn(&Path) -> Option<I>) -> Vec<Diagnostic> {
        let files: Vec<_> = self.machine.devices.iter().flat_map(|device| &device.files).collect();
        let uses = files.iter().map(|file| (identify(&file.path), file.writes));
        let pairs = constraints::shared(uses.map(|(file, writes)| Some((file?, writes))));
        pairs
            .into_iter()
            .map(|(first, second)| {
                let (first, second) = (files[first], files[second]);
                constraints::shared_file(&self.place(&second.key), &second.key, &self.place(&first.key))
            })
            .collect()
    }

    /// The text of the profile.
    #[must_use]
    pub fn source(&self) -> &Source {
        &self.source
    }

    fn place(&self, key: &str) -> Place {
        let section = || key.rsplit_once('.').and_then(|(section, _)| self.places.get(section));
        self.places.get(key).or_else(section).cloned().unwrap_or_else(|| Place::start_of(&self.source))
    }
}
