//! The devicetrees before an independent judge: `dtc`, of Debian's `device-tree-compiler`.
//!
//! Every blob is decompiled without a word of complaint. The default machine's sources are kept in `tests/golden`, readable,
//! and compile to the trees that the builder makes. After a change that is meant, write them anew and read the difference:
//!
//! ```text
//! UPDATE_GOLDEN=1 cargo test -p firmware-tables --test dtc
//! ```
//!
//! Without that program the tests count as ignored, not as passed.

#[path = "machine/aarch64.rs"]
mod machine;
mod tree;

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};

use firmware_tables::{EntryPoint, table_set};
use libtest_mimic::{Arguments, Failed, Trial};
use platform::Platform;
use platform::aarch64::Features;
use tree::Tree;

/// Both sets that end in a devicetree.
const SETS: [&str; 2] = ["devicetree", "acpi"];

fn main() -> ExitCode {
    let missing = Command::new("dtc").arg("--version").output().is_err();
    if missing {
        eprintln!("\n*** dtc is missing (Debian: device-tree-compiler). NO DEVICETREE IS JUDGED. ***\n");
    }
    let mut trials = Vec::new();
    for set in SETS {
        let name = format!("golden_source_compiles_to_the_tree_of_{set}");
        trials.push(Trial::test(name, move || golden(set, set, &machine::default_machine())));
    }
    trials.push(Trial::test("golden_source_compiles_to_the_tree_of_an_error_source", || {
        let machine = machine::default_machine().with_error_sources(machine::own_source());
        golden("devicetree", "devicetree-error-source", &machine)
    }));
    let hosts = [
        (machine::ALL, &[1, 2, 16, 17, 512][..]),
        (Features { its: false, ..machine::ALL }, &[2]),
        (Features { gic: 2, its: false, performance_monitors: false }, &[1, 2, 8]),
    ];
    for (features, counts) in hosts {
        for &vcpus in counts {
            let Features { gic, its, .. } = features;
            let name = format!("vcpus_{vcpus}_gic_{gic}_its_{its}_raise_no_warning");
            trials.push(Trial::test(name, move || judge(&machine::machine(vcpus, features, 64))));
        }
    }
    let trials = trials.into_iter().map(|trial| trial.with_ignored_flag(missing)).collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn judge(machine: &Platform) -> Result<(), Failed> {
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

fn golden(set: &str, name: &str, machine: &Platform) -> Result<(), Failed> {
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
        return Err(format!("{} is of another tree; the tree now:\n{found}", path.display()).into());
    }
    Ok(())
}

/// The devicetree that a guest with these tables is given.
fn blob(machine: &Platform, set: &str) -> Result<Vec<u8>, Failed> {
    let set = table_set(set).ok_or("no such table set")?;
    let built = set.build(machine, &machine::chosen())?;
    let EntryPoint::Devicetree { gpa } = built.entry else { return Err("no devicetree".into()) };
    Ok(built.tables.into_iter().find(|table| table.gpa == gpa).ok_or("nothing there")?.bytes)
}

fn decompile(blob: &[u8], directory: &Path) -> Result<String, Failed> {
    fs::write(directory.join("platform.dtb"), blob)?;
    dtc(directory, &["-I", "dtb", "-O", "dts", "-o", "platform.dts", "platform.dtb"])?;
    Ok(fs::read_to_string(directory.join("platform.dts"))?)
}

/// A source that was a blob has numbers where one that a person writes has labels: that is not looked at.
fn compile(source: &str, directory: &Path) -> Result<Vec<u8>, Failed> {
    fs::write(directory.join("again.dts"), source)?;
    let labels = ["-W", "no-clocks_property"];
    dtc(directory, &[&labels[..], &["-I", "dts", "-O", "dtb", "-o", "again.dtb", "again.dts"]].concat())?;
    Ok(fs::read(directory.join("again.dtb"))?)
}

/// Runs dtc; whatever it says is a complaint.
fn dtc(directory: &Path, arguments: &[&str]) -> Result<(), Failed> {
    let output = Command::new("dtc").args(arguments).current_dir(directory).output()?;
    let said = [output.stdout, output.stderr].concat();
    if !output.status.success() || !said.is_empty() {
        return Err(format!("dtc {arguments:?}:\n{}", String::from_utf8_lossy(&said)).into());
    }
    Ok(())
}
