//! `ghest man` and `ghest completions`: documentation that follows from the definition of the command line.

use std::path::PathBuf;

use clap::{Args, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;
use vmm::status::Status;

use super::{Cli, output};

#[derive(Args, Debug)]
pub(super) struct ManOptions {
    /// Write the pages of all commands to this directory: ghest.1, ghest-boot.1 ... Without it, that of ghest is printed.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(super) struct CompletionsOptions {
    /// The shell.
    #[arg(value_enum)]
    shell: Shell,
}

/// `ghest completions`.
pub(super) fn completions(options: &CompletionsOptions) -> Status {
    let mut script = Vec::new();
    clap_complete::generate(options.shell, &mut Cli::command(), "ghest", &mut script);
    output::print(&String::from_utf8_lossy(&script))
}

/// `ghest man`.
pub(super) fn man(options: &ManOptions) -> Status {
    let Some(directory) = &options.out else {
        let mut page = Vec::new();
        // Writing to a Vec does not fail.
        let _ = Man::new(Cli::command().disable_help_subcommand(true)).render(&mut page);
        return output::print(&String::from_utf8_lossy(&page));
    };
    let written =
        std::fs::create_dir_all(directory).and_then(|()| clap_mangen::generate_to(Cli::command(), directory));
    match written {
        Ok(()) => Status::Success,
        Err(error) => output::report(&format!("{}: {error}", directory.display()), Status::Failure),
    }
}
