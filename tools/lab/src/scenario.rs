//! Scenarios: what runs on a host, its input, and the expected results. A scenario is data.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer};

use crate::architecture::Architecture;
use crate::conversation::{Step, variables};
use crate::error::{Context, Error, Result};
use crate::host::{HardwareErrors, Host};
use crate::system::System;
use crate::{kernel, matrix, program};

/// One scenario, after expansion of its file's matrix.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Scenario {
    /// Unique among all scenarios; names its output directory.
    pub(crate) name: String,
    /// Architecture of the emulated host.
    pub(crate) host: Architecture,
    /// The set that it belongs to; the widest of several.
    #[serde(default, deserialize_with = "widest")]
    pub(crate) set: Set,
    /// Kernel of the host, by its key; the host has a default.
    host_kernel: Option<String>,
    /// The errors that the host's hardware reports.
    pub(crate) host_errors: Option<HardwareErrors>,
    /// The release of a Debian server that the host runs, with its systemd, instead of the lab's own init. Its `ghest` is what the
    /// package `/lab/ghest.deb` installs.
    pub(crate) host_system: Option<String>,
    /// Shell script that runs on the host, in a directory that contains `profile.toml`, `kernel` and `initrd`, or `vmlinuz`,
    /// `initrd.img` and `debian.img`, if the scenario has them. Files in `out/` are collected.
    #[serde(default = "boot_profile")]
    pub(crate) command: String,
    /// The profile's text.
    pub(crate) profile: Option<String>,
    /// The path of a profile in the checkout, instead of the text.
    pub(crate) profile_from: Option<PathBuf>,
    /// Kernel of the guest, by its key.
    pub(crate) kernel: Option<String>,
    /// The release of a Debian server whose disk, kernel and initrd the scenario has.
    pub(crate) system: Option<String>,
    /// Shell script at the end of the guest's init.
    pub(crate) init: Option<String>,
    /// Kernel modules that the guest's init loads before, with their dependencies.
    #[serde(default)]
    pub(crate) modules: Vec<String>,
    /// Programs that its host has beside `ghest`, by their names.
    #[serde(default)]
    pub(crate) programs: Vec<String>,
    /// Programs that the guest's initramfs has beside busybox and `victim`.
    #[serde(default)]
    pub(crate) guest_programs: Vec<String>,
    /// Whether its host has the tests that need memory failure handling.
    #[serde(default)]
    pub(crate) host_tests: bool,
    /// Seconds until the command is killed and the scenario fails.
    #[serde(default = "two_minutes")]
    pub(crate) limit: u64,
    /// Exit status that the command must have.
    #[serde(default)]
    pub(crate) status: i32,
    /// The console's script.
    #[serde(default, rename = "step")]
    pub(crate) steps: Vec<Step>,
    /// Expected texts.
    #[serde(default)]
    pub(crate) see: Vec<Seen>,
    /// Texts that must not appear on the guest's console, besides those that no Linux guest may print.
    #[serde(default)]
    pub(crate) never: Vec<String>,
    /// Lines that contain one of these are ignored by `never`.
    #[serde(default)]
    pub(crate) allow: Vec<String>,
    /// Expected events.
    #[serde(default, rename = "event")]
    pub(crate) events: Vec<ExpectedEvent>,
    /// Expected values in JSON files.
    #[serde(default)]
    pub(crate) json: Vec<ExpectedValue>,
}

/// Which runs a scenario belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Set {
    /// Every run.
    #[default]
    Default,
    /// Runs with `--full`.
    Full,
}

impl fmt::Display for Set {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Default => "default",
            Self::Full => "full",
        })
    }
}

/// An expected text.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Seen {
    /// `$NAME` in it is replaced by a captured word.
    pub(crate) text: String,
    /// The exact number; at least 1 if absent.
    pub(crate) count: Option<usize>,
    /// A file in `out/` instead of the guest's console.
    pub(crate) file: Option<String>,
}

/// Expected events.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExpectedEvent {
    /// Keys and values of such an event, which may have others too. The value `"$NAME"` is a captured number.
    pub(crate) has: serde_json::Map<String, serde_json::Value>,
    /// The exact number; at least 1 if absent.
    pub(crate) count: Option<usize>,
    /// Events with the same value of this key are counted once.
    pub(crate) distinct: Option<String>,
}

/// An expected value in a JSON file in `out/`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExpectedValue {
    pub(crate) file: String,
    /// JSON pointer (RFC 6901) to the value.
    pub(crate) at: String,
    pub(crate) is: serde_json::Value,
}

/// One set, or a list with one for each axis of a matrix.
fn widest<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Set, D::Error> {
    let sets = match toml::Value::deserialize(deserializer)? {
        toml::Value::Array(sets) => sets,
        set => vec![set],
    };
    let sets = sets.into_iter().map(Set::deserialize).collect::<std::result::Result<Vec<_>, _>>();
    Ok(sets.map_err(serde::de::Error::custom)?.into_iter().max().unwrap_or_default())
}

