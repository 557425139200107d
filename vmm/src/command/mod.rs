//! The command line: commands and their options.

mod boot;
mod check;
mod child;
mod compare;
mod ctl;
mod decode;
mod diagnostics;
mod encode;
mod host_files;
mod input;
mod logging;
mod man;
mod output;
mod plan;
mod probe;
mod profiles;
mod ras_check;
mod schema;
mod settings;
mod tables;

use std::io::{Write, stderr};
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use machine_profile::printable::{escaped_lines, is_printable};
use platform::Arch;
use vmm::status::Status;
use vmm::timings::Timings;

use logging::LogFormat;

/// Boots virtual machines from TOML profiles, and reports host memory errors to their guests as a physical server does.
#[derive(Debug, Parser)]
#[command(
    name = "ghest",
    version,
    after_help = "Exit statuses:\n  \
        0    the guest shut down, or the command succeeded\n  \
        1    an internal or I/O error\n  \
        2    bad usage or a bad profile\n  \
        3    this host cannot do what was requested\n  \
        4    the guest crashed\n  \
        5    a checked guest did something else than expected (ras-check)\n  \
        10   stopped by the profile's response to a memory error\n  \
        11   a memory error in the VMM's own memory\n  \
        12   stopped because its error budget is spent: start it on another host\n  \
        128+ stopped by that signal\n\n\
        `ghest COMMAND --help` describes each command."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    global: Global,
}

#[derive(Args, Debug)]
struct Global {
    /// Log more to standard error: info, twice for debug, three times for trace.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    /// Format of the log on standard error.
    #[arg(long, global = true, value_enum, default_value_t, value_name = "FORMAT")]
    log_format: LogFormat,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Boot a machine. Its console is standard input and output.
    ///
    /// In a terminal every key goes to the guest, except for escape sequences: `Ctrl-A x` stops the machine, `Ctrl-A h` prints
    /// help.
    Boot(boot::Options),
    /// Boot a profile's guest with each table set of this architecture, and compare the boots side by side.
    ///
    /// Same guest, same memory errors: once with ACPI, once with a devicetree (arm64) or an MP table (x86_64). Responses of the
    /// profile's `[ras]` that the other table set does not support become `auto`, and the comparison says so. Each guest boots in
    /// its own process: if one crashes or hangs, this is reported, and the comparison still has the other side.
    ///
    /// In the text, `*` marks differences and `~` measured values.
    #[command(after_help = "Examples:\n  \
        ghest compare config-examples/quickstart.toml\n  \
        ghest compare config-examples/quickstart.toml --inject ar@0x2000000\n  \
        ghest compare config-examples/quickstart.toml --inject ao@0x2000000 --html errors.html\n\n\
        The exit status is 0 if both sides were recorded, however the guests ended.")]
    Compare(compare::Options),
    /// Check a guest kernel's memory failure handling: inject errors of each kind in each place, and judge what the guest does.
    ///
    /// The profile's kernel boots once for each case: tables, kind of error, response to it, and what the poisoned page is used for.
    /// Its initrd has the program `victim ras-check`, which prepares the page and reports what it got. Events, the kernel's messages
    /// and these reports are judged by a table of expectations, which has the differences between kernel versions. A case that this
    /// host or this kernel cannot have is skipped, with the reason.
    #[command(after_help = "Examples:\n  \
        ghest ras-check profile.toml --initrd ras-check.initrd\n  \
        ghest ras-check profile.toml --via madvise --junit results.xml\n  \
        ghest ras-check profile.toml --place kernel-text --place page-table --kind consumed --via madvise\n\n\
        The exit status is 0 if every case that was checked is as expected, and 5 if one is not, or has no expectation.\n\
        docs/ras-check.md: the initrd, the guest's program, the expectations.")]
    RasCheck(Box<ras_check::Options>),
    /// Send a request to a running machine through its control socket.
    Ctl(ctl::Options),
    /// Validate profiles. Prints nothing if they are valid, otherwise every problem with its line and column.
    Check(check::Options),
    /// Print what a profile requests, which tables its guest gets, how each kind of memory error is reported, and why.
    Plan(plan::Options),
    /// Write every table that the guest would get to a file. Needs no KVM.
    Tables(tables::Options),
    /// Decode error records.
    ///
    /// Recognised are error status blocks and regions of BERT, CPER records, their files in efivarfs, and sections behind their
    /// descriptor; one or several in a file; in binary, or in hexadecimal as of `xxd` and `hexdump -C`.
    #[command(after_help = "Examples:\n  \
        ghest decode /sys/firmware/acpi/tables/data/BERT\n  \
        ghest decode --json /sys/firmware/efi/efivars/HwErrRec0001-414e6bdd-e47b-47cc-b244-bb61020cf516\n  \
        ssh server xxd record | ghest decode -")]
    Decode(decode::Options),
    /// Encode error records: the inverse of `decode --json`.
    ///
    /// The description is an object in JSON: a status block with its `entry` list, a CPER record with its `section` list, a section
    /// with its `severity`, or a file of these, as `decode --json` prints them. Counts, lengths and validation bits follow from what
    /// is there. So do the status, the severity and the revision of a block or a record, if they are omitted; other fields that are
    /// omitted are zero, and not valid. Addresses, masks and bytes are text: hexadecimal, numbers with `0x`.
    ///
    /// An unknown key, a value that its field cannot have, and keys that contradict one another are errors.
    #[command(after_help = "Examples:\n  \
        ghest decode --json record | ghest encode - --out copy\n  \
        ghest encode description.json --out record\n  \
        ghest encode description.json | ghest ctl control inject --record - --source 1")]
    Encode(encode::Options),
    /// Print the capabilities of this host, and what each missing one costs.
    Probe(probe::Options),
    /// Print the JSON Schema of profiles.
    Schema(schema::Options),
    /// Print a completion script for a shell.
    Completions(man::CompletionsOptions),
    /// Print the manual page, or write those of all commands to a directory.
    Man(man::ManOptions),
}

