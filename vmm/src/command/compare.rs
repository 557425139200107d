//! `ghest compare`.

mod conversion;
mod injections;

use std::io::{IsTerminal, stdout};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use compare::{Comparison, Ending, Look, Only, Recording};
use machine_profile::Kernel;
use platform::Arch;
use vmm::progress::Progress;
use vmm::ras::inject;
use vmm::signals::Signals;
use vmm::status::Status;

use self::injections::GivenSpec;
use super::child::{self, Boot, Interrupted};
use super::settings::{self, Settings};
use super::{ProfileArgs, host_files, output, profiles};

#[derive(Args, Debug)]
pub(super) struct Options {
    #[command(flatten)]
    profile: ProfileArgs,
    /// Inject a memory error into both guests, as `ghest boot --inject` does: `ar@0x2000000`. The built-in guest accesses the
    /// page, and the page is poisoned when it does, unless the profile or the spec says otherwise. May be repeated.
    #[arg(long, value_name = "SPEC")]
    inject: Vec<GivenSpec>,
    /// Show only how the guests boot, or only how memory errors are reported.
    #[arg(long, value_enum)]
    only: Option<Part>,
    /// How long each guest may run before it counts as hung. Default: 30s for the built-in guest, 180s for others.
    #[arg(long, value_name = "TIME", value_parser = time)]
    limit: Option<Duration>,
    /// Print the comparison as JSON.
    #[arg(long)]
    json: bool,
    /// Also write the comparison to this file, as an HTML page.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Print only the names of rows that are the same on both sides. `auto`: in a terminal.
    #[arg(long, value_enum, default_value = "auto", value_name = "WHEN")]
    fold: Fold,
    /// Columns of the text. Default: those of the terminal, or 120.
    #[arg(long, value_name = "COLUMNS", conflicts_with = "json")]
    width: Option<usize>,
}

/// A part of the comparison.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Part {
    /// Tables, what the guest detected, times.
    Boot,
    /// Memory errors, how the guest was notified, what it did.
    Errors,
}

/// When rows are folded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Fold {
    /// If standard output is a terminal.
    Auto,
    /// Also elsewhere.
    Always,
    /// Not at all.
    Never,
}

/// The longest `--limit`.
const MAX_LIMIT: Duration = Duration::from_secs(24 * 60 * 60);

pub(super) fn time(text: &str) -> Result<Duration, String> {
    let time = inject::parse_time(text).filter(|time| !time.is_zero() && *time <= MAX_LIMIT);
    time.ok_or_else(|| "expected a whole number of ms or s up to a day, for example `30s`".into())
}

pub(super) fn run(options: &Options) -> Status {
    // Problems of the profile itself are reported before anything boots.
    let profile = match profiles::load(&options.profile, Arch::NATIVE) {
        Ok(profile) => profile,
        Err(status) => return status,
    };
    let outputs = [("--html", options.html.as_deref())];
    if let Err(reason) = host_files::check_outputs(&options.profile.profile, &profile, &outputs) {
        return output::report(&reason, Status::Usage);
    }
    let builtin = profile.machine.boot.kernel == Kernel::BuiltinProbe;
    let (injections, cmdline) =
        injections::injections(&options.inject, builtin, &profile.machine.boot.cmdline);
    let limit = options.limit.unwrap_or(Duration::from_secs(if builtin { 30 } else { 180 }));
    let mut signals = match Signals::install() {
        Ok(signals) => signals,
        Err(error) => return output::report(&error.to_string(), Status::Failure),
    };
    let requests = signals.stops_are_requests();
    let directory = match tempfile::Builder::new().prefix("ghest-compare-").tempdir() {
        Ok(directory) => directory,
        Err(error) => {
            return output::report(&format!("mkdtemp(3) for the guests' files: {error}"), Status::Failure);
        }
    };
    let mut recordings = Vec::new();
    let mut machine = conversion::machine(&profile.machine);
    let mut progress = Progress::on_stderr(options.json);
    for (index, firmware) in settings::table_sets(Arch::NATIVE).into_iter().enumerate() {
        let name = firmware.name();
        tracing::info!(tables = name, "a guest boots");
        let recording = match Settings::new(&options.profile, name, cmdline.as_deref()) {
            Ok(Settings { profile, set, changes }) => {
                let plan =
                    settings::blueprint(&profile.machine).ok().map(|blueprint| conversion::plan(&blueprint));
                machine = conversion::machine(&profile.machine);
                let boot = Boot {
                    profile: &options.profile.profile,
                    set: &set,
                    injections: &injections,
                    has_socket: profile.machine.control_socket.is_some(),
                    directory: directory.path(),
                    limit,
                    until: &|_| false,
                    label: format!("[{}/2] {name}", index + 1),
                };
                match boot.run(&mut signals, &mut progress) {
                    Ok(left) => Recording { tables: name.into(), changes, plan, ..left },
                    Err(Interrupted(signal)) => {
                        progress.clear();
                        return output::report(
                            "interrupted: nothing is left running",
                            Status::Signal(signal),
                        );
                    }
                }
            }
            Err(why) => child::not_started(name, why),
        };
        tracing::info!(tables = name, ending = ?recording.ending, "a guest has ended");
        recordings.push(recording);
    }
    progress.clear();
    // From here on a signal ends the process immediately, so nothing must be left to remove.
    drop(directory);
    drop(requests);
    let Ok(recordings) = <[Recording; 2]>::try_from(recordings) else {
        return output::report("internal error: an architecture has two table sets", Status::Failure);
    };
    let only = match options.only {
        None => Only::All,
        Some(Part::Boot) => Only::Boot,
        Some(Part::Errors) => Only::Errors,
    };
    let comparison = Comparison::new(machine, conversion::host(), injections, &recordings, only);
    if let Some(path) = &options.html
        && let Err(error) = std::fs::write(path, compare::html(&comparison))
    {
        return output::report(&format!("{}: {error}", path.display()), Status::Failure);
    }
    let printed = if options.json {
        output::print_json(&comparison)
    } else {
        output::print(&compare::text(&comparison, look(options)))
    };
    let no_host = |side: &compare::Side| matches!(side.ending, Ending::Exited { status: 3, .. });
    if comparison.sides.iter().all(no_host) { Status::Host } else { printed }
}

fn look(options: &Options) -> Look {
    let terminal = stdout().is_terminal();
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
        || std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    let columns = || rustix::termios::tcgetwinsize(stdout()).ok().map(|size| usize::from(size.ws_col));
    let width = options.width.or_else(|| columns().filter(|columns| terminal && *columns > 0));
    Look {
        width: width.unwrap_or(120),
        colour: terminal && !plain,
        fold: match options.fold {
            Fold::Auto => terminal,
            Fold::Always => true,
            Fold::Never => false,
        },
    }
}
