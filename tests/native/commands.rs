//! The command line as a whole, and the commands that only print.

use std::fs;
use std::path::Path;
use std::process::Command;

use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::harness::{Checked, Ghest, Scratch, needs, trials};

pub(crate) fn trials() -> Vec<Trial> {
    trials![
        help_and_version,
        bad_usage,
        every_example_can_be_planned,
        plan_agrees_with_its_json,
        plan_agrees_with_the_tables,
        plan_says_what_selects_another_response,
        probe_agrees_with_its_json,
        schema_accepts_every_example,
        schema_refuses_a_typo,
        completions_are_valid_shell,
        manual_pages,
        a_closed_pipe_is_no_panic,
        logs_as_json,
        refusals_as_json,
        verbose,
        log_levels_of_the_environment,
        no_colours_in_logs,
    ]
}

const COMMANDS: [&str; 8] = ["boot", "check", "plan", "tables", "probe", "schema", "completions", "man"];

fn help_and_version() -> Checked {
    let help = Ghest::new(["--help"]).finish().expect(0);
    assert_eq!(help.stderr, "", "{help}");
    for command in COMMANDS {
        assert!(help.stdout().contains(&format!("\n  {command} ")), "{command}: {help}");
        let own = Ghest::new([command, "--help"]).finish().expect(0);
        assert!(own.stdout().contains(&format!("Usage: ghest {command} ")), "{own}");
    }
    let version = Ghest::new(["--version"]).finish().expect(0);
    assert_eq!(version.stdout(), format!("ghest {}\n", env!("CARGO_PKG_VERSION")));
    Ok(())
}

fn bad_usage() -> Checked {
    for (arguments, said) in [
        (&["boat"][..], "'boot'"),
        (&["boot"], "<PROFILE>"),
        (&["boot", "--evnets", "x", "machine.toml"], "'--events'"),
        (&["boot", "--events"], "--events <FILE>"),
        (&["boot", "one.toml", "two.toml"], "two.toml"),
        (&["completions", "vms"], "[possible values: "),
        (&["--log-format", "xml", "schema"], "[possible values: text, json]"),
    ] {
        let outcome = Ghest::new(arguments).finish().expect(2).expect_said(said);
        assert!(outcome.stderr.starts_with("error: "), "{outcome}");
        assert_eq!(outcome.stdout, b"", "{outcome}");
    }
    Ghest::new([""; 0]).finish().expect(2).expect_said("Usage: ghest");
    Ok(())
}

fn every_example_can_be_planned() -> Checked {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config-examples");
    for entry in fs::read_dir(directory).expect("the examples") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let arch = if name.starts_with("arm64") { "aarch64" } else { "x86_64" };
        Ghest::new(["plan", "--arch", arch]).arg(&path).finish().expect(0);
    }
    Ok(())
}

const MACHINE: &str = "[machine]\nname = \"planned\"\nvcpus = 5\nmemory = \"96MiB\"\nfirmware = \"acpi\"\n\n[ras]\nsynchronous = \"nmi\"\n";

fn plan_agrees_with_its_json() -> Checked {
    let scratch = Scratch::new();
    let profile = scratch.profile(MACHINE);
    let plan = Ghest::new(["plan", "--json"]).arg(&profile.path).finish().expect(0).json();
    assert_eq!(plan["machine"], "planned");
    assert_eq!(plan["vcpus"], 5);
    assert_eq!(plan["memory"], 96 << 20);
    assert_eq!(plan["kernel"], "builtin:probe");
    assert_eq!(
        (&plan["ras"]["consumed"]["asked"], &plan["ras"]["consumed"]["chosen"]),
        (&json!("nmi"), &json!("nmi"))
    );
    assert_eq!(
        (&plan["ras"]["found"]["asked"], &plan["ras"]["found"]["chosen"]),
        (&Value::Null, &json!("gsiv"))
    );

    let outcome = Ghest::new(["plan"]).arg(&profile.path).finish().expect(0);
    assert_eq!(outcome.stderr, "", "{outcome}");
    let text = outcome.stdout();
    for said in ["planned (x86_64, 5 vCPUs, 96 MiB)", "builtin:probe", "because ", "nmi", "auto"] {
        assert!(text.contains(said), "{said}: {text}");
    }
    for table in plan["tables"].as_array().expect("a list") {
        let gpa = table["gpa"].as_u64().expect("a number");
        let len = table["len"].as_u64().expect("a number");
        let line = format!("{:<24} {len:>7} bytes at {gpa:#x}", table["name"].as_str().expect("a name"));
        assert!(text.contains(&line), "{line}: {text}");
    }
    Ok(())
}

