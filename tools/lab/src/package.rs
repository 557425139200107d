//! `cargo lab package`: a Debian package of `ghest`.
//!
//! What is in it is in `vmm/Cargo.toml` (`package.metadata.deb`). The files that `ghest` generates are written here first.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::bundle::Cache;
use crate::error::{Context, Missing, Result};
use crate::workspace::Workspace;
use crate::{process, setup};

/// The version of cargo-deb, which is built when it is first needed.
const CARGO_DEB: &str = "3.8.0";

/// The packages that cargo-deb needs: dpkg-shlibdeps finds what the program depends on.
const PACKAGES: &[&str] = &["dpkg-dev"];

/// The files that `ghest` prints: their names, and the arguments.
const GENERATED: [(&str, &[&str]); 5] = [
    ("ghest.bash", &["completions", "bash"]),
    ("ghest.fish", &["completions", "fish"]),
    ("_ghest", &["completions", "zsh"]),
    ("profile.schema.json", &["schema"]),
    ("control.schema.json", &["schema", "--control"]),
];

/// Builds `ghest` in release mode, and its package; returns the path of the package.
pub(crate) fn package(workspace: &Workspace, cache: &Cache) -> std::result::Result<PathBuf, Missing> {
    let cargo_deb = cargo_deb(workspace, cache).map_err(Missing::Packages)?;
    build(workspace, &cargo_deb).map_err(Missing::Part)
}

/// cargo-deb of the cache.
fn cargo_deb(workspace: &Workspace, cache: &Cache) -> Result<PathBuf> {
    setup::install(PACKAGES)?;
    let root = cache.path(&format!("cargo-deb-{CARGO_DEB}"));
    let program = root.join("bin/cargo-deb");
    if !program.exists() {
        eprintln!("building cargo-deb {CARGO_DEB}, which takes minutes");
        let mut install = workspace.cargo();
        install.args(["install", "--quiet", "--locked", "cargo-deb", "--version", CARGO_DEB, "--root"]);
        process::run(install.arg(&root)).context("cannot build cargo-deb")?;
    }
    program.canonicalize().context("cannot find cargo-deb")
}

fn build(workspace: &Workspace, cargo_deb: &Path) -> Result<PathBuf> {
    process::run(workspace.cargo().args(["build", "--quiet", "--release", "--package", "ghest"]))?;
    let target = workspace.target();
    generate(&target.join("release/ghest"), &target.join("dist"))?;
    let mut deb = Command::new(cargo_deb);
    deb.current_dir(&workspace.root).args(["--quiet", "--no-build", "--strip", "--package", "ghest"]);
    // It prints the path of the package.
    let printed = process::text(&mut deb).context("cannot build the package")?;
    printed.lines().next_back().map(PathBuf::from).context("cargo-deb printed no path")
}

fn generate(ghest: &Path, directory: &Path) -> Result<()> {
    process::output(Command::new(ghest).args(["man", "--out"]).arg(directory.join("man")))?;
    for (name, arguments) in GENERATED {
        let printed = process::output(Command::new(ghest).args(arguments))?;
        fs::write(directory.join(name), printed).context(format_args!("cannot write {name}"))?;
    }
    Ok(())
}
