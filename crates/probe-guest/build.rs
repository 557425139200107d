//! Builds the built-in guest with the compiler that builds this crate.
//!
//! The guest is not a package of its own. It is compiled for the host's target, whose `core` is installed, with flags that make
//! it bare-metal. These flags must not apply to other crates.

use std::env;
use std::fs;
use std::io;
use std::path::Path;
use std::process::{Command, ExitCode};

/// Features that are not enabled when the guest starts on x86_64.
const WITHOUT_SSE: &str = "-sse,-sse2,-sse3,-ssse3,-sse4.1,-sse4.2,-avx,-avx2,-fxsr";
/// Outline atomics query the operating system for processor features.
const WITHOUT_OUTLINE_ATOMICS: &str = "-outline-atomics";

fn main() -> ExitCode {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=guest");
    println!("cargo::rerun-if-env-changed=RUSTC_LINKER");
    match variable("CARGO_CFG_TARGET_ARCH").as_str() {
        "x86_64" => build(&X86_64),
        "aarch64" => build(&AARCH64),
        _ => ExitCode::SUCCESS,
    }
}

/// What differs between architectures.
struct Architecture {
    name: &'static str,
    target_features: &'static str,
    options: &'static [&'static str],
    /// Whether the loader needs a flat binary instead of an ELF file.
    flat: bool,
}

const X86_64: Architecture = Architecture {
    name: "x86_64",
    target_features: WITHOUT_SSE,
    options: &[
        "relocation-model=static",
        // Interrupts use the current stack.
        "no-redzone=yes",
        "link-arg=-static",
        "link-arg=-no-pie",
    ],
    flat: false,
};

const AARCH64: Architecture = Architecture {
    name: "aarch64",
    target_features: WITHOUT_OUTLINE_ATOMICS,
    // It runs at any load address, and relocates itself.
    options: &["relocation-model=pie", "link-arg=-Wl,--no-dynamic-linker,-z,norelro"],
    flat: true,
};

fn build(architecture: &Architecture) -> ExitCode {
    let elf = Path::new(&variable("OUT_DIR")).join("probe.elf");
    let output = match compiler(architecture, &elf).output() {
        Ok(output) => output,
        Err(error) => {
            println!("cargo::error=cannot run rustc for the built-in guest: {error}");
            return ExitCode::FAILURE;
        }
    };
    if !output.status.success() {
        println!("cargo::error=cannot compile the built-in guest");
        for line in String::from_utf8_lossy(&output.stderr).lines() {
            println!("cargo::error={line}");
        }
        return ExitCode::FAILURE;
    }
    // Warnings are not shown: rustc warns that code without SSE2 cannot call libraries that use it.
    if !architecture.flat {
        return ExitCode::SUCCESS;
    }
    let written = fs::read(&elf).and_then(|bytes| match only_segment(&bytes) {
        Some(segment) => fs::write(elf.with_extension("img"), segment),
        None => Err(io::Error::other("not an ELF64 file with one segment at 0")),
    });
    if let Err(error) = written {
        println!("cargo::error=cannot convert the built-in guest to an Image: {error}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn compiler(architecture: &Architecture, elf: &Path) -> Command {
    let guest = Path::new(&variable("CARGO_MANIFEST_DIR")).join("guest");
    let mut rustc = Command::new(variable("RUSTC"));
    rustc.args(["--edition=2024", "--crate-name=probe", "--crate-type=bin", "--color=never"]);
    rustc.arg("--target").arg(variable("TARGET"));
    rustc.arg("-o").arg(elf).arg(guest.join("main.rs"));
    let options = [
        "panic=abort",
        "opt-level=s",
        "codegen-units=1",
        "code-model=small",
        "force-unwind-tables=no",
        "link-arg=-nostartfiles",
        "link-arg=-nostdlib",
        "link-arg=-Wl,--build-id=none,--gc-sections,-z,max-page-size=4096",
    ];
    for option in options.iter().chain(architecture.options) {
        rustc.arg("-C").arg(option);
    }
    let script = guest.join(architecture.name).join("link.ld");
    rustc.arg("-C").arg(format!("target-feature={}", architecture.target_features));
    rustc.arg("-C").arg(format!("link-arg=-Wl,-T,{}", script.display()));
    rustc.arg("-C").arg(format!("linker={}", env::var("RUSTC_LINKER").unwrap_or_else(|_| "cc".into())));
    rustc
}

/// The bytes of the only PT_LOAD segment of an ELF64 file (System V ABI, Program Header). `None` if there are several, or it is
/// not at address 0.
fn only_segment(elf: &[u8]) -> Option<&[u8]> {
    const PT_LOAD: u32 = 1;
    let word = |at: usize| Some(u64::from_le_bytes(*elf.get(at..)?.first_chunk()?));
    let half = |at: usize| Some(u16::from_le_bytes(*elf.get(at..)?.first_chunk()?));
    let (first, size, count) = (word(32)? as usize, usize::from(half(54)?), usize::from(half(56)?));
    let mut headers = (0..count)
        .map(|index| first + index * size)
        .filter(|at| word(*at).is_some_and(|lead| lead as u32 == PT_LOAD));
    let header = headers.next()?;
    if headers.next().is_some() || word(header + 16)? != 0 {
        return None;
    }
    let (offset, len) = (word(header + 8)? as usize, word(header + 32)? as usize);
    elf.get(offset..offset.checked_add(len)?)
}

/// A variable that cargo sets for every build script.
fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|error| panic!("{name}: {error}"))
}
