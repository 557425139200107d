//! `ghest plan`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use machine_profile::printable::escaped;
use machine_profile::{Diagnostic, Profile};
use platform::Arch;
use platform::aarch64::Features;
use ras_core::abilities::HostAbilities;
use ras_core::plan::decision::ErrorClass;
use ras_core::plan::{Candidate, ResponsePlan, UnmetRequirement};
use ras_core::{Response, Threshold};
use vmm::board::profile_devices::PlaceError;
use vmm::describe::DescribeError;
use vmm::ledger_file;
use vmm::plan::{Blueprint, PlanError, memory_note};
use vmm::status::Status;

use super::{ArchName, ProfileArgs, diagnostics, input, output, profiles};

#[derive(Args, Debug)]
pub(super) struct Options {
    #[command(flatten)]
    profile: ProfileArgs,
    #[command(flatten)]
    host: HostArgs,
    /// Print the plan as JSON.
    #[arg(long)]
    json: bool,
}

/// The host to plan for.
#[derive(Args, Debug)]
pub(super) struct HostArgs {
    /// Plan for the host whose abilities are in this file, as `ghest probe --abilities` prints them. Default: this host.
    #[arg(long, value_name = "FILE")]
    host: Option<PathBuf>,
    /// Plan for guests of this architecture. Default: this host's. For another one, `--host` has to describe the host:
    /// otherwise nothing is assumed about it.
    #[arg(long, value_enum)]
    arch: Option<ArchName>,
}

impl HostArgs {
    /// The architecture of `--arch`, or this host's.
    pub(super) fn arch(&self) -> Arch {
        self.arch.map_or(Arch::NATIVE, Arch::from)
    }

    /// The abilities of the host.
    pub(super) fn abilities(&self) -> Result<HostAbilities, Status> {
        match &self.host {
            Some(path) => read_abilities(path)
                .map_err(|error| output::report(&format!("{}: {error}", path.display()), Status::Usage)),
            None => Ok(vcpu::abilities::of_this_host(self.arch())),
        }
    }

    /// Whether the plan is for the host that runs it.
    fn is_this(&self) -> bool {
        self.host.is_none() && self.arch() == Arch::NATIVE
    }

    /// The features of the host that shape an aarch64 machine (GIC, PMU). Those of this host if the plan is for it and KVM
    /// can be opened; otherwise the default ones.
    pub(super) fn features(&self) -> Features {
        if self.is_this() { features_of_this_host() } else { Features::default() }
    }
}

/// The features of this host, if KVM can be opened; otherwise the default ones.
pub(super) fn features_of_this_host() -> Features {
    vcpu::host::open().ok().and_then(|kvm| vmm::kvm::offered(&kvm).ok()).unwrap_or_default()
}

/// The maximum length of a file of abilities, in bytes: `ghest probe --abilities` prints less than one KiB.
const MAX_ABILITIES_LEN: u64 = 64 << 10;

fn read_abilities(path: &Path) -> Result<HostAbilities, String> {
    let text = input::read(path, MAX_ABILITIES_LEN)?;
    // The error names line and column.
    serde_json::from_slice(&text)
        .map_err(|error| format!("expected the abilities of a host (`ghest probe --abilities`): {error}"))
}

pub(super) fn run(options: &Options) -> Status {
    let blueprint = match blueprint(&options.profile, &options.host) {
        Ok(blueprint) => blueprint,
        Err(status) => return status,
    };
    if options.json { output::print_json(&blueprint.report) } else { output::print(&text(&blueprint)) }
}

/// Plans a profile, or reports why that fails.
fn blueprint(profile: &ProfileArgs, host: &HostArgs) -> Result<Blueprint, Status> {
    let profile = profiles::load(profile, host.arch())?;
    let abilities = host.abilities()?;
    let blueprint = Blueprint::of(&profile.machine, host.features(), abilities);
    let mut blueprint = blueprint.map_err(|error| refuse(&profile, &error))?;
    if host.is_this() {
        blueprint.report.notes.extend(memory_note(&profile.machine));
        blueprint.report.notes.extend(ledger_file::note(&profile.machine, &blueprint.platform.memory.ram));
    }
    Ok(blueprint)
}

/// Reports why there is no plan.
pub(super) fn refuse(profile: &Profile, error: &PlanError) -> Status {
    let (problem, status) = refusal(profile, error);
    diagnostics::print(&[problem]);
    output::report(&format!("the machine cannot be planned: {error}"), status)
}