/// Each response that was not chosen has a line: its name, what it lacks, and the key that selects it.
fn plan_says_what_selects_another_response() -> Checked {
    let scratch = Scratch::new();
    let profile = scratch.profile("[machine]\nvcpus = 1\nfirmware = \"acpi\"\n");
    let host = r#"{"arch": {"x86_64": {"user-nmi": "yes", "mce": {"supported": 0, "banks": 0}}}}"#;
    let host = scratch.file("host.json", host);
    let plan = |set: &str| {
        let plan = Ghest::new(["plan", "--arch", "x86_64", "--host"]).arg(&host).arg(&profile.path);
        plan.set(set).finish().expect(0)
    };
    let text = plan("ras.synchronous=stop").stdout();
    let lines: Vec<Vec<&str>> = text
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix("not "))
        .map(|line| line.split_whitespace().collect())
        .collect();
    for (name, how) in [
        ("mce", "KVM has no machine checks with software recovery (MCG_SER_P)"),
        (
            "nmi",
            "the tables describe no error source of notification type 4; `synchronous = \"nmi\"` adds one",
        ),
        (
            "external",
            "the tables describe no error source of notification type 1; `asynchronous = \"external\"` adds one",
        ),
        ("ignore", "possible; `asynchronous = \"ignore\"` selects it"),
    ] {
        let line = lines.iter().find(|words| words[0] == name);
        assert_eq!(line.map(|words| words[1..].join(" ")).as_deref(), Some(how), "{text}");
    }
    // What the lines say is true.
    for (key, name) in [("synchronous", "nmi"), ("asynchronous", "external"), ("asynchronous", "ignore")] {
        let text = plan(&format!("ras.{key}={name}")).stdout();
        assert!(text.contains(&format!("requested   {name}\n")) && !text.contains("(degraded)"), "{text}");
    }
    Ok(())
}

fn plan_agrees_with_the_tables() -> Checked {
    let scratch = Scratch::new();
    let profile = scratch.profile(MACHINE);
    let plan = Ghest::new(["plan", "--json"]).arg(&profile.path).finish().expect(0).json();
    let list = Ghest::new(["tables", "--json", "--out"])
        .arg(scratch.path("out"))
        .arg(&profile.path)
        .finish()
        .expect(0)
        .json();
    let shape = |tables: &Value| -> Vec<Vec<Value>> {
        let tables = tables.as_array().expect("a list");
        tables.iter().map(|table| ["name", "gpa", "len"].map(|key| table[key].clone()).to_vec()).collect()
    };
    assert_eq!(shape(&plan["tables"]), shape(&list["tables"]));
    Ok(())
}

