//! A run: scenarios grouped by host, one boot of each host for all of its scenarios, and a verdict for each scenario.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use crate::architecture::Architecture;
use crate::bundle::{self, Bundle, Cache, Unpacked};
use crate::emulator::Emulator;
use crate::error::{Context, Missing, Result};
use crate::host::{self, HardwareErrors, Host};
use crate::image::{Ghest, HostImage, Server, Tools};
use crate::kernel::{self, Kernel, KernelFiles, Module};
use crate::machine::{Boot, Machine};
use crate::package;
use crate::program::{self, Program};
use crate::report::Records;
use crate::scenario::{self, Scenario};
use crate::session::{Aftermath, Session};
use crate::system::{System, SystemFiles};
use crate::verdict::{self, Evidence, Outcome, Verdict};
use crate::workspace::Workspace;

/// Runs scenarios and returns their verdicts. As many hosts run at once as this machine has processors: emulating one takes about one.
pub(crate) fn run(
    workspace: &Workspace,
    cache: &Cache,
    scenarios: &[Scenario],
    keep: bool,
) -> Result<Vec<Verdict>> {
    let at_once = thread::available_parallelism().map_or(1, NonZero::get);
    run_with(workspace, cache, scenarios, keep, at_once, &mut |_, _| {})
}

/// Runs scenarios that measure: one host after the other. `look` is called with each verdict and the transcript of the guest's
/// console.
pub(crate) fn measure(
    workspace: &Workspace,
    cache: &Cache,
    scenarios: &[Scenario],
    look: &mut Look<'_>,
) -> Result<Vec<Verdict>> {
    run_with(workspace, cache, scenarios, false, 1, look)
}

/// Called at the end of a scenario with its verdict and the transcript of its guest's console.
type Look<'a> = dyn FnMut(&Verdict, &[u8]) + Send + 'a;

/// What becomes of the results, for one host at a time.
struct Results<'a> {
    records: Records,
    look: &'a mut Look<'a>,
}

fn run_with<'a>(
    workspace: &Workspace,
    cache: &Cache,
    scenarios: &[Scenario],
    keep: bool,
    at_once: usize,
    look: &'a mut Look<'a>,
) -> Result<Vec<Verdict>> {
    let results = Mutex::new(Results { records: Records::new(&workspace.lab().join("runs"))?, look });
    type Key<'a> = (Architecture, Option<HardwareErrors>, &'a str, Option<System>);
    let mut hosts = BTreeMap::<Key<'_>, VecDeque<&Scenario>>::new();
    for scenario in scenarios {
        let host = (scenario.host, scenario.host_errors, scenario.host_kernel(), scenario.host_system()?);
        hosts.entry(host).or_default().push_back(scenario);
    }
    thread::scope(|scope| -> Result<()> {
        let mut running = VecDeque::new();
        for ((_, _, kernel, system), scenarios) in hosts {
            let Some(first) = scenarios.front() else { continue };
            // Cargo and apt run on this thread only, while the hosts before this one run on theirs.
            match Parts::get(workspace, cache, first.host(), kernel, system, &scenarios) {
                Ok(parts) => {
                    if running.len() == at_once {
                        running.pop_front().map_or(Ok(()), finish)?;
                    }
                    let results = &results;
                    running.push_back(
                        scope.spawn(move || run_on_host(workspace, &parts, scenarios, results, keep)),
                    );
                }
                Err(missing) => {
                    let (outcome, why) = match missing {
                        Missing::Packages(why) => (Outcome::Skipped, why),
                        Missing::Part(why) => (Outcome::Failed, why),
                    };
                    lock(&results).records.unrun(&scenarios, outcome, &why.to_string())?;
                }
            }
        }
        running.into_iter().try_for_each(finish)
    })?;
    results.into_inner().unwrap_or_else(PoisonError::into_inner).records.close()
}

