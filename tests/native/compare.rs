//! `ghest compare`: both guests boot.

use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use rustix::process::Signal;
use serde_json::Value;

use crate::harness::ghest::TIME_LIMIT;
use crate::harness::pty::Pty;
use crate::harness::stream::Stream;
use crate::harness::{Checked, Ghest, Scratch, needs, trials};

pub(crate) fn trials() -> Vec<Trial> {
    trials![
        both_sides_meet_the_same_error,
        a_detected_error_ends_both_sides,
        text_for_a_pipe_is_plain,
        progress_for_a_terminal_only,
        only_a_part_of_it,
        page_for_a_browser,
        what_other_tables_cannot_describe_is_reported,
        a_hang_of_one_side_is_reported_with_the_other_side,
        a_hang_of_both_sides_is_reported,
        interrupted_and_nothing_is_left,
        killed_and_nothing_is_left,
        broken_profile_is_refused_before_anything_boots,
        injection_specs_are_checked,
    ]
}

/// The machine of these tests, which have the same tables on their right side whatever the architecture.
const PROFILE: &str = "[machine]\nvcpus = 2\nmemory = \"64MiB\"\nfirmware = \"acpi\"\n";
const BEFORE_ACPI: &str = if cfg!(target_arch = "aarch64") { "devicetree" } else { "mptable" };

fn compare(scratch: &Scratch, profile: &str) -> Ghest {
    Ghest::new(["compare"]).arg(&scratch.profile(profile).path)
}

/// The values of a row.
fn row<'v>(comparison: &'v Value, section: &str, key: &str) -> &'v Value {
    let find = |list: &'v Value, key: &str| {
        list.as_array().and_then(|list| list.iter().find(|it| it["key"] == key)).unwrap_or(&Value::Null)
    };
    let row = find(&find(&comparison["sections"], section)["rows"], key);
    assert!(row.is_object(), "no row {key} of {section}: {comparison:#}");
    row
}

fn both_sides_meet_the_same_error() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let json =
        compare(&scratch, PROFILE).args(["--json", "--inject", "ar@0x2000000"]).finish().expect(0).json();
    assert_eq!(json["format"], 1);
    assert_eq!(
        (&json["sides"][0]["tables"], &json["sides"][1]["tables"]),
        (&"acpi".into(), &BEFORE_ACPI.into())
    );
    assert_eq!(json["machine"]["cmdline"], "probe.touch=0x2000000");
    for side in 0..2 {
        let side = &json["sides"][side];
        assert_eq!(
            (&side["ending"]["how"], &side["ending"]["status"]),
            (&"exited".into(), &0.into()),
            "{json:#}"
        );
        assert_eq!(
            (&side["errors"][0]["gpa"], &side["errors"][0]["span"]),
            (&0x200_0000.into(), &4096.into())
        );
        assert_eq!(side["errors"][0]["seen"][0]["class"], "AR");
        assert!(side["phases"]["first-run"].as_u64() < side["phases"]["guest-shutdown"].as_u64());
        assert!(side["plan"]["answers"].as_array().is_some_and(|answers| answers.len() == 4));
    }
    assert_eq!(row(&json, "found", "described-by")["values"][0][0], "acpi");
    assert_eq!(row(&json, "found", "processors")["differs"], false);
    assert_eq!(row(&json, "found", "error-sources")["values"][1][0], "none");
    for side in 0..2 {
        let guest = row(&json, "error-1", "guest")["values"][side].to_string();
        assert!(guest.contains("offlines 0x2000000 and continues"), "{guest}");
    }
    Ok(())
}

fn a_detected_error_ends_both_sides() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let json =
        compare(&scratch, PROFILE).args(["--json", "--inject", "ao@0x2000000"]).finish().expect(0).json();
    let [acpi, other] = [0, 1].map(|side| &json["sides"][side]["errors"][0]);
    assert_eq!(acpi["records"][0]["source"], 1, "{json:#}");
    assert_eq!(other["records"].as_array().map(Vec::len), Some(0), "{json:#}");
    assert_eq!(row(&json, "end", "report")["values"][1][0], "ok: the guest continues and shuts down");
    Ok(())
}