fn probe_agrees_with_its_json() -> Checked {
    needs::kvm()?;
    let found = Ghest::new(["probe", "--json"]).finish().expect(0).json();
    assert_eq!(found["architecture"], "x86_64");
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").expect("proc is mounted");
    assert_eq!(found["kernel"], kernel.trim());
    assert_eq!(found["kvm"]["state"], "present");

    let outcome = Ghest::new(["probe"]).finish().expect(0);
    let text = outcome.stdout();
    assert!(text.contains(&format!("x86_64, kernel {}", kernel.trim())), "{text}");
    assert!(text.contains("kvm             present"), "{text}");
    let capabilities = found["capabilities"].as_array().expect("a list");
    assert!(capabilities.iter().any(|capability| capability["name"] == "USER_MEMORY"), "{found}");
    for capability in capabilities {
        let name = capability["name"].as_str().expect("a name");
        let line = text.lines().find(|line| line.split_whitespace().next() == Some(name));
        let line = line.unwrap_or_else(|| panic!("{name}: {text}"));
        if capability["value"].as_u64() == Some(0) {
            assert!(line.ends_with(capability["without"].as_str().expect("a cost")), "{line}");
        } else {
            assert!(line.contains(" yes "), "{line}");
        }
    }
    let vcpus = &found["vcpus"];
    assert!(
        text.contains(&format!("{} recommended, {} at most", vcpus["recommended"], vcpus["maximum"])),
        "{text}"
    );
    Ok(())
}

fn schema() -> jsonschema::Validator {
    let schema = Ghest::new(["schema"]).finish().expect(0).json();
    jsonschema::meta::validate(&schema).expect("a schema that is one");
    jsonschema::draft202012::new(&schema).expect("a schema that can be used")
}

fn schema_accepts_every_example() -> Checked {
    let schema = schema();
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config-examples");
    let mut count = 0;
    for entry in fs::read_dir(directory).expect("the examples") {
        let path = entry.expect("an entry").path();
        let text = fs::read_to_string(&path).expect("an example");
        let profile: Value = toml::from_str(&text).expect("TOML");
        let errors: Vec<String> = schema.iter_errors(&profile).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{}: {errors:?}", path.display());
        count += 1;
    }
    assert!(count >= 6, "{count} examples");
    Ok(())
}

fn schema_refuses_a_typo() -> Checked {
    let profile: Value = toml::from_str("[machine]\nvcpu = 1\n").expect("TOML");
    assert!(!schema().is_valid(&profile));
    Ok(())
}

fn completions_are_valid_shell() -> Checked {
    needs::works("bash", Command::new("bash").arg("--version"))?;
    let scratch = Scratch::new();
    let script = Ghest::new(["completions", "bash"]).finish().expect(0).stdout;
    let path = scratch.file("ghest.bash", script);
    let checked = Command::new("bash").arg("-n").arg(&path).output().expect("bash runs");
    assert!(checked.status.success(), "{checked:?}");
    // The completions of `ghest bo`.
    let completed = Command::new("bash")
        .args(["-c", "source \"$0\"; COMP_WORDS=(ghest bo); COMP_CWORD=1; _ghest ghest bo ghest; echo \"${COMPREPLY[@]}\""])
        .arg(&path)
        .output()
        .expect("bash runs");
    assert_eq!(String::from_utf8_lossy(&completed.stdout), "boot\n", "{completed:?}");
    for shell in ["elvish", "fish", "powershell", "zsh"] {
        let outcome = Ghest::new(["completions", shell]).finish().expect(0);
        assert!(outcome.stdout().contains("ghest"), "{outcome}");
    }
    Ok(())
}

/// One page for each command, also those of `ghest ctl`, and no warning of groff(1).
fn manual_pages() -> Checked {
    let scratch = Scratch::new();
    let page = Ghest::new(["man"]).finish().expect(0).stdout();
    assert!(page.contains(".TH ghest 1") && page.contains("Exit statuses"), "{page}");
    Ghest::new(["man", "--out"]).arg(scratch.path("man")).finish().expect(0);
    for name in ["ghest", "ghest-boot", "ghest-ctl", "ghest-ctl-inject", "ghest-man"] {
        let page = fs::read_to_string(scratch.path("man").join(format!("{name}.1"))).expect("a page");
        assert!(page.contains(&format!(".TH {name} 1")), "{page}");
        assert!(!page.contains("with-parent"), "a hidden option: {page}");
    }
    Ghest::new(["man", "--out"]).arg(scratch.file("file", "").join("man")).finish().expect(1);
    needs::works("groff", Command::new("groff").arg("--version"))?;
    for entry in fs::read_dir(scratch.path("man")).expect("pages") {
        let path = entry.expect("a page").path();
        let formatted = Command::new("groff").args(["-man", "-ww", "-z", "-Tutf8"]).arg(&path).output();
        let formatted = formatted.expect("groff runs");
        assert!(
            formatted.status.success() && formatted.stderr.is_empty(),
            "{}: {formatted:?}",
            path.display()
        );
    }
    Ok(())
}

