//! `cargo lab package`: a Debian package of `ghest`.
//!
//! What is in it is in `vmm/Cargo.toml` (`package.metadata.deb`). The files that `ghest` generates are written here first.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::error::{Context, Result};
use crate::process;
use crate::workspace::Workspace;

/// The files that `ghest` prints: their names, and the arguments.
const GENERATED: [(&str, &[&str]); 5] = [
    ("ghest.bash", &["completions", "bash"]),
    ("ghest.fish", &["completions", "fish"]),
    ("_ghest", &["completions", "zsh"]),
    ("profile.schema.json", &["schema"]),
    ("control.schema.json", &["schema", "--control"]),
];

/// Builds `ghest` and its package. Needs cargo-deb.
pub(crate) fn package(workspace: &Workspace) -> Result<()> {
    process::run(workspace.cargo().args(["build", "--release", "--package", "ghest"]))?;
    let target = workspace.target();
    generate(&target.join("release/ghest"), &target.join("dist"))?;
    process::run(workspace.cargo().args(["deb", "--no-build", "--package", "ghest"]))
        .context("cannot build the package: `cargo install cargo-deb` installs what it needs")
}

fn generate(ghest: &Path, directory: &Path) -> Result<()> {
    process::output(Command::new(ghest).args(["man", "--out"]).arg(directory.join("man")))?;
    for (name, arguments) in GENERATED {
        let printed = process::output(Command::new(ghest).args(arguments))?;
        fs::write(directory.join(name), printed).context(format_args!("cannot write {name}"))?;
    }
    Ok(())
}
