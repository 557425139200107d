//! `cargo lab fuzz`: runs the fuzz targets of `tools/fuzz` with libFuzzer.
//!
//! The compiler of the workspace builds them, with LLVM's coverage instrumentation: neither cargo-fuzz nor a nightly compiler is needed.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;

use crate::error::{Context, Error, Result};
use crate::process;
use crate::report::Count;
use crate::verdict::Outcome;
use crate::workspace::Workspace;

#[derive(Args)]
pub(crate) struct Options {
    /// Only these targets
    targets: Vec<String>,
    /// Inputs of each target
    #[arg(long, default_value_t = 1_000_000, value_name = "NUMBER")]
    runs: u64,
    /// Seconds for each target, in place of a number of inputs
    #[arg(long, conflicts_with = "runs", value_name = "SECONDS")]
    time: Option<u64>,
    /// Afterwards replace the seeds by a few of all inputs that are known, which together reach most of the same code
    #[arg(long)]
    update_seeds: bool,
}

/// What the compiler does for libFuzzer: counters and a table of the places that an input reaches, and the operands of comparisons.
const INSTRUMENTATION: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
                               -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
                               -Cllvm-args=-sanitizer-coverage-pc-table \
                               -Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing";

/// The longest time for an input, in seconds: it is a hang otherwise.
const TIMEOUT: u32 = 20;
/// The most memory of a target, in MiB.
const MEMORY: u32 = 1024;
/// Bytes of the longest input.
const MAX_LEN: u32 = 4096;
/// Inputs besides the seeds that a target begins with: directories of the checkout.
const OTHER_SEEDS: [(&str, &[&str]); 1] = [("profile", &["config-examples", "tests/profiles"])];
/// Bytes of the longest seed, and the most seeds of a target.
const MAX_SEED_LEN: u64 = 512;
const MAX_SEEDS: usize = 12;

const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// Lines of a log that are printed after a failure.
const LAST_LINES: usize = 60;

/// A target, and where its files are.
struct Target {
    name: String,
    program: PathBuf,
    /// In the checkout.
    seeds: PathBuf,
    /// Inputs that are kept from one run to the next.
    corpus: PathBuf,
    /// Inputs that show a fault.
    artifacts: PathBuf,
    log: PathBuf,
}

/// A target that runs.
struct Running {
    target: Target,
    child: Child,
    since: Instant,
}

/// Runs targets, as many at a time as there are CPUs, and prints a line for each.
pub(crate) fn fuzz(workspace: &Workspace, options: &Options) -> Result<Count> {
    let mut waiting = VecDeque::from(targets(workspace, &options.targets)?);
    let scratch = tempfile::tempdir().context("cannot create a directory for the targets' files")?;
    let parallel = thread::available_parallelism().map_or(1, usize::from);
    let (mut running, mut count) = (Vec::new(), Count::default());
    while !(waiting.is_empty() && running.is_empty()) {
        while running.len() < parallel
            && let Some(target) = waiting.pop_front()
        {
            running.push(target.start(workspace, options, scratch.path())?);
        }
        thread::sleep(POLL_INTERVAL);
        for index in (0..running.len()).rev() {
            if let Some(status) = running[index].child.try_wait().context("cannot wait for a target")? {
                let Running { target, since, .. } = running.swap_remove(index);
                let is_good = status.success();
                target.report(is_good, since.elapsed())?;
                if is_good && options.update_seeds {
                    target.update_seeds(workspace)?;
                }
                count.add(if is_good { Outcome::Passed } else { Outcome::Failed });
            }
        }
    }
    Ok(count)
}

/// Builds the targets of these names, or all.
fn targets(workspace: &Workspace, names: &[String]) -> Result<Vec<Target>> {
    let lab = workspace.lab().join("fuzz");
    let mut targets = Vec::new();
    for (name, program) in workspace.fuzz_targets(names, INSTRUMENTATION)? {
        let target = Target {
            program,
            seeds: workspace.root.join("tools/fuzz/seeds").join(&name),
            corpus: lab.join("corpus").join(&name),
            artifacts: lab.join("artifacts").join(&name),
            log: lab.join(format!("{name}.log")),
            name,
        };
        for directory in [&target.corpus, &target.artifacts, &target.seeds] {
            fs::create_dir_all(directory).context(format_args!("cannot create {}", directory.display()))?;
        }
        targets.push(target);
    }
    Ok(targets)
}

impl Target {
    /// The directories with its inputs. libFuzzer adds new ones to the first.
    fn inputs(&self, workspace: &Workspace) -> Vec<PathBuf> {
        let others =
            OTHER_SEEDS.iter().filter(|(name, _)| *name == self.name).flat_map(|(_, others)| *others);
        let mut inputs = vec![self.corpus.clone(), self.seeds.clone()];
        inputs.extend(others.map(|directory| workspace.root.join(directory)));
        inputs
    }

    fn start(self, workspace: &Workspace, options: &Options, scratch: &Path) -> Result<Running> {
        let log = File::create(&self.log).context(format_args!("cannot create {}", self.log.display()))?;
        let limit = match options.time {
            Some(seconds) => format!("-max_total_time={seconds}"),
            None => format!("-runs={}", options.runs),
        };
        let mut command = process::mortal(&self.program);
        command.args(self.inputs(workspace));
        command.arg(limit).arg(format!("-artifact_prefix={}/", self.artifacts.display()));
        command.args([format!("-timeout={TIMEOUT}"), format!("-rss_limit_mb={MEMORY}")]);
        command.args([format!("-max_len={MAX_LEN}"), "-print_final_stats=1".to_owned()]);
        command.env("TMPDIR", scratch).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let child = command.spawn().context(format_args!("cannot run {}", self.program.display()))?;
        println!("{} ...", self.name);
        Ok(Running { target: self, child, since: Instant::now() })
    }

