//! `ghest ras-check`.

mod case;
mod expectation;
mod facts;
mod junit;
mod report;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use compare::{Console, Recording};
use machine_profile::Kernel;
use platform::Arch;
use tempfile::TempDir;
use vmm::progress::Progress;
use vmm::ras::inject::InjectionMethod;
use vmm::signals::Signals;
use vmm::status::Status;

use self::case::{Case, Choice, Kind, Place, Planned};
use self::expectation::Expectations;
use self::facts::Facts;
use self::report::{Checked, Report};
use super::child::{Boot, Interrupted};
use super::settings::Settings;
use super::{ProfileArgs, SetArgs, compare as comparison, host_files, output, profiles};

#[derive(Args, Debug)]
pub(super) struct Options {
    #[command(flatten)]
    profile: ProfileArgs,
    /// The guest's initrd, in place of the profile's: its init is or starts `victim ras-check`.
    #[arg(long, value_name = "FILE")]
    initrd: Option<PathBuf>,
    /// Only errors of this kind. May be repeated, as the other filters.
    #[arg(long, value_enum)]
    kind: Vec<Kind>,
    /// Only in this place.
    #[arg(long, value_enum)]
    place: Vec<Place>,
    /// Only with this response: a value of `ras.synchronous` or `ras.asynchronous`; `auto` is what the plan chooses.
    #[arg(long, value_name = "RESPONSE", value_parser = case::response)]
    response: Vec<Option<ras_core::Response>>,
    /// Only with these tables: acpi, and devicetree (arm64) or mptable (x86_64).
    #[arg(long, value_name = "TABLES", value_parser = case::tables)]
    tables: Vec<machine_profile::TableSet>,
    /// Every place under every response. Without it, places other than `user` are checked under the response of `auto` with ACPI
    /// only: what a guest does about a page does not depend on how it was notified.
    #[arg(long)]
    full: bool,
    /// How pages are poisoned. A memslot hole (simulate) cannot stand for a page that the guest's kernel or a device consumes:
    /// such cases are skipped without `madvise`.
    #[arg(long, value_enum, default_value = "simulate")]
    via: InjectionMethod,
    /// Judge by these expectations, in place of the built-in ones.
    #[arg(long, value_name = "FILE")]
    expectations: Option<PathBuf>,
    /// How long each guest may run before it counts as hung.
    #[arg(long, value_name = "TIME", value_parser = comparison::time, default_value = "120s")]
    limit: Duration,
    /// Print the cases, and boot nothing.
    #[arg(long, conflicts_with_all = ["json", "junit"])]
    list: bool,
    /// Print the results as JSON.
    #[arg(long)]
    json: bool,
    /// Also write the results to this file, as JUnit XML.
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
}

/// The disk that the guest may overwrite: its length in bytes.
const DISK_LEN: u64 = 8 << 20;
/// The serial by which the guest's program knows that disk.
const DISK_SERIAL: &str = "ras-check";

pub(super) fn run(options: &Options) -> Status {
    match prepare(options) {
        Ok(run) if options.list => run.list(),
        Ok(run) => run.check(options),
        Err(status) => status,
    }
}

/// What is checked.
struct Run<'a> {
    profile: &'a Path,
    expectations: Expectations,
    planned: Vec<Planned>,
    /// The child must not use the profile's socket.
    has_socket: bool,
    directory: TempDir,
}

