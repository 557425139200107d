//! Child processes that run to their end, or that are killed when the lab ends.

use std::ffi::OsStr;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::error::{Context, Error, Result};

/// Runs a program and returns its standard output.
pub(crate) fn output(command: &mut Command) -> Result<Vec<u8>> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().context(format_args!("cannot run {name}"))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let arguments: Vec<_> = command.get_args().map(OsStr::to_string_lossy).collect();
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Error::new(format!("{name} {}: {}\n{}", arguments.join(" "), output.status, said.trim_end())))
}

/// The same as [`output`], for programs that print text.
pub(crate) fn text(command: &mut Command) -> Result<String> {
    String::from_utf8(output(command)?).context("output that is not UTF-8")
}

/// Runs a program with the lab's own terminal.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let status = command.status().context(format_args!("cannot run {name}"))?;
    if status.success() { Ok(()) } else { Err(Error::new(format!("{name}: {status}"))) }
}

/// A command that the kernel kills when the lab ends, for whatever reason.
///
/// `setpriv` (util-linux, essential on Debian) sets the parent-death signal and executes the program. The signal is sent when the
/// thread that started it ends: start it from one that waits for it.
pub(crate) fn mortal(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]).arg(program);
    command
}

/// The same as [`mortal`], in its own process group: the terminal's Ctrl-C is sent to the lab only.
pub(crate) fn mortal_in_background(program: &Path) -> Command {
    let mut command = mortal(program);
    command.process_group(0).stdin(Stdio::null());
    command
}
