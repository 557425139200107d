//! A run: scenarios grouped by host, one boot of a host for all of its scenarios, a verdict for each.

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::architecture::Architecture;
use crate::bundle::{self, Cache, Unpacked};
use crate::error::{Context, Result};
use crate::host::Host;
use crate::image::{Ghest, HostImage};
use crate::kernel::{self, Kernel, KernelFiles, Module};
use crate::machine::{Boot, Machine};
use crate::report::{Count, Records};
use crate::scenario::Scenario;
use crate::session::{Aftermath, Session};
use crate::verdict::{self, Evidence, Outcome, Verdict};
use crate::workspace::Workspace;

/// Runs scenarios and says how many came out how.
pub(crate) fn run(workspace: &Workspace, cache: &Cache, scenarios: &[Scenario], keep: bool) -> Result<Count> {
    let mut records = Records::new(&workspace.lab().join("runs"))?;
    let mut hosts = BTreeMap::<(Architecture, &str), VecDeque<&Scenario>>::new();
    for scenario in scenarios {
        hosts.entry((scenario.host, scenario.host_kernel())).or_default().push_back(scenario);
    }
    for ((architecture, kernel), scenarios) in hosts {
        match Parts::get(workspace, cache, architecture, kernel, &scenarios) {
            Ok(parts) => run_on_host(workspace, &parts, scenarios, &mut records, keep)?,
            Err(Missing::Packages(why)) => records.unrun(&scenarios, Outcome::Skipped, &why)?,
            Err(Missing::Program(why)) => records.unrun(&scenarios, Outcome::Failed, &why)?,
        }
    }
    records.close()
}

/// Everything that a host is put together from.
pub(crate) struct Parts {
    pub(crate) host: &'static Host,
    pub(crate) image: PathBuf,
    modules: Vec<Module>,
    busybox: PathBuf,
    ghest: Ghest,
    guest_kernels: Vec<(&'static str, PathBuf)>,
    versions: BTreeMap<String, String>,
}

/// What keeps a host from being put together.
pub(crate) enum Missing {
    /// Packages could not be had, as without a network.
    Packages(String),
    /// The checkout does not build.
    Program(String),
}

impl Parts {
    pub(crate) fn get<'s>(
        workspace: &Workspace,
        cache: &Cache,
        architecture: Architecture,
        host_kernel: &str,
        scenarios: impl IntoIterator<Item = &'s &'s Scenario>,
    ) -> std::result::Result<Self, Missing> {
        let packages = |error: crate::error::Error| Missing::Packages(error.to_string());
        let host = Host::of(architecture);
        let mut used = Vec::new();
        let mut fetch = |bundle| -> Result<Unpacked> {
            let unpacked = cache.get(&bundle)?;
            used.push(unpacked.clone());
            Ok(unpacked)
        };
        let mut kernel_files =
            |kernel: &Kernel| -> Result<KernelFiles> { KernelFiles::find(&fetch(kernel.bundle())?) };
        let files = kernel::kernel(architecture, host_kernel).and_then(&mut kernel_files).map_err(packages)?;
        let mut guest_kernels = Vec::<(&str, PathBuf)>::new();
        for key in scenarios.into_iter().filter_map(|scenario| scenario.kernel.as_deref()) {
            if !guest_kernels.iter().any(|(have, _)| *have == key) {
                let guest = kernel::kernel(architecture, key).map_err(packages)?;
                guest_kernels.push((guest.key, kernel_files(guest).map_err(packages)?.image));
            }
        }
        let busybox = fetch(bundle::busybox(architecture)).map_err(packages)?.root.join("bin/busybox");
        let (ghest, toolchain) =
            workspace.ghest(architecture, cache).map_err(|error| Missing::Program(error.to_string()))?;
        used.extend(toolchain);
        let versions = used.into_iter().flat_map(|unpacked| unpacked.packages);
        Ok(Self {
            host,
            image: files.image.clone(),
            modules: files.modules(host.modules).map_err(packages)?,
            busybox,
            ghest,
            guest_kernels,
            versions: versions
                .map(|package| (format!("{}:{}", package.name, package.architecture), package.version))
                .collect(),
        })
    }

    /// Writes the host's initramfs.
    pub(crate) fn write_initramfs(&self, workspace: &Workspace, scenarios: Vec<&Scenario>, to: &Path) -> Result<()> {
        let kernels = self.guest_kernels.iter().map(|(key, path)| (*key, path.as_path())).collect();
        let image = HostImage {
            busybox: &self.busybox,
            modules: &self.modules,
            ghest: &self.ghest,
            kernels,
            scenarios,
        };
        fs::write(to, image.build(&workspace.root)?).context(format_args!("cannot write {}", to.display()))
    }
}

/// Runs all scenarios of a host, on as few boots of it as they leave it alive for.
fn run_on_host(
    workspace: &Workspace,
    parts: &Parts,
    mut waiting: VecDeque<&Scenario>,
    records: &mut Records,
    keep: bool,
) -> Result<()> {
    let directory = records.host_directory()?;
    let initramfs = directory.join("initramfs.cpio");
    parts.write_initramfs(workspace, waiting.iter().copied().collect(), &initramfs)?;
    let mut boots = 0;
    while !waiting.is_empty() {
        boots += 1;
        let console = directory.join(format!("console-{boots}.log"));
        let log = directory.join(format!("emulator-{boots}.log"));
        let boot = Boot { kernel: &parts.image, initramfs: &initramfs, log: &log };
        let began = Instant::now();
        let opened = Machine::start(parts.host, &boot, &console).and_then(Session::open);
        let mut session = match opened {
            Ok(session) => session,
            Err(error) => {
                records.unrun_on(&waiting, &error.to_string(), &console)?;
                break;
            }
        };
        println!("host {} is up after {:.1} s", parts.host.emulator, began.elapsed().as_secs_f64());
        loop {
            let Some(scenario) = waiting.pop_front() else {
                if let Err(error) = session.close() {
                    eprintln!("{error}; it was ended");
                }
                break;
            };
            let began = Instant::now();
            let (evidence, aftermath) = session.run(scenario);
            let verdict = judge(scenario, &evidence, began, parts);
            records.add(verdict, &evidence, &console)?;
            match aftermath {
                Aftermath::Usable(again) => session = again,
                Aftermath::Lost => break,
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
        versions: parts.versions.clone(),
    }
}
