//! Every broken profile in `tests/profiles` gives exactly the diagnostics in its `.expected` file.
//!
//! Comment lines of a profile can set the architecture, and overrides as of `--set`:
//!
//! ```toml
//! # arch: aarch64
//! # set: machine.vcpus=4
//! ```
//!
//! The default architecture is x86_64. After an intended change, regenerate the expected files and review them:
//!
//! ```sh
//! UPDATE_EXPECTED=1 cargo test -p ghest-machine-profile --test broken_profiles
//! ```

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use machine_profile::{Diagnostic, Override, Place, Source, parse};
use platform::Arch;

/// The minimum number of profiles: the test fails if it reads the wrong directory.
const MIN_PROFILES: usize = 45;

#[test]
fn broken_profiles_give_the_expected_diagnostics() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/profiles");
    let update = std::env::var_os("UPDATE_EXPECTED").is_some();
    let profiles = with_ending(&directory, "toml");
    assert!(profiles.len() >= MIN_PROFILES, "{} has {} profiles only", directory.display(), profiles.len());

    let mut differing = String::new();
    for profile in &profiles {
        let got = diagnostics(profile);
        assert!(!got.is_empty(), "{} is not broken", profile.display());
        let expected_path = profile.with_extension("expected");
        if update {
            fs::write(&expected_path, &got).unwrap();
            continue;
        }
        let expected = fs::read_to_string(&expected_path).unwrap_or_default();
        if got != expected {
            writeln!(differing, "--- {}\n{expected}+++ got\n{got}", expected_path.display()).unwrap();
        }
    }
    assert!(differing.is_empty(), "UPDATE_EXPECTED=1 accepts these:\n{differing}");
}

#[test]
fn every_expected_file_has_its_profile() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/profiles");
    for expected in with_ending(&directory, "expected") {
        assert!(expected.with_extension("toml").exists(), "{} has no profile", expected.display());
    }
}

fn with_ending(directory: &Path, ending: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|found| found == ending))
        .collect();
    files.sort();
    files
}

fn diagnostics(path: &Path) -> String {
    let name = path.file_name().unwrap().to_string_lossy().into_owned();
    let text = fs::read_to_string(path).unwrap();
    let directives = |prefix: &str| -> Vec<String> {
        text.lines().filter_map(|line| line.strip_prefix(prefix)).map(str::to_owned).collect()
    };
    let arch = match directives("# arch: ").as_slice() {
        [] => Arch::X86_64,
        [arch] if arch == "aarch64" => Arch::Aarch64,
        other => panic!("{name}: {other:?} is not an architecture"),
    };
    let mut overrides = Vec::new();
    let mut problems = Vec::new();
    for set in directives("# set: ") {
        match Override::parse(&set) {
            Ok(over) => overrides.push(over),
            Err(problem) => problems.push(problem),
        }
    }
    if problems.is_empty() {
        let source = Source { name, text };
        problems =
            parse(source, &overrides, arch, Path::new(""), &devices::kinds()).err().unwrap_or_default();
    }
    problems.iter().map(rendered).collect::<Vec<_>>().join("\n")
}

fn rendered(diagnostic: &Diagnostic) -> String {
    let mut text = String::new();
    let key = if diagnostic.key.is_empty() { "(none)" } else { &diagnostic.key };
    header(&mut text, &diagnostic.place, &diagnostic.message);
    for label in &diagnostic.related {
        header(&mut text, &label.place, &label.message);
    }
    writeln!(text, "  key:  {key}\n  help: {}", diagnostic.help).unwrap();
    text
}

/// The message, the line, and carets below the span.
fn header(text: &mut String, place: &Place, message: &str) {
    let source = place.source();
    let line = source.text.lines().nth(place.line() - 1).unwrap_or_default();
    let rest = line.chars().count().saturating_sub(place.column() - 1);
    let carets = "^".repeat(place.text().lines().next().unwrap_or_default().chars().count().min(rest).max(1));
    let indent = " ".repeat(place.column() - 1);
    writeln!(text, "{}:{}:{}: {message}", source.name, place.line(), place.column()).unwrap();
    writeln!(text, "    | {}\n    | {indent}{carets}", line.escape_debug().to_string().replace("\\\"", "\""))
        .unwrap();
}