fn prepare(options: &Options) -> Result<Run<'_>, Status> {
    let usage = |reason: &str| Err(output::report(reason, Status::Usage));
    if options.via == InjectionMethod::Notice {
        return usage("--via notice poisons nothing: use simulate or madvise");
    }
    let expectations = match Expectations::load(options.expectations.as_deref()) {
        Ok(expectations) => expectations,
        Err(reason) => return usage(&reason),
    };
    let path = &options.profile.profile;
    let mut set = options.profile.set.set.clone();
    if let Some(initrd) = &options.initrd {
        let initrd = std::path::absolute(initrd).unwrap_or_else(|_| initrd.clone());
        set.push(format!("boot.initrd={}", serde_json::Value::from(initrd.to_string_lossy())));
    }
    let args = ProfileArgs { profile: path.clone(), set: SetArgs { set } };
    let profile = profiles::load(&args, Arch::NATIVE)?;
    let boot = &profile.machine.boot;
    if boot.kernel == Kernel::BuiltinProbe {
        return usage(
            "the built-in guest does not handle memory errors as Linux does: the profile needs `boot.kernel`, a kernel to check",
        );
    }
    if boot.initrd.is_none() {
        return usage(
            "no initrd: --initrd or the profile's `boot.initrd` names one whose init is or starts `victim ras-check`",
        );
    }
    let outputs = [("--junit", options.junit.as_deref())];
    if let Err(reason) = host_files::check_outputs(path, &profile, &outputs) {
        return usage(&reason);
    }
    let failed =
        |what: &str, error: std::io::Error| Err(output::report(&format!("{what}: {error}"), Status::Failure));
    let directory = match tempfile::Builder::new().prefix("ghest-ras-check-").tempdir() {
        Ok(directory) => directory,
        Err(error) => return failed("mkdtemp(3) for the guests' files", error),
    };
    let disk = directory.path().join("disk");
    if let Err(error) = File::create(&disk).and_then(|file| file.set_len(DISK_LEN)) {
        return failed(&disk.display().to_string(), error);
    }
    let index = profile.machine.devices.len();
    let mut args = args;
    args.set.set.extend([
        "machine.on-reboot=exit".to_owned(),
        format!("device.{index}.type=virtio-block"),
        format!("device.{index}.path={}", serde_json::Value::from(disk.to_string_lossy())),
        format!("device.{index}.serial={DISK_SERIAL}"),
    ]);
    let choice = Choice {
        kinds: &options.kind,
        places: &options.place,
        responses: &options.response,
        tables: &options.tables,
        full: options.full,
        via: options.via,
    };
    let planned = match choice.plan(&args, &profile.machine) {
        Ok(planned) => planned,
        Err(reason) => return usage(&reason),
    };
    if planned.is_empty() {
        return usage("no case matches these options: see --list");
    }
    let has_socket = profile.machine.control_socket.is_some();
    Ok(Run { profile: path, expectations, planned, has_socket, directory })
}

impl Run<'_> {
    fn list(&self) -> Status {
        let lines = self.planned.iter().map(|planned| match &planned.boot {
            Ok(_) => format!("{}\n", planned.case),
            Err(reason) => format!("{} (skipped: {reason})\n", planned.case),
        });
        output::print_text(&lines.collect::<String>())
    }

    fn check(self, options: &Options) -> Status {
        let mut signals = match Signals::install() {
            Ok(signals) => signals,
            Err(error) => return output::report(&error.to_string(), Status::Failure),
        };
        let requests = signals.stops_are_requests();
        let mut progress = Progress::on_stderr(options.json);
        let mut report = Report::new(Arch::NATIVE);
        let count = self.planned.len();
        for (number, Planned { case, boot }) in (1..).zip(&self.planned) {
            let facts = match boot {
                Err(reason) => Facts::skipped(reason),
                Ok(settings) => {
                    let label = format!("[{number}/{count}] {case}");
                    match self.boot(case, settings, options.limit, label, &mut signals, &mut progress) {
                        Ok(facts) => facts,
                        Err(Interrupted(signal)) => {
                            progress.clear();
                            return output::report(
                                "interrupted: nothing is left running",
                                Status::Signal(signal),
                            );
                        }
                    }
                }
            };
            // Without the program every case would run to its time limit.
            if report.ran() == 0 && !facts.has_spoken() {
                progress.clear();
                return output::report(&facts.silence(case), Status::Failure);
            }
            report.push(Checked::new(Arch::NATIVE, *case, facts, &self.expectations));
        }
        progress.clear();
        drop(self);
        drop(requests);
        if let Some(path) = &options.junit
            && let Err(error) = std::fs::write(path, junit::xml(&report))
        {
            return output::report(&format!("{}: {error}", path.display()), Status::Failure);
        }
        let printed =
            if options.json { output::print_json(&report) } else { output::print_text(&report.text()) };
        match printed {
            Status::Success if !report.is_as_expected() => Status::Unexpected,
            printed => printed,
        }
    }

    fn boot(
        &self,
        case: &Case,
        settings: &Settings,
        limit: Duration,
        label: String,
        signals: &mut Signals,
        progress: &mut Progress,
    ) -> Result<Facts, Interrupted> {
        let injection = case.injection();
        let boot = Boot {
            profile: self.profile,
            set: &settings.set,
            injections: &[injection],
            has_socket: self.has_socket,
            directory: self.directory.path(),
            limit,
            until: &facts::is_last_line,
            label,
        };
        let began = Instant::now();
        let Recording { console, events, stderr, ending, .. } = boot.run(signals, progress)?;
        let lines: Vec<&str> = Console::lines(&console).map(|line| line.text.as_str()).collect();
        Ok(Facts::new(&lines, &events, &stderr, &ending, began.elapsed()))
    }
}
