//! The guest for aarch64, built on any machine that runs the tests.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use libtest_mimic::Failed;

const TARGET: &str = "aarch64-unknown-linux-gnu";
const LINKER: &str = "aarch64-linux-gnu-gcc";

/// The missing tool for aarch64 builds; `None` if all are installed.
pub(crate) fn missing() -> Option<&'static str> {
    let linker = Command::new(LINKER).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if linker.is_err() {
        Some("aarch64-linux-gnu-gcc, which `cargo lab setup` installs")
    } else if !compiler().is_file() {
        Some("the lab's compiler for aarch64, which `cargo lab run --host aarch64` fetches")
    } else {
        None
    }
}

/// The compiler with the aarch64 library, which the lab unpacks.
fn compiler() -> PathBuf {
    workspace().join("target/lab/rustc")
}

/// Builds the crate for aarch64 as the lab does. Returns the guest's Image.
pub(crate) fn image() -> Result<Vec<u8>, Failed> {
    let output = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["build", "--quiet", "--package", "ghest-probe-guest"])
        .args(["--message-format", "json-render-diagnostics"])
        .args(["--target", TARGET, "--target-dir"])
        .arg(workspace().join("target/lab/cross"))
        .current_dir(workspace())
        .env("RUSTC", compiler())
        .env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", LINKER)
        .env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUSTFLAGS", "-C target-feature=+crt-static")
        .env("CARGO_PROFILE_DEV_DEBUG", "none")
        .env("CARGO_PROFILE_DEV_STRIP", "symbols")
        .output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
    }
    let out = String::from_utf8(output.stdout)?
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["reason"] == "build-script-executed")
        .filter(|message| message["package_id"].as_str().is_some_and(|id| id.contains("probe-guest")))
        .find_map(|message| message["out_dir"].as_str().map(PathBuf::from))
        .ok_or("cargo ran no build script of ghest-probe-guest")?;
    Ok(fs::read(out.join("probe.img"))?)
}

/// What the compiler says of the guest's source when every warning is an error.
pub(crate) fn lint(guest: &str) -> Result<(), Failed> {
    let dir = tempfile::tempdir()?;
    let output = Command::new(compiler())
        .args(["--edition=2024", "--crate-name=probe", "--crate-type=bin", "--emit=metadata", guest])
        .args(["--target", TARGET, "-Cpanic=abort", "-Dwarnings", "-Dunreachable_pub"])
        .args(["-Dunsafe_op_in_unsafe_fn", "--out-dir"])
        .arg(dir.path())
        .output()?;
    if output.status.success() {
        Ok(())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned().into())
    }
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}