fn text_for_a_pipe_is_plain() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let outcome = compare(&scratch, PROFILE).args(["--inject", "ar@0x2000000"]).finish().expect(0);
    let text = outcome.stdout();
    assert!(!text.contains('\x1b') && !outcome.stderr.contains('\x1b'), "{outcome}");
    assert!(text.lines().all(|line| line.chars().count() <= 120), "{outcome}");
    assert!(text.contains("\n* described by") && text.contains("\n  processors"), "{outcome}");
    let folded = compare(&scratch, PROFILE).args(["--fold", "always", "--width", "60"]).finish().expect(0);
    assert!(folded.stdout().contains("the same on both sides: processors"), "{folded}");
    assert!(folded.stdout().lines().all(|line| line.chars().count() <= 60), "{folded}");
    Ok(())
}

fn progress_for_a_terminal_only() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let Pty { master, line, .. } = Pty::open();
    let screen = Stream::read(master);
    let json =
        compare(&scratch, PROFILE).arg("--json").env("TERM", "xterm").stderr(line).finish().expect(0).json();
    assert_eq!(json["format"], 1);
    let shown = screen.to_end(Instant::now() + TIME_LIMIT);
    let shown = String::from_utf8_lossy(&shown);
    for side in ["\r\x1b[K[1/2] acpi", "\r\x1b[K[2/2] "] {
        assert!(shown.contains(side), "{shown:?}");
    }
    assert!(shown.ends_with("\r\x1b[K"), "{shown:?}");
    let piped = compare(&scratch, PROFILE).arg("--json").finish().expect(0);
    assert!(piped.stderr.is_empty(), "{piped}");
    Ok(())
}

fn only_a_part_of_it() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let sections = |part: &str| {
        let compare = compare(&scratch, PROFILE).args(["--json", "--inject", "ar@0x2000000", "--only", part]);
        let json = compare.finish().expect(0).json();
        let keys = json["sections"].as_array().expect("a list").iter().map(|it| it["key"].to_string());
        keys.collect::<Vec<_>>().join(" ")
    };
    let (boot, errors) = (sections("boot"), sections("errors"));
    assert!(boot.contains("\"found\"") && boot.contains("\"time\"") && !boot.contains("error-1"), "{boot}");
    assert!(errors.contains("\"error-1\"") && !errors.contains("\"found\""), "{errors}");
    Ok(())
}

fn page_for_a_browser() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let page = scratch.path("page.html");
    compare(&scratch, PROFILE).arg("--html").arg(&page).finish().expect(0);
    let page = std::fs::read_to_string(page).expect("a page");
    assert!(page.starts_with("<!doctype html>") && page.ends_with("</html>\n"), "{page}");
    assert_eq!(page.matches("<svg").count(), 2);
    let nowhere =
        compare(&scratch, PROFILE).arg("--html").arg(scratch.path("no/page.html")).finish().expect(1);
    nowhere.expect_said("no/page.html");
    Ok(())
}

fn what_other_tables_cannot_describe_is_reported() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let keys = "asynchronous = \"gsiv\"\ncorrected = \"gsiv\"\ncorrected-threshold = 5\ninjection = true";
    let compared = compare(&scratch, &format!("{PROFILE}\n[ras]\n{keys}\n")).arg("--json");
    let json = compared.finish().expect(0).json();
    let changes = &json["sides"][1]["changes"];
    for (index, expected) in [
        ["ras.asynchronous", "gsiv", "auto"],
        ["ras.corrected", "gsiv", "off"],
        ["ras.injection", "true", "false"],
    ]
    .into_iter()
    .enumerate()
    {
        assert_eq!(
            ["key", "asked", "taken"].map(|key| &changes[index][key]),
            expected.map(Value::from).each_ref()
        );
    }
    let reported = &row(&json, "plan", "not-carried")["values"];
    assert_eq!(
        (&reported[0], &reported[1][0]),
        (&Value::Array(vec![]), &"ras.asynchronous = \"gsiv\": `auto` is used instead".into())
    );
    let corrected = &row(&json, "plan", "corrected")["values"];
    let chosen = Value::from(vec!["gsiv, record of source 2 (requested)"]);
    assert_eq!((&corrected[0], &corrected[1]), (&chosen, &Value::Array(vec![])));
    Ok(())
}

