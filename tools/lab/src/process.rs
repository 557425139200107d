//! Other programs: run to their end, or started so that they cannot outlive the lab.

use std::ffi::OsStr;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::error::{Context, Error, Result};

/// Runs a program and gives back its standard output.
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

/// As [`output`], for programs that print text.
pub(crate) fn text(command: &mut Command) -> Result<String> {
    String::from_utf8(output(command)?).context("output that is not UTF-8")
}

/// Runs a program with the lab's own terminal.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let status = command.status().context(format_args!("cannot run {name}"))?;
    if status.success() { Ok(()) } else { Err(Error::new(format!("{name}: {status}"))) }
}

/// A command that the kernel kills when the lab goes away, however it goes.
///
/// `setpriv` (util-linux, essential on Debian) sets the parent-death signal and becomes the program. The signal is
/// tied to the thread that starts it: start from the main thread.
pub(crate) fn mortal(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]).arg(program);
    command
}

/// As [`mortal`], in a process group of its own: the terminal's Ctrl-C reaches the lab only.
pub(crate) fn mortal_in_background(program: &Path) -> Command {
    let mut command = mortal(program);
    command.process_group(0).stdin(Stdio::null());
    command
}
