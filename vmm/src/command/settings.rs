//! A profile for one table set: the overrides with which the same machine has these tables.

use compare::Change;
use machine_profile::{Diagnostic, Machine, Override, Profile, TableSet};
use platform::Arch;
use vmm::plan::{Blueprint, PlanError};

use super::{ProfileArgs, profiles};

/// The table sets that can describe a guest of an architecture.
pub(super) const fn table_sets(arch: Arch) -> [TableSet; 2] {
    match arch {
        Arch::Aarch64 => [TableSet::Acpi, TableSet::Devicetree],
        Arch::X86_64 => [TableSet::Acpi, TableSet::MpTable],
    }
}

/// A profile for one table set.
pub(super) struct Settings {
    pub(super) profile: Profile,
    /// Arguments of `--set`.
    pub(super) set: Vec<String>,
    pub(super) changes: Vec<Change>,
}

/// Keys whose values a table set may not support, and what they become then.
const FALLBACKS: [(&str, &str); 7] = [
    ("ras.synchronous", "auto"),
    ("ras.asynchronous", "auto"),
    ("ras.corrected", "off"),
    ("ras.injection", "false"),
    ("ras.boot-record", "false"),
    // Removed.
    ("ras.persistent-store", ""),
    ("ras.on-budget", "report"),
];

impl Settings {
    /// Sets the table set, and what it does not support to its fallback.
    ///
    /// # Errors
    /// Returns the other problems of the profile.
    pub(super) fn new(args: &ProfileArgs, tables: &str, cmdline: Option<&str>) -> Result<Self, String> {
        let is_ours = |text: &&String| {
            let key = text.split('=').next().unwrap_or_default().trim();
            key == "machine.firmware" || (cmdline.is_some() && key == "boot.cmdline")
        };
        let mut set: Vec<String> = args.set.set.iter().filter(|text| !is_ours(text)).cloned().collect();
        set.push(format!("machine.firmware={tables}"));
        // A JSON string is a TOML string too.
        set.extend(cmdline.map(|cmdline| format!("boot.cmdline={}", serde_json::Value::from(cmdline))));
        let mut changes: Vec<Change> = Vec::new();
        loop {
            let problems = match load(args, &set) {
                Ok(profile) => return Ok(Settings { profile, set, changes }),
                Err(problems) => problems,
            };
            let change = |problem: &Diagnostic| {
                let (key, taken) = FALLBACKS.into_iter().find(|(key, _)| *key == problem.key)?;
                let asked = problem.value().trim_matches('"').to_owned();
                let is_new = !changes.iter().any(|it| it.key == key);
                is_new.then(|| Change { key: key.into(), asked, taken: taken.into() })
            };
            let Some(change) = problems.iter().find_map(change) else {
                let lines = problems.iter().map(|problem| format!("{}: {}", problem.key, problem.message));
                return Err(lines.collect::<Vec<_>>().join("; "));
            };
            set.retain(|text| !text.starts_with(&format!("{}=", change.key)));
            set.push(format!("{}={}", change.key, change.taken));
            changes.push(change);
        }
    }
}

fn load(args: &ProfileArgs, set: &[String]) -> Result<Profile, Vec<Diagnostic>> {
    let overrides: Result<Vec<_>, _> = set.iter().map(|text| Override::parse(text)).collect();
    overrides
        .map_err(|problem| vec![problem])
        .and_then(|it| profiles::load_one(&args.profile, &it, Arch::NATIVE))
}

/// The plan of a machine on this host.
///
/// # Errors
/// Returns an error if the machine cannot be described, or if its profile requires what the host does not support.
pub(super) fn blueprint(machine: &Machine) -> Result<Blueprint, PlanError> {
    let abilities = vcpu::abilities::of_this_host(machine.arch);
    Blueprint::of(machine, super::plan::features_of_this_host(), abilities)
}
