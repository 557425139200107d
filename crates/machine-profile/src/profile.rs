//! From a text to a machine.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use platform::Arch;

use crate::answers::Answers;
use crate::combinations;
use crate::device_kind::DeviceKinds;
use crate::diagnostic::{Diagnostic, Report, quoted};
use crate::keys::machine;
use crate::machine::Machine;
use crate::overrides::Override;
use crate::source::{Place, Source};
use crate::tree;

/// A machine, and where its profile says what.
#[derive(Clone, Debug)]
pub struct Profile {
    /// The machine.
    pub machine: Machine,
    source: Arc<Source>,
    /// Of the value of every key that is given, by its address.
    places: BTreeMap<String, Place>,
}

/// Reads a profile, with `overrides` put over it in their order.
///
/// Relative paths in it are relative to `base_dir`. No file is looked at: whether one exists is for whoever opens it to
/// say, with [`Profile::problem`].
///
/// # Errors
///
/// Every problem of the text and then of the overrides, in their order. A line that is no TOML has that problem only.
pub fn parse(
    source: Source,
    overrides: &[Override],
    arch: Arch,
    base_dir: &Path,
    kinds: &DeviceKinds,
) -> Result<Profile, Vec<Diagnostic>> {
    let source = Arc::new(source);
    let (mut syntax, mut meaning) = (Report::default(), Report::default());
    let mut root = tree::parse_document(&source, &mut syntax);
    for over in overrides {
        over.apply(&mut root, &mut meaning);
    }
    let answers = Answers::read(&root, base_dir, &Place::start_of(&source), kinds, &mut meaning);
    combinations::check(&answers, arch, &mut meaning);
    let machine = answers.into_machine(arch, machine::name_of_file(&source.stem()));

    let sources: Vec<&Arc<Source>> =
        [&source].into_iter().chain(overrides.iter().map(Override::source)).collect();
    // What was made out of a line that is no TOML may be wrong, and what seems to be missing may stand in it.
    let spoilt = tree::spoilt_lines(syntax.found());
    let keep = |diagnostic: &Diagnostic| {
        let place = &diagnostic.place;
        let doubtful = place.span().is_empty() || spoilt.contains(&place.line());
        spoilt.is_empty() || !place.is_in(&source) || !doubtful
    };
    syntax.take(meaning, keep);
    let machine = syntax.finish(machine, &sources)?;
    let mut places = BTreeMap::new();
    root.walk("", &mut |address, _, value| {
        places.insert(address, value.clone());
    });
    Ok(Profile { machine, source, places })
}

/// Reads the profile in a file. Relative paths in it are relative to the file's directory.
///
/// # Errors
///
/// The file cannot be read, or is not UTF-8; else as [`parse`].
pub fn load(
    path: &Path,
    overrides: &[Override],
    arch: Arch,
    kinds: &DeviceKinds,
) -> Result<Profile, Vec<Diagnostic>> {
    let name = path.display().to_string();
    let bytes = fs::read(path).map_err(|error| {
        let message = format!("the profile cannot be read: {error}");
        let source = Arc::new(Source { name: name.clone(), text: String::new() });
        vec![Diagnostic::new(
            Place::start_of(&source),
            "",
            message,
            "name a file that holds a machine profile",
        )]
    })?;
    let text = String::from_utf8(bytes).map_err(|error| {
        // What is lost is replaced by one character or more, and nothing before it changes.
        let start = error.utf8_error().valid_up_to();
        let text = String::from_utf8_lossy(error.as_bytes()).into_owned();
        let source = Arc::new(Source { name: name.clone(), text });
        let place = Place::new(&source, start..start + char::REPLACEMENT_CHARACTER.len_utf8());
        let message = format!("byte {start} of the profile is not UTF-8");
        vec![Diagnostic::new(place, "", message, "save the file as UTF-8")]
    })?;
    let base_dir = path.parent().unwrap_or(Path::new(""));
    parse(Source { name, text }, overrides, arch, base_dir, kinds)
}

/// What several machines cannot have at the same time: a control socket.
///
/// Disks are not compared: profiles of one guest under several firmwares share theirs, and do not run together.
#[must_use]
pub fn clashes(profiles: &[Profile]) -> Vec<Diagnostic> {
    let mut clashes = Vec::new();
    for (index, profile) in profiles.iter().enumerate() {
        let Some(socket) = &profile.machine.control_socket else { continue };
        let taken = |other: &&Profile| other.machine.control_socket.as_ref() == Some(socket);
        if let Some(first) = profiles.iter().take(index).find(taken) {
            let key = "control.socket";
            let place = profile.place(key);
            let why = format!("{} has that socket already", quoted(&first.source.name));
            let refused = Diagnostic::refused(&place, key, why, "choose another path");
            clashes.push(refused.beside(&first.place(key), "the same socket"));
        }
    }
    clashes
}

impl Profile {
    /// A problem that only shows later: a file that does not exist, a host that cannot do what a key asks for.
    ///
    /// `key` is an address, `boot.kernel` or `device.0.path`. Where the profile leaves that key out, the diagnostic
    /// points at its section, and where it leaves that out too, at the start of the text.
    #[must_use]
    pub fn problem(&self, key: &str, message: impl Into<String>, help: impl Into<String>) -> Diagnostic {
        Diagnostic::new(self.place(key), key, message, help)
    }

    /// The text that the profile was read from.
    #[must_use]
    pub fn source(&self) -> &Source {
        &self.source
    }

    fn place(&self, key: &str) -> Place {
        let section = || key.rsplit_once('.').and_then(|(section, _)| self.places.get(section));
        self.places.get(key).or_else(section).cloned().unwrap_or_else(|| Place::start_of(&self.source))
    }
}