fn text(blueprint: &Blueprint) -> String {
    let report = &blueprint.report;
    let (vcpus, memory, ras) = (report.vcpus, report.memory >> 20, &report.ras);
    let mut lines = vec![
        format!("machine       {} ({}, {vcpus} vCPUs, {memory} MiB)", report.machine, report.architecture),
        format!("kernel        {}", report.kernel),
        format!("tables        {}: {}", report.firmware, report.because),
    ];
    for table in &report.tables {
        lines.push(format!("                {:<24} {:>7} bytes at {:#x}", table.name, table.len, table.gpa));
    }
    for (what, response) in [
        ("consumed", &ras.consumed),
        ("detected", &ras.detected),
        ("corrected", &ras.corrected),
        ("by a device", &ras.touched_by_device),
        ("VMM's own", &ras.own_memory),
    ] {
        lines.extend(response_lines(what, response));
    }
    if !report.injection.is_empty() {
        let errors = report.injection.iter().map(|error| format!("{} ({:#x})", error.name, error.bit));
        let errors = errors.collect::<Vec<_>>().join(", ");
        lines.push(format!("injection     by the guest itself (EINJ): {errors}"));
    }
    if blueprint.host == HostAbilities::unknown(blueprint.host.architecture()) {
        lines.push(
            "note          nothing is known about the host: `--host FILE` plans for one, and `ghest probe --abilities` there \
             prints its abilities"
                .to_owned(),
        );
    }
    lines.extend(ras.notes.iter().map(|note| format!("note          {note}")));
    lines.extend(report.notes.iter().map(|note| format!("note          {note}")));
    // A path may hold line ends.
    lines.iter().map(|line| escaped(line) + "\n").collect()
}

/// One class of error: what was requested, what is done, why, and what it takes to get another response.
fn response_lines(what: &str, response: &ResponsePlan) -> Vec<String> {
    let by_default = if response.class == ErrorClass::Corrected { "off" } else { "auto" };
    let requested = response.requested.map_or(by_default, Response::name);
    let mut lines = vec![
        format!("{what:<13} {}{}", response.chosen, if response.degraded { " (degraded)" } else { "" }),
        format!("                requested   {requested}"),
        format!("                because     {}", response.reason),
    ];
    if let Some(source) = response.source {
        lines.push(format!("                source      {source}"));
    }
    if let Some(Threshold { errors, window_ms }) = response.threshold {
        lines.push(format!(
            "                threshold   {errors} errors of one page within {:?}",
            Duration::from_millis(window_ms.get().into())
        ));
    }
    if let Some(fallback) = response.unacknowledged {
        let condition = match response.source {
            Some(_) => "a record is not acknowledged within",
            None => "a machine check is in progress for more than",
        };
        let timeout = response.timeouts.acknowledge_ms;
        lines.push(format!("                fallback    {fallback}, if {condition} {timeout} ms"));
    }
    if response.class == ErrorClass::TouchedByDevice {
        // The candidates are those of the detected errors, above.
        return lines;
    }
    let others = || response.candidates.iter().filter(|candidate| candidate.response != response.chosen);
    let width = others().map(|candidate| candidate.response.name().len()).max().unwrap_or_default().max(7);
    lines.extend(others().map(|candidate| {
        let how = how_to_select(response.class, candidate);
        format!("                not {:<width$} {how}", candidate.response.name())
    }));
    lines
}

/// What a response that was not chosen lacks, and the key of the profile that selects it.
fn how_to_select(class: ErrorClass, candidate: &Candidate) -> String {
    let setting = class.request_field().map(|key| format!("`{key} = \"{}\"`", candidate.response));
    let unmet: Vec<_> = candidate.unmet.iter().map(ToString::to_string).collect();
    match (&candidate.unmet[..], setting) {
        ([], Some(setting)) => format!("possible; {setting} selects it"),
        ([], None) => "possible".to_owned(),
        // The tables describe the sources of the responses that are chosen.
        ([UnmetRequirement::NoSource(_)], Some(setting)) => {
            format!("{}; {setting} adds one", unmet.join("; "))
        }
        _ => unmet.join("; "),
    }
}

/// Why there is no plan, as a diagnostic at the profile's key that caused it.
pub(super) fn refusal(profile: &Profile, error: &PlanError) -> (Diagnostic, Status) {
    let (key, help, status) = match error {
        PlanError::Describe(DescribeError::Devices(PlaceError::TooMany { max, .. })) => {
            (format!("device.{max}.type"), "remove devices", Status::Host)
        }
        PlanError::Describe(DescribeError::Devices(PlaceError::Kind(_))) => {
            ("device".to_owned(), "build ghest with that kind of device", Status::Host)
        }
        PlanError::Describe(DescribeError::AddressBits { .. }) => (
            "machine.memory".to_owned(),
            "use less memory, or a host whose guests have more address bits",
            Status::Host,
        ),
        PlanError::Describe(DescribeError::NoMemoryForInjection) => {
            ("ras.injection".to_owned(), "remove the key, or use more memory", Status::Usage)
        }
        PlanError::Describe(DescribeError::Build(_)) => {
            ("machine.firmware".to_owned(), "use another table set, or fewer vCPUs", Status::Host)
        }
        PlanError::Refused(error) => {
            let field = error.request_field();
            let key = field.map_or("machine.firmware".to_owned(), |field| format!("ras.{field}"));
            let status = if error.is_invalid_request() { Status::Usage } else { Status::Host };
            (key, "use another response, or `on-missing-support = \"degrade\"`", status)
        }
    };
    (profile.problem(&key, error.to_string(), help), status)
}