/// A profile and its overrides.
#[derive(Args, Clone, Debug)]
struct ProfileArgs {
    /// The machine's profile, a TOML file.
    #[arg(value_name = "PROFILE")]
    profile: PathBuf,
    #[command(flatten)]
    set: SetArgs,
}

#[derive(Args, Clone, Debug)]
struct SetArgs {
    /// Override a key of the profile, with the same checks: `--set machine.vcpus=4`. `--set boot.initrd=` removes a key that may be
    /// omitted. May be repeated.
    #[arg(long, value_name = "PATH=VALUE")]
    set: Vec<String>,
}

/// An architecture, on the command line.
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

/// Parses the command line and runs the command.
pub(crate) fn run(timings: Timings) -> Status {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // clap returns help and version as errors too. They go to standard output.
            let status = if error.use_stderr() { Status::Usage } else { Status::Success };
            // An error repeats arguments, and its own colours cannot be distinguished from their characters.
            let hostile = std::env::args_os().any(|word| !word.to_string_lossy().chars().all(is_printable));
            let printed = if error.use_stderr() && hostile {
                write!(stderr().lock(), "{}", escaped_lines(&error.render().to_string()))
            } else {
                error.print()
            };
            return if printed.is_ok() { status } else { Status::Failure };
        }
    };
    vmm::stderr::set_format(cli.global.log_format.into());
    logging::start(cli.global.verbose, cli.global.log_format);
    match cli.command {
        Command::Boot(options) => boot::run(&options, timings),
        Command::Compare(options) => compare::run(&options),
        Command::RasCheck(options) => ras_check::run(&options),
        Command::Ctl(options) => ctl::run(&options),
        Command::Check(options) => check::run(&options),
        Command::Plan(options) => plan::run(&options),
        Command::Tables(options) => tables::run(&options),
        Command::Decode(options) => decode::run(&options),
        Command::Encode(options) => encode::run(&options),
        Command::Probe(options) => probe::run(&options),
        Command::Schema(options) => schema::run(&options),
        Command::Completions(options) => man::completions(&options),
        Command::Man(options) => man::man(&options),
    }
}
