//! The commands: what they are called, what they take, and what each does.

mod boot;
mod check;
mod compare;
mod ctl;
mod decode;
mod diagnostics;
mod logging;
mod output;
mod plan;
mod probe;
mod profiles;
mod schema;
mod tables;

use std::path::PathBuf;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use platform::Arch;
use vmm::status::Status;
use vmm::timings::Timings;

use logging::LogFormat;

/// Boots virtual machines from TOML profiles, and tells their guests the truth about broken memory.
#[derive(Debug, Parser)]
#[command(
    name = "ghest",
    version,
    after_help = "Exit statuses:\n  \
        0    the guest shut down, or the command succeeded\n  \
        1    an internal or I/O error\n  \
        2    bad usage or a bad profile\n  \
        3    this host cannot do what was asked\n  \
        4    the guest crashed\n  \
        10   stopped by the profile's answer to a memory error\n  \
        11   a memory error in the VMM's own memory\n  \
        128+ stopped by that signal\n\n\
        `ghest COMMAND --help` tells more of each command."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    global: Global,
}

#[derive(Args, Debug)]
struct Global {
    /// Say more on stderr; twice for even more.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    /// How log lines on stderr are written.
    #[arg(long, global = true, value_enum, default_value_t, value_name = "FORMAT")]
    log_format: LogFormat,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Boot a machine; its console is on stdin and stdout.
    ///
    /// In a terminal every key goes to the guest, but those after Ctrl-A: `Ctrl-A x` stops the machine, `Ctrl-A h` helps.
    Boot(boot::Options),
    /// Boot a profile's guest under each kind of tables of this architecture, and show both side by side.
    ///
    /// Same guest, same memory errors: once described by ACPI, once by a devicetree (arm64) or an MP table (x86_64). What the
    /// other tables cannot carry of the profile's `[ras]` becomes `auto`, and is told. Each guest boots in a process of its own:
    /// one that crashes or hangs is told as that, and the other side still comes out.
    ///
    /// In the text, `*` marks what differs and `~` what was measured.
    #[command(after_help = "Examples:\n  \
        ghest compare config-examples/quickstart.toml\n  \
        ghest compare config-examples/quickstart.toml --inject ar@0x2000000\n  \
        ghest compare config-examples/quickstart.toml --inject ao@0x2000000 --html errors.html\n\n\
        Its exit status is 0 when both sides came out, whatever became of the guests.")]
    Compare(compare::Options),
    /// Ask something of a running machine by its control socket.
    Ctl(ctl::Options),
    /// Validate profiles: silent when they are good, else every problem with its place.
    Check(check::Options),
    /// Print what a profile asks for, which tables its guest gets, what becomes of memory errors, and why.
    Plan(plan::Options),
    /// Write every table as the guest would find it. Needs no KVM.
    Tables(tables::Options),
    /// Decode an error status block or a CPER record.
    Decode(decode::Options),
    /// Print what this host can do, and what each thing it cannot do costs.
    Probe(probe::Options),
    /// Print the JSON Schema of profiles.
    Schema,
    /// Print a completion script for a shell.
    Completions {
        /// The shell.
        #[arg(value_enum)]
        shell: Shell,
    },
}

/// A profile and what is set over it.
#[derive(Args, Debug)]
struct ProfileArgs {
    /// The machine's profile, a TOML file.
    #[arg(value_name = "PROFILE")]
    profile: PathBuf,
    #[command(flatten)]
    set: SetArgs,
}

#[derive(Args, Debug)]
struct SetArgs {
    /// Set a key over the profile, with the same checks: `--set machine.vcpus=4`. May be repeated.
    #[arg(long, value_name = "PATH=VALUE")]
    set: Vec<String>,
}

/// An architecture, as a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ArchName {
    #[value(name = "aarch64")]
    Aarch64,
    #[value(name = "x86_64")]
    X86_64,
}

impl From<ArchName> for Arch {
    fn from(name: ArchName) -> Self {
        match name {
            ArchName::Aarch64 => Arch::Aarch64,
            ArchName::X86_64 => Arch::X86_64,
        }
    }
}

/// Does what the command line says.
pub(crate) fn run(timings: Timings) -> Status {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no errors, and clap knows where each belongs.
            let status = if error.use_stderr() { Status::Usage } else { Status::Success };
            return if error.print().is_ok() { status } else { Status::Failure };
        }
    };
    output::set_format(cli.global.log_format);
    logging::start(cli.global.verbose, cli.global.log_format);
    match cli.command {
        Command::Boot(options) => boot::run(&options, timings),
        Command::Compare(options) => compare::run(&options),
        Command::Ctl(options) => ctl::run(&options),
        Command::Check(options) => check::run(&options),
        Command::Plan(options) => plan::run(&options),
        Command::Tables(options) => tables::run(&options),
        Command::Decode(options) => decode::run(&options),
        Command::Probe(options) => probe::run(&options),
        Command::Schema => schema::run(),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "ghest", &mut script);
            output::print(&String::from_utf8_lossy(&script))
        }
    }
}