/// Both wait for an error, but the injection request waits for a guest with an event device: the other one never gets it.
fn a_hang_of_one_side_is_reported_with_the_other_side() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let profile = format!("{PROFILE}\n[boot]\ncmdline = \"probe.await-errors=1 probe.timeout=600000\"\n");
    let json = compare(&scratch, &profile)
        .args(["--json", "--limit", "5s", "--inject", "ao@0x2000000,when=probe: ged ok"])
        .finish()
        .expect(0)
        .json();
    let ends = |side: usize| (&json["sides"][side]["ending"]["how"], &json["sides"][side]["last-line"]);
    assert_eq!(ends(0), (&"exited".into(), &"probe: ok".into()), "{json:#}");
    assert_eq!(ends(1), (&"hung".into(), &"probe: awaiting 1 errors".into()), "{json:#}");
    let how = row(&json, "end", "how");
    assert_eq!(how["values"][0][0], "status 0: the guest shut down");
    assert_eq!(how["values"][1][0], "HUNG: the guest did not end within 5.00 s and was stopped");
    Ok(())
}

/// Both are reported, and the second is booted although the first did not end.
fn a_hang_of_both_sides_is_reported() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let profile = format!("{PROFILE}\n[boot]\ncmdline = \"probe.exit=hang\"\n");
    let json = compare(&scratch, &profile).args(["--json", "--limit", "5s"]).finish().expect(0).json();
    for side in 0..2 {
        assert_eq!(json["sides"][side]["ending"]["how"], "hung", "{json:#}");
        assert_eq!(json["sides"][side]["last-line"], "probe: ok", "{json:#}");
        assert_eq!(
            row(&json, "end", "how")["values"][side][0],
            "HUNG: the guest did not end within 5.00 s and was stopped"
        );
    }
    Ok(())
}

fn interrupted_and_nothing_is_left() -> Checked {
    ended_and_nothing_is_left(Signal::INT, Some(130))
}

fn killed_and_nothing_is_left() -> Checked {
    ended_and_nothing_is_left(Signal::KILL, None)
}

fn ended_and_nothing_is_left(signal: Signal, status: Option<i32>) -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let profile = scratch.profile(&format!("{PROFILE}\n[boot]\ncmdline = \"probe.exit=hang\"\n"));
    let running = Ghest::new(["compare"])
        .arg(&profile.path)
        .env("TMPDIR", &scratch.path("").display().to_string())
        .start();
    // Recognised by its profile, which no other process has.
    let guests = || guests(&profile.path.display().to_string());
    let deadline = Instant::now() + Duration::from_secs(20);
    while guests().is_empty() {
        assert!(Instant::now() < deadline, "no guest boots");
        std::thread::sleep(Duration::from_millis(5));
    }
    running.signal(signal);
    let outcome = running.finish();
    if let Some(status) = status {
        outcome.expect(status).expect_last("ghest: interrupted: nothing is left running");
        assert!(guests().is_empty(), "{:?}", guests());
        let left = std::fs::read_dir(scratch.path("")).expect("a directory").flatten();
        let left: Vec<_> =
            left.filter(|it| it.file_name().to_string_lossy().starts_with("ghest-compare")).collect();
        assert!(left.is_empty(), "{left:?}");
    }
    let deadline = Instant::now() + Duration::from_secs(20);
    while !guests().is_empty() {
        assert!(Instant::now() < deadline, "left running: {:?}", guests());
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Processes that boot a profile.
fn guests(profile: &str) -> Vec<u32> {
    let processes = std::fs::read_dir("/proc").expect("/proc").flatten();
    let pids = processes.filter_map(|it| it.file_name().to_str()?.parse::<u32>().ok());
    let boots = |pid: &u32| {
        let cmdline = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words: Vec<_> = cmdline.split(|byte| *byte == 0).collect();
        words.contains(&&b"boot"[..]) && words.contains(&profile.as_bytes())
    };
    pids.filter(boots).collect()
}

fn broken_profile_is_refused_before_anything_boots() -> Checked {
    let scratch = Scratch::new();
    let outcome = compare(&scratch, "[machine]\nvcpu = 2\n").finish().expect(2);
    assert!(outcome.stdout.is_empty(), "{outcome}");
    outcome.expect_said("vcpu");
    Ok(())
}

fn injection_specs_are_checked() -> Checked {
    let scratch = Scratch::new();
    compare(&scratch, PROFILE)
        .args(["--inject", "ar@nowhere"])
        .finish()
        .expect(2)
        .expect_said("`nowhere` is not a guest physical address");
    compare(&scratch, PROFILE)
        .args(["--limit", "18446744073709551615s"])
        .finish()
        .expect(2)
        .expect_said("for example `30s`");
    Ok(())
}
