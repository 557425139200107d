//! Checks of the library crates, as a VMM that takes one would notice a failure: packages, features, documentation, public API.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;
use serde_json::Value;

use crate::error::{Context, Error, Result};
use crate::process;
use crate::report::Count;
use crate::verdict::Outcome;
use crate::workspace::Workspace;

/// The file beside a `Cargo.toml` that lists the public API of the library.
const PUBLIC_API: &str = "public-api.txt";

/// The version of rustdoc's JSON that `public-api` 0.52.0 reads, which Rust 1.95 writes.
const JSON_FORMAT: u64 = 57;

/// Differences of a public API that are printed.
const PRINTED_LINES: usize = 40;

/// A library crate: a package of the workspace that may be published.
struct Library {
    package: String,
    /// The name of the library in Rust.
    name: String,
    directory: PathBuf,
    features: Vec<String>,
}

/// Runs all checks, and prints a line for each. `update` writes the files of the public API instead of comparing them.
pub(crate) fn check(workspace: &Workspace, update: bool) -> Result<Count> {
    let (libraries, others) = libraries(workspace)?;
    let mut count = Count::default();
    let mut note = |name: String, outcome: Result<Outcome>| {
        let outcome = outcome.unwrap_or_else(|error| {
            println!("{error}");
            Outcome::Failed
        });
        let shown = match outcome {
            Outcome::Passed => "ok",
            Outcome::Failed => "FAILED",
            Outcome::Skipped => "skipped",
        };
        println!("library check {name} ... {shown}");
        count.add(outcome);
    };

    note("packages".to_owned(), package(workspace, &others));
    for library in &libraries {
        for feature in &library.features {
            let shown = if feature.is_empty() { "none" } else { feature };
            let name = format!("{} features {shown}", library.package);
            note(name, features(workspace, library, feature));
        }
    }
    note("documentation".to_owned(), documentation(workspace));
    for library in &libraries {
        note(format!("{} public API", library.package), public_api(workspace, library, update));
    }
    Ok(count)
}

/// The library crates, and the names of all other packages.
fn libraries(workspace: &Workspace) -> Result<(Vec<Library>, Vec<String>)> {
    #[derive(Deserialize)]
    struct Metadata {
        packages: Vec<Package>,
    }
    #[derive(Deserialize)]
    struct Package {
        name: String,
        manifest_path: PathBuf,
        /// The registries it may be published to: `None` for any, an empty list for none.
        publish: Option<Vec<String>>,
        features: serde_json::Map<String, Value>,
        targets: Vec<Target>,
    }
    #[derive(Deserialize)]
    struct Target {
        kind: Vec<String>,
        name: String,
    }

    let mut cargo = workspace.cargo();
    cargo.args(["metadata", "--no-deps", "--format-version", "1"]);
    let metadata: Metadata =
        serde_json::from_slice(&process::output(&mut cargo)?).context("cannot read cargo's metadata")?;
    let mut others = Vec::new();
    let mut libraries = Vec::new();
    for package in metadata.packages {
        let target = package.targets.iter().find(|target| target.kind.iter().any(|kind| kind == "lib"));
        match (target, package.manifest_path.parent(), package.publish) {
            (Some(target), Some(directory), None) => {
                let declared = package.features.keys().filter(|name| *name != "default").cloned();
                let mut features: Vec<String> = declared.collect();
                if !features.is_empty() {
                    features.insert(0, String::new());
                }
                libraries.push(Library {
                    package: package.name,
                    name: target.name.clone(),
                    directory: directory.to_owned(),
                    features,
                });
            }
            _ => others.push(package.name),
        }
    }
    if libraries.is_empty() {
        return Err(Error::new("no package of the workspace may be published"));
    }
    Ok((libraries, others))
}

/// Packs every library, and builds each from its package and the packages of those that it needs.
///
/// In a new target directory: Cargo unpacks the packages of a target directory once, and would build an old version of a
/// library that another one needs.
fn package(workspace: &Workspace, others: &[String]) -> Result<Outcome> {
    fs::create_dir_all(workspace.lab()).context("cannot create the lab's directory")?;
    let directory = tempfile::tempdir_in(workspace.lab()).context("cannot create a target directory")?;
    let mut cargo = workspace.cargo();
    cargo.args(["package", "--quiet", "--workspace", "--allow-dirty", "--target-dir"]).arg(directory.path());
    for other in others {
        cargo.args(["--exclude", other]);
    }
    process::output(&mut cargo).map(|_| Outcome::Passed)
}