/// The same as `ghest schema | true`: no backtrace, and no panic.
fn a_closed_pipe_is_no_panic() -> Checked {
    let scratch = Scratch::new();
    let profile = scratch.profile(MACHINE).path.to_string_lossy().into_owned();
    let out = scratch.path("out").to_string_lossy().into_owned();
    for arguments in [
        &["schema"][..],
        &["probe"],
        &["probe", "--json"],
        &["plan", &profile],
        &["plan", "--json", &profile],
        &["tables", "--out", &out, &profile],
        &["tables", "--json", "--out", &out, &profile],
        &["completions", "bash"],
        &["man"],
        &["--help"],
    ] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let outcome = Ghest::new(arguments).stdout(writer).finish();
        assert!(!outcome.stderr.contains("panicked"), "{outcome}");
    }
    Ok(())
}

/// Every line on stderr of a boot, as JSON.
fn json_lines(ghest: Ghest, status: i32) -> Vec<Value> {
    let outcome = ghest.args(["--log-format", "json"]).finish().expect(status);
    outcome
        .stderr
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}\n{outcome}")))
        .collect()
}

fn logs_as_json() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    for level in ["-v", "-vv", "-vvv"] {
        let lines = json_lines(Ghest::boot(&scratch.machine("")).arg(level), 0);
        let last = lines.last().expect("a last line");
        assert_eq!(last["message"], "the guest switched its machine off");
        assert_eq!(last["status"], 0);
    }
    Ok(())
}

fn refusals_as_json() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let lines = json_lines(Ghest::boot(&scratch.machine("kernel = \"missing\"")), 2);
    assert_eq!(lines.last().expect("a last line")["status"], 2);
    let lines = json_lines(Ghest::new(["check"]).arg(&scratch.profile("[machine]\nvcpus = 0\n").path), 2);
    assert!(!lines.is_empty());
    Ok(())
}

/// More `-v` print more, on stderr only.
fn verbose() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let profile = scratch.machine("");
    let said = ["", "-v", "-vv"].map(|level| {
        let ghest = Ghest::boot(&profile);
        let outcome = if level.is_empty() { ghest } else { ghest.arg(level) }.finish().expect_ok();
        let foreign = outcome.stdout().lines().filter(|line| !line.starts_with("probe: ")).count();
        assert_eq!(foreign, 0, "{outcome}");
        outcome.stderr.lines().count()
    });
    assert_eq!(said[0], 1, "{said:?}");
    assert!(said.is_sorted() && said[1] < said[2], "{said:?}");
    Ok(())
}

/// `RUST_LOG` takes the place of `-v`, and one with an error is named.
fn log_levels_of_the_environment() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let profile = scratch.machine("");
    let said = |variable: &str| Ghest::boot(&profile).env("RUST_LOG", variable).finish().expect_ok().stderr;
    assert!(said("debug").lines().count() > said("warn").lines().count());
    let refused = said("[span]=x");
    assert!(refused.contains("RUST_LOG is ignored"), "{refused}");
    Ok(())
}

fn no_colours_in_logs() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let outcome =
        Ghest::boot(&scratch.machine("")).arg("-vv").env("TERM", "xterm-256color").finish().expect_ok();
    assert!(!outcome.stderr.contains('\u{1b}'), "{outcome}");
    Ok(())
}