fn boot_profile() -> String {
    "ghest boot profile.toml --events out/events.jsonl --timings out/timings.json".to_owned()
}

fn two_minutes() -> u64 {
    120
}

impl Scenario {
    /// Its host.
    pub(crate) fn host(&self) -> &'static Host {
        self.host_errors.map_or_else(|| Host::of(self.host), Host::reporting)
    }

    /// The key of the kernel that the host runs.
    pub(crate) fn host_kernel(&self) -> &str {
        self.host_kernel.as_deref().unwrap_or(self.host().kernel)
    }

    /// The system that its host runs.
    pub(crate) fn host_system(&self) -> Result<Option<System>> {
        self.host_system.as_deref().map(|release| System::new(self.host, release)).transpose()
    }

    /// Whether its guest is Linux.
    pub(crate) fn is_linux(&self) -> bool {
        self.kernel.is_some() || self.system.is_some()
    }

    /// The system that its guest boots from a disk.
    pub(crate) fn system(&self) -> Result<Option<System>> {
        self.system.as_deref().map(|release| System::new(self.host, release)).transpose()
    }

    fn check(&self) -> Result<()> {
        let is_fit = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-._".contains(c);
        if self.name.is_empty() || !self.name.chars().all(is_fit) {
            return Err(Error::new(format!(
                "name {:?}: lower case, digits, '-', '_' and '.' only",
                self.name
            )));
        }
        if self.profile.is_some() && self.profile_from.is_some() {
            return Err(Error::new("profile and profile-from exclude each other"));
        }
        if !self.modules.is_empty() && (self.kernel.is_none() || self.init.is_none()) {
            return Err(Error::new("modules: kernel and init are required"));
        }
        if self.host_system.is_some() && self.host != Architecture::X86_64 {
            return Err(Error::new("host-system: x86_64 only, for which the package is built"));
        }
        let of_host = self.host().architecture;
        if of_host != self.host {
            return Err(Error::new(format!("host-errors: these are of {of_host}")));
        }
        self.steps.iter().try_for_each(Step::check)?;
        let captures = |name: &str| self.steps.iter().any(|step| step.capture.contains_key(name));
        let of_events = self.events.iter().flat_map(|event| event.has.values());
        let texts = self.see.iter().map(|seen| seen.text.as_str());
        for text in texts.chain(of_events.filter_map(serde_json::Value::as_str)) {
            if let Some(name) = variables(text).find(|name| !captures(name)) {
                return Err(Error::new(format!("{text:?}: nothing captures ${name}")));
            }
        }
        if !self.guest_programs.is_empty() && self.init.is_none() {
            return Err(Error::new("guest-programs: init is required"));
        }
        for name in self.programs.iter().chain(&self.guest_programs) {
            program::program(self.host, name)?;
        }
        self.system()?;
        self.host_system()?;
        kernel::kernel(self.host, self.host_kernel())?;
        self.kernel.as_deref().map_or(Ok(()), |key| kernel::kernel(self.host, key).map(drop))
    }
}

/// All scenarios of a directory, in the order of their files.
pub(crate) fn load(directory: &Path) -> Result<Vec<Scenario>> {
    let listing = fs::read_dir(directory).context(format_args!("cannot list {}", directory.display()))?;
    let mut paths: Vec<PathBuf> = listing.flatten().map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    paths.sort();
    let mut scenarios = Vec::new();
    for path in paths {
        let text = fs::read_to_string(&path).context(format_args!("cannot read {}", path.display()))?;
        scenarios.extend(parse(&text).context(path.display())?);
    }
    let mut names = BTreeSet::new();
    match scenarios.iter().find(|scenario| !names.insert(scenario.name.as_str())) {
        Some(twice) => Err(Error::new(format!("two scenarios are called {}", twice.name))),
        None => Ok(scenarios),
    }
}

/// The disks of a host that runs these scenarios: their numbers, the scenarios, and the systems on them. Each scenario has its own.
pub(crate) fn disks<'s>(scenarios: &[&'s Scenario]) -> Result<Vec<(usize, &'s Scenario, System)>> {
    let mut disks = Vec::new();
    for scenario in scenarios {
        if let Some(system) = scenario.system()? {
            disks.push((disks.len(), *scenario, system));
        }
    }
    Ok(disks)
}

