//! Builds the built-in guest with the compiler that builds this crate.
//!
//! The guest is no package of its own: the host's target, whose `core` is at hand, has to be bent into a bare-metal
//! one, and flags that do this must not reach anything else.

use std::env;
use std::path::Path;
use std::process::{Command, ExitCode};

/// What nobody has switched on when the guest runs.
const WITHOUT: &str = "-sse,-sse2,-sse3,-ssse3,-sse4.1,-sse4.2,-avx,-avx2,-fxsr";

fn main() -> ExitCode {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=guest");
    println!("cargo::rerun-if-env-changed=RUSTC_LINKER");
    if variable("CARGO_CFG_TARGET_ARCH") != "x86_64" {
        return ExitCode::SUCCESS;
    }
    let output = match compiler().output() {
        Ok(output) => output,
        Err(error) => {
            println!("cargo::error=the compiler of the built-in guest does not start: {error}");
            return ExitCode::FAILURE;
        }
    };
    if output.status.success() {
        // What it said is of no use: it warns that code without SSE2 can not call into libraries that use it.
        return ExitCode::SUCCESS;
    }
    println!("cargo::error=the built-in guest does not build");
    for line in String::from_utf8_lossy(&output.stderr).lines() {
        println!("cargo::error={line}");
    }
    ExitCode::FAILURE
}

fn compiler() -> Command {
    let out = Path::new(&variable("OUT_DIR")).join("probe.elf");
    let guest = Path::new(&variable("CARGO_MANIFEST_DIR")).join("guest");
    let mut rustc = Command::new(variable("RUSTC"));
    rustc.args(["--edition=2024", "--crate-name=probe", "--crate-type=bin", "--color=never"]);
    rustc.arg("--target").arg(variable("TARGET"));
    rustc.arg("-o").arg(out).arg(guest.join("main.rs"));
    for option in [
        "panic=abort",
        "opt-level=s",
        "codegen-units=1",
        "relocation-model=static",
        "code-model=small",
        // Interrupts use the stack that they find.
        "no-redzone=yes",
        "force-unwind-tables=no",
        "link-arg=-nostartfiles",
        "link-arg=-nostdlib",
        "link-arg=-static",
        "link-arg=-no-pie",
        "link-arg=-Wl,--build-id=none,--gc-sections,-z,max-page-size=4096",
    ] {
        rustc.arg("-C").arg(option);
    }
    rustc.arg("-C").arg(format!("target-feature={WITHOUT}"));
    rustc.arg("-C").arg(format!("link-arg=-Wl,-T,{}", guest.join("x86_64/link.ld").display()));
    rustc.arg("-C").arg(format!("linker={}", env::var("RUSTC_LINKER").unwrap_or_else(|_| "cc".into())));
    rustc
}

/// A variable that cargo sets for every build script.
fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|error| panic!("{name}: {error}"))
}
