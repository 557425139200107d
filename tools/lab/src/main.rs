//! The lab: emulated hosts with real KVM, built from Debian's packages, and the scenarios that run on them.

mod agent;
mod apt;
mod architecture;
mod bench;
mod beside;
mod bundle;
mod compare;
mod conversation;
mod cpio;
mod emulator;
mod error;
mod fuzz;
mod host;
mod image;
mod kernel;
mod libraries;
mod machine;
mod matrix;
mod package;
mod process;
mod program;
mod ras_check;
mod report;
mod run;
mod scenario;
mod session;
mod setup;
mod suite;
mod system;
mod verdict;
mod workspace;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::apt::Release;
use crate::architecture::Architecture;
use crate::bundle::Cache;
use crate::error::{Context, Error, Result};
use crate::host::Host;
use crate::machine::Boot;
use crate::report::Count;
use crate::run::Parts;
use crate::scenario::{Scenario, Set};
use crate::workspace::Workspace;

/// Emulated hosts with KVM and memory failure handling, for what this machine's own /dev/kvm cannot do
#[derive(Parser)]
#[command(name = "cargo lab", bin_name = "cargo lab")]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Use this program on hosts instead of building ghest; it suits hosts of one architecture only
    #[arg(long, global = true, value_name = "PROGRAM")]
    ghest: Option<PathBuf>,
    /// Include the scenarios of the full set, not only those of the default set
    #[arg(long, global = true)]
    full: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Install what this machine needs (compilers, table readers) and unpack emulators; removes no package, prints nothing if nothing is missing
    Setup,
    /// Fetch the newest Debian kernels and tools that the scenarios need into the cache
    Fetch,
    /// Run scenarios on emulated hosts
    Run(Choice),
    /// Open a shell on an emulated host, with ghest and its scenarios on it
    Shell {
        /// Architecture of the host
        #[arg(long, default_value = "x86_64")]
        host: Architecture,
        /// Kernel of the host, by its key
        #[arg(long)]
        host_kernel: Option<String>,
    },
    /// Set up, run the workspace's tests, the checks of the library crates and the scenarios
    Test,
    /// Check the library crates: packages, features, documentation, public API
    Libraries {
        /// Write the files that list the public API
        #[arg(long)]
        update: bool,
    },
    /// Poison a page of a guest under ghest and under QEMU, and print what each reports, side by side
    BesideQemu {
        /// Rewrite docs/beside-qemu.md
        #[arg(long)]
        document: bool,
    },
    /// Compare one guest under both table sets, with a page of it poisoned on an emulated host
    Compare(compare::Options),
    /// Check the memory failure handling of Debian's kernels with `ghest ras-check`, on emulated hosts
    RasCheck(ras_check::Options),
    /// Fuzz the devices and parsers: a million inputs for each target
    Fuzz(fuzz::Options),
    /// Build the Debian package of ghest, with its unit, manual pages, completions and schemas (by cargo-deb, which is built into the
    /// cache if it is not there)
    Package,
    /// Measure ghest: on this machine's own /dev/kvm, and beside another VMM, here and on emulated hosts
    Bench {
        /// Only these parts
        parts: Vec<bench::Part>,
    },
}

#[derive(Args)]
struct Choice {
    /// Only scenarios whose names contain one of these; a complete name also selects one of the full set
    filters: Vec<String>,
    /// Only scenarios on hosts of this architecture
    #[arg(long)]
    host: Option<Architecture>,
    /// List the scenarios instead of running them
    #[arg(long)]
    list: bool,
    /// Keep the initramfs of each host beside the transcripts
    #[arg(long)]
    keep: bool,
}

