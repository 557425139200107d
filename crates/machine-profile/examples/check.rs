//! Checks a profile and prints the machine, or every problem of the profile.
//!
//! ```sh
//! cargo run -p ghest-machine-profile --example check -- config-examples/quickstart.toml --set machine.vcpus=4
//! ```
//!
//! The example defines one kind of device, `type = "null"`, to show how a VMM provides its own. A profile that names another
//! kind has a problem.

use std::env;
use std::path::Path;
use std::process::ExitCode;

use machine_profile::device_kind::{
    Default, DeviceConfig, DeviceKind, DeviceKinds, DeviceSection, Flag, Key, Keys, Reported,
};
use machine_profile::{Diagnostic, Override, load};
use platform::Arch;

fn main() -> ExitCode {
    let mut path = None;
    let mut overrides = Vec::new();
    let mut arguments = env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match (argument.as_str(), path.is_some()) {
            ("--set", _) => match Override::parse(&arguments.next().unwrap_or_default()) {
                Ok(set) => overrides.push(set),
                Err(problem) => return fail(&[problem]),
            },
            (_, false) => path = Some(argument),
            (_, true) => return usage(),
        }
    }
    let Some(path) = path else { return usage() };
    match load(Path::new(&path), &overrides, Arch::NATIVE, &DeviceKinds::new([&Null as &dyn DeviceKind])) {
        Ok(profile) => {
            println!("{:#?}", profile.machine);
            ExitCode::SUCCESS
        }
        Err(problems) => fail(&problems),
    }
}

/// `type = "null"`: a device that does nothing.
struct Null;

/// The configuration of a [`Null`].
#[derive(Debug, PartialEq)]
struct NullConfig {
    quiet: bool,
}

static QUIET: Key<Flag, Default<bool>> =
    Key { name: "quiet", doc: "Whether the device logs nothing.", form: Flag, absent: Default(false) };
static KEYS: Keys = &[&QUIET];

impl DeviceKind for Null {
    fn name(&self) -> &'static str {
        "null"
    }

    fn doc(&self) -> &'static str {
        "a device that does nothing"
    }

    fn keys(&self) -> Keys {
        KEYS
    }

    fn read(&self, section: &mut DeviceSection<'_>) -> Result<DeviceConfig, Reported> {
        Ok(DeviceConfig::new(NullConfig { quiet: section.value(&QUIET)?.value }))
    }
}

fn fail(problems: &[Diagnostic]) -> ExitCode {
    for problem in problems {
        eprintln!("{problem}");
        // A renderer has all it needs to underline the text.
        let line = problem.source().text.lines().nth(problem.line() - 1).unwrap_or_default();
        let underline =
            "^".repeat(problem.value().lines().next().map_or(1, |text| text.chars().count().max(1)));
        eprintln!("    | {line}\n    | {}{underline}", " ".repeat(problem.column() - 1));
    }
    ExitCode::FAILURE
}

fn usage() -> ExitCode {
    eprintln!("usage: check PROFILE [--set section.key=value]...");
    ExitCode::from(2)
}
