//! `ghest check`: prints nothing about valid profiles, and every problem of the others.

use std::path::{Path, PathBuf};
use std::time::Instant;

use libtest_mimic::Trial;

use crate::harness::ghest::TIME_LIMIT;
use crate::harness::pty::Pty;
use crate::harness::stream::Stream;
use crate::harness::{Checked, Ghest, Scratch, trials};

pub(crate) fn trials() -> Vec<Trial> {
    trials![
        valid_profiles,
        every_problem_of_several_files,
        clashes_between_files,
        missing_file,
        set_is_checked_too,
        broken_profiles_are_refused_by_every_command,
        no_escape_codes_in_pipes,
        colours_in_terminals,
        no_profile,
    ]
}

/// Every example, by the architecture that its name says.
fn examples(arch: &str) -> Vec<PathBuf> {
    let other = if arch == "x86_64" { "arm64" } else { "x86_64" };
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config-examples");
    let entries = std::fs::read_dir(directory).expect("the examples");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.retain(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.ends_with(".toml") && !name.starts_with(other)
    });
    files
}

fn valid_profiles() -> Checked {
    for arch in ["x86_64", "aarch64"] {
        let examples = examples(arch);
        assert!(examples.len() >= 2, "{examples:?}");
        // One at a time: some name the same socket, which is a problem of two profiles together.
        for example in examples {
            let outcome = Ghest::new(["check", "--arch", arch]).arg(&example).finish().expect(0);
            assert_eq!((outcome.stdout(), outcome.stderr.as_str()), (String::new(), ""), "{outcome}");
        }
    }
    Ok(())
}

fn every_problem_of_several_files() -> Checked {
    let scratch = Scratch::new();
    scratch.file("first.toml", "[machine]\nvcpus = 0\nmemory = \"64MB\"\nfirmware = \"acpi\"\n");
    scratch.file("good.toml", "[machine]\nvcpus = 1\n");
    scratch.file("second.toml", "[machine]\nvcpu = 1\nfirmware = \"bios\"\n");
    let outcome = Ghest::new(["check", "first.toml", "good.toml", "second.toml"])
        .directory(&scratch.path(""))
        .finish()
        .expect(2);
    assert_eq!(outcome.stdout, b"", "{outcome}");
    let places: Vec<&str> =
        outcome.stderr.lines().filter_map(|line| line.trim_start().strip_prefix("--> ")).collect();
    assert_eq!(
        places,
        ["first.toml:2:9", "first.toml:3:10", "second.toml:2:1", "second.toml:3:12"],
        "{outcome}"
    );
    for value in ["vcpus = 0", "\"64MB\"", "vcpu = 1", "\"bios\""] {
        assert!(outcome.stderr.contains(value), "{value}: {outcome}");
    }
    outcome.expect_said("`vcpus`").expect_last("ghest: 4 problems");
    Ok(())
}

fn clashes_between_files() -> Checked {
    let scratch = Scratch::new();
    let text = "[machine]\nvcpus = 1\n\n[control]\nsocket = \"one.sock\"\n";
    scratch.file("a.toml", text);
    scratch.file("b.toml", text);
    Ghest::new(["check", "a.toml", "b.toml"])
        .directory(&scratch.path(""))
        .finish()
        .expect(2)
        .expect_said("a.toml:5")
        .expect_said("b.toml:5")
        .expect_last("ghest: 1 problem");
    Ok(())
}

fn missing_file() -> Checked {
    let scratch = Scratch::new();
    Ghest::new(["check", "missing.toml"])
        .directory(&scratch.path(""))
        .finish()
        .expect(2)
        .expect_said("missing.toml")
        .expect_said("No such file or directory")
        .expect_last("ghest: 1 problem");
    Ok(())
}

fn set_is_checked_too() -> Checked {
    let scratch = Scratch::new();
    let profile = scratch.profile("[machine]\nvcpus = 1\n");
    let check = || Ghest::new(["check"]).arg(&profile.path);
    check().set("machine.vcpus=4").finish().expect(0);
    check()
        .set("machine.vcpus=four")
        .set("machine.fimware=acpi")
        .finish()
        .expect(2)
        .expect_said("machine.vcpus=four")
        .expect_said("machine.fimware=acpi")
        .expect_last("ghest: 2 problems");
    Ok(())
}

/// Every command refuses an invalid profile, and reports that in its last line.
fn broken_profiles_are_refused_by_every_command() -> Checked {
    let scratch = Scratch::new();
    let profile = scratch.profile("[machine]\nvcpus = 0\nmemory = \"64MB\"\n");
    let out = scratch.path("out");
    for command in [&["boot"][..], &["plan"], &["check"], &["tables", "--out", &out.to_string_lossy()]] {
        let outcome = Ghest::new(command).arg(&profile.path).finish().expect(2);
        assert_eq!(outcome.stdout, b"", "{outcome}");
        outcome
            .expect_said(&profile.place("vcpus"))
            .expect_said(&profile.place("memory"))
            .expect_last("ghest: 2 problems");
    }
    assert!(!out.exists());
    Ok(())
}

/// Neither for a pipe, nor with NO_COLOR.
fn no_escape_codes_in_pipes() -> Checked {
    let scratch = Scratch::new();
    let profile = scratch.profile("[machine]\nvcpus = 0\n");
    for (name, value) in [("TERM", "xterm-256color"), ("NO_COLOR", "1")] {
        let outcome = Ghest::new(["check"]).arg(&profile.path).env(name, value).finish().expect(2);
        assert!(!outcome.stderr.contains('\u{1b}'), "{outcome}");
    }
    Ok(())
}

fn colours_in_terminals() -> Checked {
    let scratch = Scratch::new();
    let profile = scratch.profile("[machine]\nvcpus = 0\n");
    for (name, value, coloured) in [("LC_ALL", "C", true), ("NO_COLOR", "1", false)] {
        let Pty { master, line, .. } = Pty::open();
        let screen = Stream::read(master);
        let check = Ghest::new(["check"]).arg(&profile.path).env("TERM", "xterm").env(name, value);
        check.stderr(line).finish().expect(2);
        assert!(screen.wait_for("1 problem", 1, Instant::now() + TIME_LIMIT));
        assert_eq!(screen.so_far().contains(&0x1b), coloured, "{name}={value}");
    }
    Ok(())
}

fn no_profile() -> Checked {
    Ghest::new(["check"]).finish().expect(2).expect_said("<PROFILE>");
    Ok(())
}