    /// Prints what came of it.
    fn report(&self, is_good: bool, time: Duration) -> Result<()> {
        let log = fs::read(&self.log).context(format_args!("cannot read {}", self.log.display()))?;
        let log = String::from_utf8_lossy(&log);
        if is_good {
            println!("{}: {}", self.name, summary(&log, time));
            return Ok(());
        }
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(LAST_LINES)..].iter().for_each(|line| println!("    {line}"));
        let artifact = log.lines().rev().find_map(|line| line.split_once("Test unit written to "));
        println!(
            "{}: FAILED after {:.0} s; all of its output is in {}",
            self.name,
            time.as_secs_f64(),
            self.log.display()
        );
        if let Some((_, path)) = artifact {
            println!("its input again: FUZZ_SHOW=1 {} {path}", self.program.display());
        }
        Ok(())
    }

    /// Replaces the seeds by a few of all inputs, which together reach most of what is reached.
    fn update_seeds(&self, workspace: &Workspace) -> Result<()> {
        let merged = tempfile::tempdir().context("cannot create a directory for seeds")?;
        let mut command = Command::new(&self.program);
        command.args(["-set_cover_merge=1", "-use_counters=0"]).arg(merged.path());
        process::output(command.args(self.inputs(workspace)))?;
        let mut seeds = Vec::new();
        for entry in fs::read_dir(merged.path()).context("cannot read the merged seeds")? {
            let path = entry.context("cannot read the merged seeds")?.path();
            let len = path.metadata().context("cannot read a seed")?.len();
            seeds.push((len, path));
        }
        seeds.retain(|(len, _)| *len <= MAX_SEED_LEN);
        // The longest reach most.
        seeds.sort_unstable_by(|a, b| b.cmp(a));
        seeds.truncate(MAX_SEEDS);
        if seeds.is_empty() {
            return Err(Error::new(format!(
                "{}: no input of at most {MAX_SEED_LEN} bytes reaches anything: its seeds stay as they are",
                self.name
            )));
        }
        let bytes: u64 = seeds.iter().map(|(len, _)| len).sum();
        println!("{}: {} seeds of {bytes} bytes", self.name, seeds.len());
        let seeds: Vec<_> = seeds.into_iter().map(|(_, seed)| seed).collect();
        replace_files(&self.seeds, &seeds)
    }
}

/// Has a directory contain copies of these files, and no others. It is never without files meanwhile.
fn replace_files(directory: &Path, files: &[PathBuf]) -> Result<()> {
    let copies: Vec<_> =
        files.iter().map(|file| directory.join(file.file_name().unwrap_or_default())).collect();
    for (file, copy) in files.iter().zip(&copies) {
        fs::copy(file, copy).context(format_args!("cannot write {}", copy.display()))?;
    }
    let cannot_read = || format!("cannot read {}", directory.display());
    for entry in fs::read_dir(directory).context(cannot_read())? {
        let path = entry.context(cannot_read())?.path();
        if !copies.contains(&path) {
            fs::remove_file(&path).context(format_args!("cannot remove {}", path.display()))?;
        }
    }
    Ok(())
}

/// What a log says: the number of inputs, what they reached, and how much memory that took.
fn summary(log: &str, time: Duration) -> String {
    let statistic = |name: &str| {
        let value = log.lines().rev().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        value.map_or("?", str::trim)
    };
    let reached = log.lines().rev().find_map(|line| line.split_once(" cov: ")?.1.split(' ').next());
    let inputs = statistic("stat::number_of_executed_units");
    let rate = inputs.parse().map_or(0.0, |inputs: f64| inputs / time.as_secs_f64().max(1.0));
    format!(
        "{inputs} inputs in {:.0} s ({rate:.0} per second), {} places reached, {} MiB at most",
        time.as_secs_f64(),
        reached.unwrap_or("?"),
        statistic("stat::peak_rss_mb"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_a_directory_are_replaced() {
        let [old, new] = [(); 2].map(|()| tempfile::tempdir().expect("a directory"));
        for (directory, name, content) in
            [(&old, "a", "1"), (&old, "b", "2"), (&new, "b", "3"), (&new, "c", "4")]
        {
            fs::write(directory.path().join(name), content).expect("a file");
        }
        replace_files(old.path(), &["b", "c"].map(|name| new.path().join(name))).expect("copies");
        let content = |name| fs::read_to_string(old.path().join(name)).ok();
        assert_eq!(["a", "b", "c"].map(content), [None, Some("3".into()), Some("4".into())]);
    }

    #[test]
    fn the_end_of_a_log_is_summarised() {
        let log = "#2\tINITED cov: 3 ft: 4 corp: 1/1b\n#900\tDONE   cov: 1234 ft: 5000 corp: 7/90b lim: 4 exec/s: 450 rss: 50Mb\n\
                   stat::number_of_executed_units: 900\nstat::peak_rss_mb:              51\n";
        let expected = "900 inputs in 2 s (450 per second), 1234 places reached, 51 MiB at most";
        assert_eq!(summary(log, Duration::from_secs(2)), expected);
        assert!(summary("", Duration::ZERO).starts_with("? inputs"));
    }
}
