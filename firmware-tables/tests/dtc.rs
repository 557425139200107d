//! Validation of the devicetrees by `dtc` (Debian: `device-tree-compiler`).
//!
//! dtc decompiles every blob without a warning. The sources of the default machine are in `tests/golden` and compile to the
//! same trees as the builder's. After an intended change, update them and review the difference:
//!
//! ```text
//! UPDATE_GOLDEN=1 cargo test -p ghest-firmware-tables --test dtc
//! ```
//!
//! Without dtc, the tests are reported as ignored.

#[path = "machine/aarch64.rs"]
mod machine;
mod oem;
mod tree;

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};

use firmware_tables::{EntryPoint, TableSet};
use libtest_mimic::{Arguments, Failed, Trial};
use platform::Platform;
use platform::aarch64::Features;
use tree::Tree;

use crate::oem::OEM;

/// The sets with a devicetree.
const SETS: [TableSet; 2] = [TableSet::Devicetree, TableSet::Acpi];

fn main() -> ExitCode {
    let missing = Command::new("dtc").arg("--version").output().is_err();
    if missing {
        eprintln!("\n*** dtc is missing (Debian: device-tree-compiler). NO DEVICETREE IS VALIDATED. ***\n");
    }
    let mut trials = Vec::new();
    for set in SETS {
        let name = format!("golden_source_compiles_to_the_tree_of_{set}");
        trials.push(Trial::test(name, move || golden(set, &set.to_string(), &machine::default_machine())));
    }
    trials.push(Trial::test("golden_source_compiles_to_the_tree_of_an_error_source", || {
        let machine = machine::default_machine().with_error_sources(machine::own_source());
        golden(TableSet::Devicetree, "devicetree-error-source", &machine)
    }));
    let hosts = [
        (machine::ALL, &[1, 2, 16, 17, 512][..]),
        (Features { gic: 2, performance_monitors: false }, &[1, 2, 8]),
    ];
    for (features, counts) in hosts {
        for &vcpus in counts {
            let name = format!("vcpus_{vcpus}_gic_{}_cause_no_warning", features.gic);
            trials.push(Trial::test(name, move || validate(&machine::machine(vcpus, features, 64))));
        }
    }
    trials.push(Trial::test("an_its_causes_no_warning", || validate(&machine::machine_with_its())));
    let trials = trials.into_iter().map(|trial| trial.with_ignored_flag(missing)).collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn validate(machine: &Platform) -> Result<(), Failed> {
    let directory = tempfile::tempdir()?;
    for set in SETS {
        let blob = blob(machine, set)?;
        let source = decompile(&blob, directory.path())?;
        if Tree::read(&compile(&source, directory.path())?) != Tree::read(&blob) {
            return Err(format!("{set}: dtc makes another tree of\n{source}").into());
        }
    }
    Ok(())
}

fn golden(set: TableSet, name: &str, machine: &Platform) -> Result<(), Failed> {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/aarch64").join(name).with_extension("dts");
    let directory = tempfile::tempdir()?;
    let blob = blob(machine, set)?;
    let found = decompile(&blob, directory.path())?;
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, &found)?;
    }
    let expected = Tree::read(&compile(&fs::read_to_string(&path)?, directory.path())?);
    if expected != Tree::read(&blob) {
        return Err(format!("{} differs; the tree now:\n{found}", path.display()).into());
    }
    Ok(())
}

/// The devicetree that a guest with these tables is given.
fn blob(machine: &Platform, set: TableSet) -> Result<Vec<u8>, Failed> {
    let built = firmware_tables::build(set, machine, &machine::chosen(), &OEM)?;
    let EntryPoint::Devicetree { gpa } = built.entry else { return Err("no devicetree".into()) };
    Ok(built.tables.into_iter().find(|table| table.gpa == gpa).ok_or("no table at the entry point")?.bytes)
}

fn decompile(blob: &[u8], directory: &Path) -> Result<String, Failed> {
    fs::write(directory.join("platform.dtb"), blob)?;
    dtc(directory, &["-I", "dtb", "-O", "dts", "-o", "platform.dts", "platform.dtb"])?;
    Ok(fs::read_to_string(directory.join("platform.dts"))?)
}

/// A decompiled source has numbers in place of labels; the check that needs labels is disabled.
fn compile(source: &str, directory: &Path) -> Result<Vec<u8>, Failed> {
    fs::write(directory.join("again.dts"), source)?;
    let labels = ["-W", "no-clocks_property"];
    dtc(directory, &[&labels[..], &["-I", "dts", "-O", "dtb", "-o", "again.dtb", "again.dts"]].concat())?;
    Ok(fs::read(directory.join("again.dtb"))?)
}

/// Runs dtc; any output is a failure.
fn dtc(directory: &Path, arguments: &[&str]) -> Result<(), Failed> {
    let output = Command::new("dtc").args(arguments).current_dir(directory).output()?;
    let text = [output.stdout, output.stderr].concat();
    if !output.status.success() || !text.is_empty() {
        return Err(format!("dtc {arguments:?}:\n{}", String::from_utf8_lossy(&text)).into());
    }
    Ok(())
}