fn parse(text: &str) -> Result<Vec<Scenario>> {
    let file: toml::Table = toml::from_str(text).context("not TOML")?;
    let parse = |table: toml::Table| {
        let scenario: Scenario = table.try_into().context("not a scenario")?;
        scenario.check().map(|()| scenario)
    };
    matrix::expand(file)?.into_iter().map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system;

    const SMALL: &str = "name = 'a'\nhost = 'x86_64'\n";

    #[test]
    fn omitted_keys_have_defaults() {
        let scenario = parse(SMALL).unwrap().remove(0);
        assert_eq!((scenario.status, scenario.limit, scenario.host_kernel()), (0, 120, "6.1"));
        assert_eq!(scenario.set, Set::Default);
        let set = |sets: &str| parse(&format!("{SMALL}set = {sets}")).unwrap().remove(0).set;
        assert_eq!(["'full'", "['default', 'default']"].map(set), [Set::Full, Set::Default]);
        assert_eq!(["['default', 'full']", "[]"].map(set), [Set::Full, Set::Default]);
        assert!(scenario.command.starts_with("ghest boot profile.toml "));
    }

    #[test]
    fn mistakes_are_errors() {
        let error = |more: &str| parse(&format!("{SMALL}{more}")).unwrap_err().to_string();
        assert!(error("limits = 3").contains("unknown field `limits`"));
        assert!(error("see = [{ txt = 'x' }]").contains("unknown field `txt`"));
        assert!(error("programs = ['vi']").contains("unknown program \"vi\""));
        assert!(error("guest-programs = ['fio']").contains("init is required"));
        assert!(error("init = ''\nguest-programs = ['vi']").contains("unknown program \"vi\""));
        assert!(error("kernel = '2.4'").contains("known: 6.1, 6.12, 7.3"));
        assert!(error("system = 'potato'").contains("known: bookworm, trixie"));
        assert!(error("host-system = 'potato'").contains("known: bookworm, trixie"));
        assert!(error("profile = ''\nprofile-from = 'x'").contains("exclude each other"));
        assert!(error("init = ''\nmodules = ['evdev']").contains("kernel and init are required"));
        assert!(error("set = 'all'").contains("unknown variant `all`"));
        assert!(error("see = [{ text = 'at $page' }]").contains("nothing captures $page"));
        assert!(error("event = [{ has = { gpa = '$page' } }]").contains("nothing captures $page"));
        assert!(error("step = [{ expect = 'x', times = 0 }]").contains("times = 0"));
        assert!(
            error("step = [{ expect = 'x', capture = { A = 'b' } }]").contains("\"A\" = \"b\": a variable")
        );
        assert!(error("step = [{ expect = 'x', answer = \"a\\nb\" }]").contains("one line: \"a\\nb\""));
        assert!(parse("name = 'A/b'\nhost = 'x86_64'").unwrap_err().to_string().contains("lower case"));
        assert!(parse("name = 'a'\nhost = 'riscv'").unwrap_err().to_string().contains("riscv"));
    }

    #[test]
    fn names_are_unique_across_files() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("one.toml"), SMALL).unwrap();
        fs::write(directory.path().join("README.md"), "not a scenario").unwrap();
        assert_eq!(load(directory.path()).unwrap().len(), 1);
        fs::write(directory.path().join("two.toml"), SMALL).unwrap();
        assert_eq!(load(directory.path()).unwrap_err().to_string(), "two scenarios are called a");
    }

    #[test]
    fn the_scenarios_of_the_checkout_are_valid() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/scenarios");
        let scenarios = load(&directory).unwrap();
        let boots = |prefix: &str| scenarios.iter().filter(|it| it.name.starts_with(prefix)).count();
        assert_eq!((boots("linux-boot-"), boots("arm64-boot-")), (8, 18));
        for benchmark in ["benchmark", "benchmark-server", "benchmark-throughput"] {
            load(&directory.join(benchmark)).unwrap();
        }
    }

    #[test]
    fn servers_run_the_commands_of_the_document() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let documented =
            system::commands_for_the_machine(&fs::read_to_string(root.join(system::PAGE)).unwrap());
        let scenarios = load(&root.join("tests/scenarios")).unwrap();
        let servers: Vec<_> = scenarios.iter().filter(|scenario| scenario.system.is_some()).collect();
        assert!(servers.len() >= 6 && documented.lines().count() >= 3, "{documented}");
        for server in servers {
            let steps = server.steps.iter().filter_map(|step| step.host.as_deref());
            let run = steps.chain([server.command.as_str()]).collect::<Vec<_>>().join("\n");
            for command in documented.lines() {
                assert!(run.contains(command), "{}: {command}", server.name);
            }
        }
    }

    #[test]
    fn each_scenario_with_a_system_has_its_own_disk() {
        let scenario = |more: &str| parse(&format!("{SMALL}{more}")).unwrap().remove(0);
        let (one, other, two) = (scenario("system = 'trixie'"), scenario(""), scenario("system = 'trixie'"));
        let scenarios = [&one, &other, &two];
        let numbers: Vec<_> = disks(&scenarios).unwrap().iter().map(|(number, ..)| *number).collect();
        assert_eq!(numbers, [0, 1]);
    }
}