fn main() -> ExitCode {
    match execute(Cli::parse()) {
        Ok(None) => ExitCode::SUCCESS,
        Ok(Some(count)) => {
            println!("{count}");
            if count.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("lab: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Executes a command; returns the count of tests or scenarios, if it runs any.
fn execute(Cli { command, ghest, full }: Cli) -> Result<Option<Count>> {
    let workspace = Workspace::find(ghest, matches!(command, Command::Bench { .. }))?;
    if matches!(command, Command::Setup) {
        setup::setup()?;
        return emulator::prepare(&workspace, &Cache::new(workspace.cache(), false)).map(|()| None);
    }
    if let Command::Libraries { update } = command {
        return libraries::check(&workspace, update).map(Some);
    }
    if let Command::Fuzz(options) = command {
        return fuzz::fuzz(&workspace, &options).map(Some);
    }
    if matches!(command, Command::Package) {
        let package = package::package(&workspace, &Cache::new(workspace.cache(), false))?;
        println!("{}", package.display());
        return Ok(None);
    }
    let all = scenario::load(&workspace.scenarios())?;
    let in_set = |scenario: &Scenario| full || scenario.set == Set::Default;
    let cache_directory = workspace.cache();
    let cache = |refresh| Cache::new(cache_directory.clone(), refresh);
    if let Command::Run(choice) = command {
        let is_chosen = |scenario: &Scenario| choice.takes(scenario, in_set(scenario));
        let chosen: Vec<Scenario> = all.into_iter().filter(is_chosen).collect();
        if chosen.is_empty() {
            return Err(Error::new("no scenario matches: see cargo lab run --list --full"));
        }
        if choice.list {
            for Scenario { host, set, name, .. } in &chosen {
                println!("{:8} {:8} {name}", host.to_string(), set.to_string());
            }
            return Ok(None);
        }
        let verdicts = run::run(&workspace, &cache(false), &chosen, choice.keep)?;
        return Ok(Some(Count::of(&verdicts)));
    }
    if let Command::Compare(options) = command {
        return compare::compare(&options, &workspace, &cache(false), all);
    }
    if let Command::RasCheck(options) = command {
        return ras_check::ras_check(&options, &workspace, &cache(false), all);
    }
    let scenarios: Vec<Scenario> = all.into_iter().filter(in_set).collect();
    match command {
        Command::Setup
        | Command::Libraries { .. }
        | Command::Fuzz(_)
        | Command::Package
        | Command::Run(_)
        | Command::Compare(_)
        | Command::RasCheck(_) => Ok(None),
        Command::Fetch => fetch(&workspace, &cache(true), &scenarios).map(|()| None),
        Command::Shell { host, host_kernel } => {
            shell(&workspace, &cache(false), host, host_kernel, &scenarios).map(|()| None)
        }
        Command::Test => {
            suite::check_space(&workspace);
            setup::setup()?;
            let cache = cache(false);
            // Tests report what they need and are ignored without it.
            if let Err(error) = emulator::prepare(&workspace, &cache) {
                eprintln!("no emulators: {error}");
            }
            if let Err(error) = workspace.prepare_compiler(&cache) {
                eprintln!("no compiler for aarch64: {error}");
            }
            let promtool = cache.get(&bundle::promtool());
            let promtool = promtool.inspect_err(|error| eprintln!("no promtool: {error}")).ok();
            let tests = suite::cargo_test(&workspace, promtool.as_ref())?;
            let checks = libraries::check(&workspace, false)?;
            let runs = Count::of(&run::run(&workspace, &cache, &scenarios, false)?);
            println!("cargo test: {tests}\nlibraries:  {checks}\nscenarios:  {runs}");
            Ok(Some(tests + checks + runs))
        }
        Command::BesideQemu { document } => {
            beside::beside_qemu(&workspace, &cache(false), document).map(Some)
        }
        Command::Bench { parts } => bench::bench(&workspace, &cache(false), &parts).map(|()| None),
    }
}

impl Choice {
    fn takes(&self, scenario: &Scenario, is_in_set: bool) -> bool {
        let contains = |part: &String| scenario.name.contains(part.as_str());
        let named = self.filters.contains(&scenario.name)
            || is_in_set && (self.filters.is_empty() || self.filters.iter().any(contains));
        named && self.host.is_none_or(|host| host == scenario.host)
    }
}

fn fetch(workspace: &Workspace, cache: &Cache, scenarios: &[Scenario]) -> Result<()> {
    let mut bundles = vec![bundle::rust()];
    bundles.extend(emulator::is_unpacked().then(|| bundle::emulators(Release::Bookworm)));
    for scenario in scenarios {
        let release = scenario.host().release;
        bundles.extend((release != Release::Bookworm).then(|| bundle::emulators(release)));
        let kernels = [Some(scenario.host_kernel()), scenario.kernel.as_deref()];
        for key in kernels.into_iter().flatten() {
            bundles.push(kernel::kernel(scenario.host, key)?.bundle());
        }
        bundles.push(bundle::busybox(scenario.host));
        for name in &scenario.programs {
            bundles.push(program::program(scenario.host, name)?.bundle());
        }
    }
    bundles.sort_by(|a, b| a.name.cmp(&b.name));
    bundles.dedup_by(|a, b| a.name == b.name);
    for bundle in bundles {
        for package in cache.get(&bundle)?.packages {
            println!("{:20} {}:{} {}", bundle.name, package.name, package.architecture, package.version);
        }
    }
    let systems = scenarios
        .iter()
        .flat_map(|scenario| [scenario.system(), scenario.host_system()])
        .collect::<Result<Vec<_>>>()?;
    for system in systems.into_iter().flatten().collect::<BTreeSet<_>>() {
        println!("{:20} {}", system.to_string(), system.get(&workspace.root, cache)?.version);
    }
    Ok(())
}

fn shell(
    workspace: &Workspace,
    cache: &Cache,
    architecture: Architecture,
    kernel: Option<String>,
    scenarios: &[Scenario],
) -> Result<()> {
    let host = Host::of(architecture);
    let key = kernel.unwrap_or_else(|| host.kernel.to_owned());
    let on_host: Vec<&Scenario> = scenarios
        .iter()
        .filter(|scenario| scenario.host == architecture && scenario.host_system.is_none())
        .collect();
    let parts = Parts::get(workspace, cache, host, &key, None, &on_host)?;
    let directory = tempfile::tempdir().context("cannot create a directory for the initramfs")?;
    let initramfs = directory.path().join("initramfs.cpio");
    let disks = parts.disks(&on_host)?;
    parts.write_initramfs(workspace, on_host, &initramfs)?;
    println!("Ctrl-A x ends the emulation immediately");
    let log = directory.path().join("emulator.log");
    let boot = Boot {
        emulator: &parts.emulator.program,
        kernel: &parts.image,
        initramfs: &initramfs,
        disks: &disks,
        log: &log,
    };
    machine::interactive(parts.host, &boot)
}