/// Waits for a host.
fn finish(host: ScopedJoinHandle<'_, Result<()>>) -> Result<()> {
    host.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn lock<'m, 'a>(results: &'m Mutex<Results<'a>>) -> MutexGuard<'m, Results<'a>> {
    results.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Everything that a host consists of.
pub(crate) struct Parts {
    pub(crate) host: &'static Host,
    pub(crate) emulator: Emulator,
    pub(crate) image: PathBuf,
    modules: Vec<Module>,
    busybox: PathBuf,
    ghest: Ghest,
    tools: Tools,
    guest_kernels: BTreeMap<&'static str, KernelFiles>,
    systems: BTreeMap<System, SystemFiles>,
    /// The disk of the server that the host runs, and the package of `ghest`.
    server: Option<(PathBuf, PathBuf)>,
    programs: Vec<(&'static Program, Unpacked)>,
    tests: Vec<(&'static str, PathBuf)>,
    versions: BTreeMap<String, String>,
}

impl Parts {
    /// Fetches and builds the parts of a host for these scenarios.
    pub(crate) fn get<'s>(
        workspace: &Workspace,
        cache: &Cache,
        host: &'static Host,
        host_kernel: &str,
        host_system: Option<System>,
        scenarios: impl IntoIterator<Item = &'s &'s Scenario>,
    ) -> std::result::Result<Self, Missing> {
        let architecture = host.architecture;
        let mut kernels = vec![kernel::kernel(architecture, host_kernel).map_err(Missing::Part)?];
        let mut programs = BTreeMap::new();
        let mut systems = BTreeSet::new();
        let mut host_tests = false;
        for scenario in scenarios {
            if let Some(key) = &scenario.kernel {
                kernels.push(kernel::kernel(architecture, key).map_err(Missing::Part)?);
            }
            host_tests |= scenario.host_tests;
            systems.extend(scenario.system().map_err(Missing::Part)?);
            for name in scenario.programs.iter().chain(&scenario.guest_programs) {
                programs.insert(name, program::program(architecture, name).map_err(Missing::Part)?);
            }
        }
        let programs: Vec<_> = programs.into_values().collect();
        let mut bundles = vec![bundle::busybox(architecture)];
        bundles.extend(kernels.iter().map(|kernel| kernel.bundle()));
        bundles.extend(programs.iter().map(|program| program.bundle()));
        bundles.extend(workspace.needs(architecture));
        for bundle in &bundles {
            cache.get(bundle).map_err(Missing::Packages)?;
        }
        let mut system_files = BTreeMap::new();
        for system in systems {
            system_files.insert(system, system.get(&workspace.root, cache)?);
        }
        let emulator = Emulator::get(workspace, cache, host).map_err(Missing::Packages)?;
        let mut server = None;
        if let Some(system) = host_system {
            let files = system.get(&workspace.root, cache)?;
            server = Some((files.path(SystemFiles::DISK), package::package(workspace, cache)?));
        }
        let mut parts = Self::assemble(workspace, cache, emulator, server, &kernels, &programs, &bundles)
            .map_err(Missing::Part)?;
        let versions = system_files.iter().map(|(system, files)| (system.to_string(), files.version.clone()));
        parts.versions.extend(versions);
        parts.systems = system_files;
        if host_tests {
            parts.tests = workspace.host_tests(architecture, cache).map_err(Missing::Part)?;
        }
        Ok(parts)
    }

    /// Builds the parts, with all packages in the cache; the first kernel is the host's.
    fn assemble(
        workspace: &Workspace,
        cache: &Cache,
        emulator: Emulator,
        server: Option<(PathBuf, PathBuf)>,
        kernels: &[&'static Kernel],
        programs: &[&'static Program],
        bundles: &[Bundle],
    ) -> Result<Self> {
        let host_kernel = kernels.first().context("a host needs a kernel")?;
        let (architecture, host) = (host_kernel.architecture, emulator.host);
        let mut files = BTreeMap::new();
        for kernel in kernels {
            files.insert(kernel.key, KernelFiles::find(&cache.get(&kernel.bundle())?)?);
        }
        let host_files = files.get(host_kernel.key).context("a host needs its kernel's files")?;
        let more: &[&str] = if server.is_some() { host::SYSTEM_MODULES } else { &[] };
        let (image, modules) =
            (host_files.image.clone(), host_files.modules(&[host.modules, more].concat())?);
        files.retain(|key, _| kernels.iter().skip(1).any(|kernel| kernel.key == *key));
        let mut versions = BTreeMap::from([(host.emulator.to_owned(), emulator.version.clone())]);
        for bundle in bundles {
            let packages = cache.get(bundle)?.packages.into_iter();
            versions.extend(packages.map(|it| (format!("{}:{}", it.name, it.architecture), it.version)));
        }
        Ok(Self {
            host,
            emulator,
            image,
            modules,
            busybox: cache.get(&bundle::busybox(architecture))?.root.join("bin/busybox"),
            ghest: workspace.ghest(architecture, cache)?,
            tools: workspace.tools(architecture, cache)?,
            guest_kernels: files,
            programs: programs
                .iter()
                .map(|program| Ok((*program, cache.get(&program.bundle())?)))
                .collect::<Result<_>>()?,
            systems: BTreeMap::new(),
            server,
            tests: Vec::new(),
            versions,
        })
    }

    /// The disks of a host that runs these scenarios.
    pub(crate) fn disks(&self, scenarios: &[&Scenario]) -> Result<Vec<PathBuf>> {
        let disks = scenario::disks(scenarios)?.into_iter();
        let disks =
            disks.filter_map(|(_, _, system)| Some(self.systems.get(&system)?.path(SystemFiles::DISK)));
        // The number of the server's own is the last.
        Ok(disks.chain(self.server.iter().map(|(disk, _)| disk.clone())).collect())
    }

    /// Writes the host's initramfs.
    pub(crate) fn write_initramfs(
        &self,
        workspace: &Workspace,
        scenarios: Vec<&Scenario>,
        to: &Path,
    ) -> Result<()> {
        let disk = scenario::disks(&scenarios)?.len();
        let image = HostImage {
            busybox: &self.busybox,
            modules: &self.modules,
            ghest: self.server.is_none().then_some(&self.ghest),
            tools: &self.tools,
            kernels: &self.guest_kernels,
            systems: &self.systems,
            programs: &self.programs,
            tests: &self.tests,
            server: self.server.as_ref().map(|(_, package)| Server { disk, package }),
            scenarios,
        };
        fs::write(to, image.build(&workspace.root)?).context(format_args!("cannot write {}", to.display()))
    }
}

/// Runs all scenarios of a host. It is booted again only after a scenario that has made it unusable.
fn run_on_host(
    workspace: &Workspace,
    parts: &Parts,
    mut waiting: VecDeque<&Scenario>,
    results: &Mutex<Results<'_>>,
    keep: bool,
) -> Result<()> {
    let directory = lock(results).records.host_directory()?;
    let initramfs = directory.join("initramfs.cpio");
    let scenarios: Vec<&Scenario> = waiting.iter().copied().collect();
    let disks = parts.disks(&scenarios)?;
    parts.write_initramfs(workspace, scenarios, &initramfs)?;
    let mut boots = 0;
    let mut repeated = BTreeSet::new();
    while !waiting.is_empty() {
        boots += 1;
        let console = directory.join(format!("console-{boots}.log"));
        let log = directory.join(format!("emulator-{boots}.log"));
        let monitor = directory.join(format!("monitor-{boots}.log"));
        let boot = Boot {
            emulator: &parts.emulator.program,
            kernel: &parts.image,
            initramfs: &initramfs,
            disks: &disks,
            log: &log,
        };
        let began = Instant::now();
        let opened = Machine::start(parts.host, &boot, &console, &monitor).and_then(Session::open);
        let mut session = match opened {
            Ok(session) => session,
            Err(error) => {
                lock(results).records.unrun_on(&waiting, &error.to_string(), &console)?;
                break;
            }
        };
        println!("host {} is up after {:.1} s", parts.host.emulator, began.elapsed().as_secs_f64());
        loop {
            let Some(scenario) = waiting.pop_front() else {
                if let Err(error) = session.close() {
                    eprintln!("{error}; its emulator was killed");
                }
                break;
            };
            let began = Instant::now();
            let before = fs::metadata(&console).map_or(0, |file| file.len() as usize);
            let (evidence, aftermath) = session.run(scenario);
            if verdict::failed_by_the_emulator(scenario, &evidence) && repeated.insert(&scenario.name) {
                println!("REPEATED {}: the emulated processor reset its guest during boot", scenario.name);
                waiting.push_front(scenario);
            } else {
                let verdict = judge(scenario, &evidence, began, parts);
                let mut results = lock(results);
                (results.look)(&verdict, &evidence.transcript);
                results.records.add(verdict, &evidence, &console, before)?;
            }
            match aftermath {
                Aftermath::Usable(again) => session = again,
                Aftermath::Unusable => break,
            }
        }
    }
    if !keep {
        fs::remove_file(&initramfs).context("cannot remove the host's initramfs")?;
    }
    Ok(())
}

fn judge(scenario: &Scenario, evidence: &Evidence, began: Instant, parts: &Parts) -> Verdict {
    let reasons = verdict::faults(scenario, evidence);
    Verdict {
        name: scenario.name.clone(),
        outcome: if reasons.is_empty() { Outcome::Passed } else { Outcome::Failed },
        reasons,
        seconds: began.elapsed().as_secs_f64(),
        steps: evidence.steps.iter().map(Duration::as_secs_f64).collect(),
        ended: evidence.ended.as_ref().map(Duration::as_secs_f64),
        directory: PathBuf::new(),
        versions: parts.versions.clone(),
    }
}