/// Checks a library with one feature, or none, and without a warning.
fn features(workspace: &Workspace, library: &Library, feature: &str) -> Result<Outcome> {
    let mut cargo = cargo(workspace);
    cargo.args(["check", "--quiet", "--package", &library.package, "--no-default-features"]);
    if !feature.is_empty() {
        cargo.args(["--features", feature]);
    }
    without_output(&mut cargo)
}

/// Builds the documentation of the workspace without a warning.
fn documentation(workspace: &Workspace) -> Result<Outcome> {
    let mut cargo = cargo(workspace);
    cargo.args(["doc", "--quiet", "--workspace", "--no-deps", "--lib"]);
    without_output(&mut cargo)
}

/// Runs Cargo, which prints nothing if it has no warnings.
fn without_output(cargo: &mut Command) -> Result<Outcome> {
    let output = cargo.output().context("cannot run cargo")?;
    if output.status.success() && output.stderr.is_empty() {
        return Ok(Outcome::Passed);
    }
    Err(Error::new(String::from_utf8_lossy(&output.stderr).into_owned()))
}

/// Compares the public API of a library with its file. Skipped if the format of rustdoc's JSON is not the one that
/// `public-api` reads: it is unstable, and changes with the compiler.
fn public_api(workspace: &Workspace, library: &Library, update: bool) -> Result<Outcome> {
    let mut cargo = cargo(workspace);
    cargo.args(["rustdoc", "--quiet", "--package", &library.package, "--lib", "--"]);
    cargo.args(["-Z", "unstable-options", "--output-format", "json"]);
    process::output(&mut cargo)?;
    let json = target(workspace).join("doc").join(&library.name).with_extension("json");
    let format = format_of(&json)?;
    if format != JSON_FORMAT {
        println!("rustdoc's JSON has format {format}, and public-api reads {JSON_FORMAT}: no comparison");
        return Ok(Outcome::Skipped);
    }
    let api = public_api::Builder::from_rustdoc_json(&json)
        .omit_blanket_impls(true)
        .omit_auto_trait_impls(true)
        .omit_auto_derived_impls(true)
        .build()
        .context(format_args!("cannot read {}", json.display()))?;
    let found: String = api.items().map(|item| format!("{item}\n")).collect();

    let file = library.directory.join(PUBLIC_API);
    if update {
        fs::write(&file, found).context(format_args!("cannot write {}", file.display()))?;
        return Ok(Outcome::Passed);
    }
    let listed = fs::read_to_string(&file).context(format_args!("cannot read {}", file.display()))?;
    let differences = differences(&listed, &found);
    if differences.is_empty() {
        return Ok(Outcome::Passed);
    }
    for line in differences.iter().take(PRINTED_LINES) {
        println!("{line}");
    }
    Err(Error::new(format!(
        "{} lines of {} differ: `cargo lab libraries --update` accepts them",
        differences.len(),
        file.display()
    )))
}

fn format_of(json: &Path) -> Result<u64> {
    #[derive(Deserialize)]
    struct Format {
        format_version: u64,
    }
    let bytes = fs::read(json).context(format_args!("cannot read {}", json.display()))?;
    let Format { format_version } =
        serde_json::from_slice(&bytes).context(format_args!("cannot read {}", json.display()))?;
    Ok(format_version)
}

/// Lines that only one of two texts has, as `-` and `+`.
fn differences(listed: &str, found: &str) -> Vec<String> {
    let only = |sign, one: &str, other: &str| -> Vec<String> {
        let other: std::collections::HashSet<&str> = other.lines().collect();
        one.lines().filter(|line| !other.contains(line)).map(|line| format!("{sign} {line}")).collect()
    };
    [only('-', listed, found), only('+', found, listed)].concat()
}

/// Cargo for the checks but packaging. Rustdoc's JSON needs unstable options (`RUSTC_BOOTSTRAP`), and with them build
/// scripts give other results: so all share a target directory of their own.
fn cargo(workspace: &Workspace) -> Command {
    let mut cargo = workspace.cargo();
    cargo
        .env("RUSTC_BOOTSTRAP", "1")
        .env("RUSTDOCFLAGS", "")
        .arg("--config")
        .arg(OsStr::new("term.color='never'"));
    cargo.env("CARGO_TARGET_DIR", target(workspace));
    cargo
}

fn target(workspace: &Workspace) -> PathBuf {
    workspace.lab().join("libraries")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_lines_of_one_text_only() {
        assert_eq!(differences("a\nb\n", "b\nc\n"), ["- a", "+ c"]);
        assert!(differences("a\nb\n", "a\nb\n").is_empty());
    }
}
