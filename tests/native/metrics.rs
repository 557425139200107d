//! Metrics of a running machine: by the control socket, and in a file.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

use libtest_mimic::Trial;

use crate::harness::ghest::{Running, TIME_LIMIT};
use crate::harness::needs::Missing;
use crate::harness::{Checked, Ghest, Scratch, needs, trials};

pub(crate) fn trials() -> Vec<Trial> {
    trials![
        the_file_is_rewritten_until_the_end,
        a_file_that_cannot_be_written_is_counted,
        a_full_disk,
        promtool_finds_nothing,
        the_file_is_no_input_of_the_machine,
        a_comparison_leaves_the_file_alone,
    ]
}

fn machine(scratch: &Scratch, file: &str) -> Running {
    let profile = scratch.profile(&format!(
        "[machine]\nname = \"web \\\"1\\\"\"\nmemory = \"64MiB\"\n\n[boot]\ncmdline = \"probe.exit=hang\"\n\n\
         [metrics]\nfile = \"{file}\"\ninterval = \"100ms\"\n"
    ));
    let mut running = Ghest::boot(&profile).arg("--control").arg(scratch.path("control")).start();
    running.wait_for("probe: ok");
    running
}

fn ctl(scratch: &Scratch, words: &[&str]) -> Ghest {
    Ghest::new(["ctl"]).arg(scratch.path("control")).args(words)
}

/// Waits until something is the case.
fn wait(what: &str, is: impl Fn() -> bool) {
    let deadline = Instant::now() + TIME_LIMIT;
    while !is() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

/// Whoever reads it at any moment reads all of one version.
fn the_file_is_rewritten_until_the_end() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let running = machine(&scratch, "web-1.prom");
    let path = scratch.path("web-1.prom");
    let has = |line: &str| {
        let text = fs::read_to_string(&path).unwrap_or_default();
        assert!(text.is_empty() || text.starts_with("# HELP ghest_vcpus ") && text.ends_with('\n'), "{text}");
        text.lines().any(|it| it == line)
    };
    wait("a file of metrics", || has(r#"ghest_vcpus{machine="web \"1\""} 1"#));
    assert!(has(r#"ghest_events_total{machine="web \"1\"",event="memory-error"} 0"#));
    ctl(&scratch, &["inject", "--gpa", "0x2000000", "--kind", "ao"]).finish().expect(0);
    wait("an error in the metrics", || has(r#"ghest_poisoned_bytes{machine="web \"1\""} 4096"#));
    assert!(has(r#"ghest_events_total{machine="web \"1\"",event="memory-error"} 1"#));
    let files = fs::read_dir(scratch.path("")).expect("a directory").count();
    ctl(&scratch, &["stop"]).finish().expect(0);
    running.finish().expect(0);
    // The profile, and perhaps a temporary file that was there before.
    assert!(!path.exists() && files <= 4, "{files} files");
    assert_eq!(fs::read_dir(scratch.path("")).expect("a directory").count(), 1);
    Ok(())
}

fn failures(scratch: &Scratch) -> u64 {
    let metrics = ctl(scratch, &["metrics"]).finish().expect(0).json();
    metrics["metrics_not_written"].as_u64().expect("a number")
}

/// It costs the machine nothing, one line of the log, and is tried again.
fn a_file_that_cannot_be_written_is_counted() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let running = machine(&scratch, "later/web-1.prom");
    wait("failures", || failures(&scratch) >= 2);
    fs::create_dir(scratch.path("later")).expect("a directory");
    wait("a file", || scratch.path("later/web-1.prom").exists());
    ctl(&scratch, &["stop"]).finish().expect(0);
    let outcome = running.finish().expect(0);
    let warning = format!(
        "the file of metrics cannot be written: {}: No such file",
        scratch.path("later/web-1.prom").display()
    );
    assert_eq!(outcome.stderr.matches(&warning).count(), 1, "{outcome}");
    Ok(())
}

/// A file system of one page.
struct Tmpfs(PathBuf);

impl Tmpfs {
    fn mount(path: PathBuf) -> Result<Self, Missing> {
        needs::root()?;
        fs::create_dir(&path).expect("a directory");
        let mut mount = Command::new("mount");
        needs::works("mount(8)", mount.args(["-t", "tmpfs", "-o", "size=4k", "none"]).arg(&path))?;
        Ok(Tmpfs(path))
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // An error leaves a mount of one page.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn a_full_disk() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let full = Tmpfs::mount(scratch.path("full"))?;
    fs::write(full.0.join("other"), [0; 4096]).expect("a page");
    let running = machine(&scratch, "full/web-1.prom");
    wait("failures", || failures(&scratch) >= 2);
    let files: Vec<_> =
        fs::read_dir(&full.0).expect("a directory").flatten().map(|it| it.file_name()).collect();
    assert!(files.len() <= 2 && files.contains(&"other".into()), "{files:?}");
    ctl(&scratch, &["stop"]).finish().expect(0);
    running.finish().expect(0).expect_said("No space left on device");
    assert_eq!(fs::read_dir(&full.0).expect("a directory").count(), 1);
    Ok(())
}

/// Prometheus' own checker reads the text, and has nothing to say about names, units and help.
fn promtool_finds_nothing() -> Checked {
    needs::kvm()?;
    // `cargo lab test` unpacks one.
    let promtool = std::env::var_os("PROMTOOL").unwrap_or_else(|| "promtool".into());
    needs::works("promtool (Debian's package prometheus)", Command::new(&promtool).arg("--version"))?;
    let scratch = Scratch::new();
    let running = machine(&scratch, "web-1.prom");
    let text = ctl(&scratch, &["metrics", "--prometheus"]).finish().expect(0).stdout;
    let mut check = Command::new(&promtool);
    check.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut check = check.spawn().expect("promtool runs");
    check.stdin.take().expect("a pipe").write_all(&text).expect("promtool reads");
    let checked = check.wait_with_output().expect("promtool ends");
    assert!(
        checked.status.success() && checked.stdout.is_empty() && checked.stderr.is_empty(),
        "{checked:?}\n{}",
        String::from_utf8_lossy(&text)
    );
    ctl(&scratch, &["stop"]).finish().expect(0);
    running.finish().expect(0);
    Ok(())
}

/// The machine that it is about may be running.
fn a_comparison_leaves_the_file_alone() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let profile = scratch
        .profile("[machine]\nmemory = \"64MiB\"\n[metrics]\nfile = \"web-1.prom\"\ninterval = \"100ms\"\n");
    scratch.file("web-1.prom", "of the machine\n");
    Ghest::new(["compare"]).arg(&profile.path).finish().expect(0);
    assert_eq!(fs::read_to_string(scratch.path("web-1.prom")).expect("a file"), "of the machine\n");
    Ok(())
}

fn the_file_is_no_input_of_the_machine() -> Checked {
    let scratch = Scratch::new();
    scratch.file("kernel", "data");
    let profile = scratch.profile("[machine]\n[boot]\nkernel = \"kernel\"\n[metrics]\nfile = \"./kernel\"\n");
    Ghest::boot(&profile).finish().expect(2).expect_said("this is the kernel");
    assert_eq!(fs::read_to_string(scratch.path("kernel")).expect("a file"), "data");
    Ok(())
}
