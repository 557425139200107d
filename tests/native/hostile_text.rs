//! Text of profiles, paths and names of files reaches no terminal as it is.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use libtest_mimic::Trial;

use crate::harness::ghest::Outcome;
use crate::harness::{Checked, Ghest, Scratch, kernels, needs, trials};

pub(crate) fn trials() -> Vec<Trial> {
    trials![plans, snippets, names_of_files, arguments, last_lines, comparisons]
}

/// Clears the screen, by C0 and by C1; a bidirectional override; DEL; a line of its own.
const HOSTILE: &str = "\u{1b}[2J\u{9b}2J\u{202e}\u{7f}\u{7}x";
/// The same in TOML.
const IN_TOML: &str = r"\u001b[2J\u009b2J\u202e\u007f\u0007x";

/// Text that a line of its own would forge.
const FORGED: &str = "ghest: the guest switched its machine off";

/// Asserts that nothing but printable text and line ends was written.
#[track_caller]
fn assert_printable(outcome: &Outcome) {
    assert_text_printable(&outcome.stdout());
    assert_text_printable(&outcome.stderr);
}

#[track_caller]
fn assert_text_printable(text: &str) {
    let hostile = |c: &char| *c != '\n' && (c.is_control() || matches!(c, '\u{202e}' | '\u{2028}'));
    assert_eq!(text.chars().find(hostile), None, "{text:?}");
    assert!(!text.lines().any(|line| line.starts_with(FORGED)), "{text}");
}

fn plans() -> Checked {
    let scratch = Scratch::new();
    let profile = scratch.machine(&format!("kernel = \"{IN_TOML}\\n{FORGED}\""));
    for json in [&[][..], &["--json"]] {
        let outcome = Ghest::new(["plan"]).arg(&profile.path).args(json).finish().expect(0);
        assert!(outcome.stdout().contains("[2J"), "{outcome}");
        assert_printable(&outcome);
    }
    Ok(())
}

fn snippets() -> Checked {
    let scratch = Scratch::new();
    let section = format!("[machine]\nvcpus = 0 # {HOSTILE}\n[boot]\ncmdline = 1{HOSTILE}\n");
    let keys = format!("[machine]\nnam = \"{HOSTILE}\"\n\"{IN_TOML}\" = 1\n[\"{IN_TOML}\"]\n");
    let values = format!("[machine]\nmemory = \"1{IN_TOML}\"\n[boot]\nkernel = \"builtin:{IN_TOML}\"\n");
    for text in [section, keys, values] {
        let profile = scratch.profile(&text);
        for format in ["text", "json"] {
            let check = Ghest::new(["check", "--log-format", format]).arg(&profile.path).finish().expect(2);
            assert_printable(&check);
        }
        let set = format!("machine.name={HOSTILE}");
        assert_printable(&Ghest::new(["check"]).arg(&profile.path).set(&set).finish().expect(2));
    }
    // The text below the underline stays where it is.
    let profile = scratch.profile(&format!("[machine]\nname = \"{HOSTILE}\"\n"));
    let outcome = Ghest::new(["check"]).arg(&profile.path).finish().expect(2);
    outcome.expect_said("machine.toml:2:9\n").expect_said("2 | name = \"?[2J¿2J\u{fffd}??x\"\n");
    Ok(())
}

fn names_of_files() -> Checked {
    let scratch = Scratch::new();
    let mut name = OsString::from(HOSTILE).into_vec();
    name.extend(format!("\n{FORGED}").into_bytes());
    name.extend(b"\xff.toml");
    let path = scratch.path("").join(OsString::from_vec(name));
    for command in [
        &["check"][..],
        &["plan"],
        &["boot"],
        &["decode"],
        &["encode"],
        &["tables", "--out", "out"],
        &["compare"],
    ] {
        let outcome = Ghest::new(command).arg(&path).finish();
        assert!(outcome.stderr.contains("[2J"), "{outcome}");
        assert_printable(&outcome);
    }
    std::fs::write(&path, "[machine]\nvcpus = 0\n").expect("a file");
    assert_printable(&Ghest::new(["check"]).arg(&path).finish().expect(2));
    let profile = scratch.machine("");
    for option in ["--events", "--timings", "--control"] {
        let outcome = Ghest::boot(&profile).arg(option).arg(path.join("file")).finish();
        assert!(outcome.stderr.contains("[2J"), "{outcome}");
        // The guest's console is the guest's.
        assert_text_printable(&outcome.stderr);
    }
    Ok(())
}

fn arguments() -> Checked {
    for arguments in
        [&["boot", "p.toml", "--inject", HOSTILE][..], &[HOSTILE], &["check", "--set", HOSTILE, "p.toml"]]
    {
        let outcome = Ghest::new(arguments).finish().expect(2);
        assert!(outcome.stderr.contains("2J"), "{outcome}");
        assert_printable(&outcome);
    }
    Ok(())
}

fn last_lines() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    scratch.file("kernel", kernels::bz_image(&[0xf4]));
    for keys in ["kernel = ", "kernel = \"kernel\"\ninitrd = "] {
        let profile = scratch.machine(&format!("{keys}\"{IN_TOML}\\n{FORGED}\""));
        let outcome = Ghest::boot(&profile).finish().expect(2);
        assert!(outcome.stderr.contains(r"\u{1b}[2J\u{9b}2J\u{202e}\u{7f}\u{7}x"), "{outcome}");
        assert_printable(&outcome);
    }
    let disk =
        "[machine]\n[[device]]\ntype = \"virtio-block\"\npath = ".to_owned() + &format!("\"{IN_TOML}\"\n");
    assert_printable(&Ghest::boot(&scratch.profile(&disk)).finish().expect(2));
    let socket = format!("[machine]\n[control]\nsocket = \"missing/{IN_TOML}\"\n");
    assert_printable(&Ghest::boot(&scratch.profile(&socket)).finish().expect(1));
    Ok(())
}

fn comparisons() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let profile = scratch.machine(&format!("kernel = \"{IN_TOML}\"\ncmdline = \"{IN_TOML}\""));
    for json in [&[][..], &["--json"]] {
        let outcome = Ghest::new(["compare"]).arg(&profile.path).args(json).finish();
        assert!(outcome.stdout().contains("[2J"), "{outcome}");
        assert_printable(&outcome);
    }
    Ok(())
}
