//! `cargo lab test`: all tests in one command.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use crate::bundle::Unpacked;
use crate::error::{Context, Error, Result};
use crate::process;
use crate::report::Count;
use crate::workspace::Workspace;

/// What a whole run in a fresh checkout writes: packages, builds, transcripts.
const SPACE_MIB: u64 = 6 << 10;

/// Warns on standard error of a disk that may be too small for a run: compilers and emulators do not name that cause clearly.
pub(crate) fn check_space(workspace: &Workspace) {
    let mut df = Command::new("df");
    df.args(["--block-size=1M", "--output=avail"]).arg(&workspace.root);
    let free = process::text(&mut df).ok().and_then(|text| text.lines().nth(1)?.trim().parse::<u64>().ok());
    if let Some(free) = free.filter(|free| *free < SPACE_MIB) {
        eprintln!(
            "{free} MiB are free at {}: a run from nothing writes about {SPACE_MIB} MiB",
            workspace.root.display()
        );
    }
}

/// Runs the workspace's tests, and prints their output. `prometheus` is the package with promtool, if there is one beside this machine's.
pub(crate) fn cargo_test(workspace: &Workspace, prometheus: Option<&Unpacked>) -> Result<Count> {
    let mut cargo = workspace.cargo();
    if let Some(Unpacked { root, .. }) = prometheus {
        cargo.env("PROMTOOL", root.join("usr/bin/promtool"));
    }
    cargo.args(["test", "--workspace", "--no-fail-fast"]).stdout(Stdio::piped());
    let mut child = cargo.spawn().context("cannot run cargo")?;
    let mut count = Count::default();
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).lines() {
            let line = line.context("cannot read cargo's output")?;
            println!("{line}");
            if let Some(result) = test_result(&line) {
                count = count + result;
            }
        }
    }
    let status = child.wait().context("cannot wait for cargo")?;
    if !status.success() && count.failed == 0 {
        return Err(Error::new(format!("cargo test: {status}")));
    }
    Ok(count)
}

/// `test result: ok. 3 passed; 0 failed; 1 ignored; ...`
fn test_result(line: &str) -> Option<Count> {
    let (_, numbers) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let number = |what: &str| {
        numbers.split(';').find_map(|part| part.trim().strip_suffix(what)?.trim().parse::<usize>().ok())
    };
    Some(Count { passed: number("passed")?, failed: number("failed")?, skipped: number("ignored")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_of_a_test_program_is_parsed() {
        let line = "test result: FAILED. 12 passed; 1 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.1s";
        assert_eq!(test_result(line), Some(Count { passed: 12, failed: 1, skipped: 2 }));
        assert_eq!(test_result("test cpio ... ok"), None);
    }
}
