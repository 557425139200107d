//! `ghest compare`.

mod child;
mod progress;
mod settings;
mod words;

use std::io::{IsTerminal, stdout};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use compare::{Comparison, Ending, Look, Only, Recording};
use machine_profile::Kernel;
use platform::Arch;
use vmm::kvm::offered;
use vmm::plan::Blueprint;
use vmm::ras::inject;
use vmm::signals::Signals;
use vmm::status::Status;

use self::child::{Boot, Interrupted};
use self::progress::Progress;
use self::settings::{Ordered, Settings};
use super::{ProfileArgs, output, profiles};

#[derive(Args, Debug)]
pub(super) struct Options {
    #[command(flatten)]
    profile: ProfileArgs,
    /// Lose memory of both guests, as `ghest boot --inject` does: `ar@0x2000000`. The built-in guest is told to touch it,
    /// and loses it as it does, unless the profile or the order says otherwise. May be repeated.
    #[arg(long, value_name = "ORDER")]
    inject: Vec<Ordered>,
    /// Show only how the guests boot, or only what becomes of memory errors.
    #[arg(long, value_enum)]
    only: Option<Part>,
    /// How long each guest may take before it counts as hung; without it, 30s for the built-in guest, 180s for others.
    #[arg(long, value_name = "TIME", value_parser = time)]
    limit: Option<Duration>,
    /// Print the comparison as JSON.
    #[arg(long)]
    json: bool,
    /// Write it to this file too, as one page for a browser.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Only name what is the same on both sides: `auto` does so in a terminal.
    #[arg(long, value_enum, default_value = "auto", value_name = "WHEN")]
    fold: Fold,
    /// Columns of the text; without it, those of the terminal, or 120.
    #[arg(long, value_name = "COLUMNS", conflicts_with = "json")]
    width: Option<usize>,
}

/// A part of the comparison.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Part {
    /// Tables, what the guest found, times.
    Boot,
    /// What was lost, what the guest was told, what it did.
    Errors,
}

/// When rows are folded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Fold {
    /// In a terminal.
    Auto,
    /// Everywhere.
    Always,
    /// Nowhere.
    Never,
}

/// The longest that a guest may take.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

fn time(text: &str) -> Result<Duration, String> {
    let time = inject::period(text).filter(|time| !time.is_zero() && *time <= LONGEST);
    time.ok_or_else(|| "a time is a whole number of ms or s, as in `30s`, up to a day".into())
}

pub(super) fn run(options: &Options) -> Status {
    // What is wrong with the profile as it stands is told before anything boots.
    let profile = match profiles::load(&options.profile, Arch::NATIVE) {
        Ok(profile) => profile,
        Err(status) => return status,
    };
    let builtin = profile.machine.boot.kernel == Kernel::BuiltinProbe;
    let (orders, cmdline) = settings::orders(&options.inject, builtin, &profile.machine.boot.cmdline);
    let limit = options.limit.unwrap_or(Duration::from_secs(if builtin { 30 } else { 180 }));
    let directory = match tempfile::Builder::new().prefix("ghest-compare-").tempdir() {
        Ok(directory) => directory,
        Err(error) => {
            return output::say(&format!("no directory for what the guests leave: {error}"), Status::Failure);
        }
    };
    let mut signals = match Signals::take() {
        Ok(signals) => signals,
        Err(error) => return output::say(&format!("no descriptors for signals: {error}"), Status::Failure),
    };
    let mut recordings = Vec::new();
    let mut machine = words::machine(&profile.machine);
    let mut progress = Progress::on_stderr();
    for firmware in settings::table_sets(Arch::NATIVE) {
        let name = firmware.name();
        progress.next(name);
        tracing::info!(tables = name, "a guest boots");
        let recording = match Settings::new(&options.profile, name, cmdline.as_deref()) {
            Ok(Settings { profile, set, changes }) => {
                let plan = blueprint(&profile.machine).map(|blueprint| words::plan(&blueprint.plan));
                machine = words::machine(&profile.machine);
                let boot = Boot {
                    profile: &options.profile.profile,
                    set: &set,
                    orders: &orders,
                    has_socket: profile.machine.control_socket.is_some(),
                    directory: directory.path(),
                    limit,
                };
                match boot.run(&mut signals, &mut progress) {
                    Ok(left) => Recording { tables: name.into(), changes, plan, ..left },
                    Err(Interrupted(signal)) => {
                        progress.clear();
                        return output::say("interrupted: nothing is left running", Status::Signal(signal));
                    }
                }
            }
            Err(why) => child::nothing(name, why),
        };
        tracing::info!(tables = name, ending = ?recording.ending, "a guest has ended");
        recordings.push(recording);
    }
    progress.clear();
    let Ok(recordings) = <[Recording; 2]>::try_from(recordings) else {
        return output::say("an architecture has two kinds of tables", Status::Failure);
    };
    let only = match options.only {
        None => Only::All,
        Some(Part::Boot) => Only::Boot,
        Some(Part::Errors) => Only::Errors,
    };
    let comparison = Comparison::new(machine, words::host(), orders, &recordings, only);
    if let Some(path) = &options.html
        && let Err(error) = std::fs::write(path, compare::html(&comparison))
    {
        return output::say(&format!("{}: {error}", path.display()), Status::Failure);
    }
    let printed = if options.json {
        output::print_json(&comparison)
    } else {
        output::print(&compare::text(&comparison, look(options)))
    };
    let no_host = |side: &compare::Side| matches!(side.ending, Ending::Exited { status: 3, .. });
    if comparison.sides.iter().all(no_host) { Status::Host } else { printed }
}

/// The plan of a machine on this host; none where it is refused, which the boot will say too.
fn blueprint(machine: &machine_profile::Machine) -> Option<Blueprint> {
    let features = vcpu::host::open().ok().and_then(|kvm| offered(&kvm).ok()).unwrap_or_default();
    let abilities = vcpu::abilities::of_this_host(machine.arch);
    Blueprint::of(machine, features, abilities).ok()
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
