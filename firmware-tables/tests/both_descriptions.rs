//! The ACPI and the devicetree description of each device, side by side: read from the DSDT, disassembled by `iasl`
//! (Debian: `acpica-tools`), and from the blob. If both list a device, window, interrupt, trigger and coherence agree.
//!
//! The list is in `tests/golden/aarch64/devices.txt`. After an intended change, update it and review the difference:
//!
//! ```text
//! UPDATE_GOLDEN=1 cargo test -p ghest-firmware-tables --test both_descriptions
//! ```
//!
//! Without iasl, the tests are reported as ignored.

#[path = "machine/aarch64.rs"]
mod machine;
mod oem;
mod tree;

use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};

use firmware_tables::TableSet;
use libtest_mimic::{Arguments, Failed, Trial};
use oem::OEM;
use platform::{DeviceNode, Platform};
use tree::Tree;

fn main() -> ExitCode {
    let missing = Command::new("iasl").arg("-v").output().is_err();
    if missing {
        eprintln!("\n*** iasl is missing (Debian: acpica-tools). NO DESCRIPTIONS ARE COMPARED. ***\n");
    }
    let trials = vec![
        Trial::test("both_descriptions_have_the_same_window_interrupt_and_trigger", agreement)
            .with_ignored_flag(missing),
        Trial::test("the_list_is_the_golden_one", list).with_ignored_flag(missing),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// The part of a device that both describe.
#[derive(Debug, Default, PartialEq, Eq)]
struct Description {
    /// First address and length.
    windows: Vec<(u64, u64)>,
    /// INTID, and whether its trigger is an edge.
    interrupts: Vec<(u32, bool)>,
    coherent: bool,
}

fn agreement() -> Result<(), Failed> {
    let machine = machine::machine(2, machine::ALL, 64);
    let (source, tree) = (dsdt(&machine)?, devicetree(&machine)?);
    let mut compared = 0;
    for device in &machine.devices {
        let (Some(acpi), Some(devicetree)) =
            (acpi_description(device, &source)?, devicetree_description(device, &tree)?)
        else {
            continue;
        };
        if acpi != devicetree {
            return Err(format!("{}: {acpi:x?} in ACPI, {devicetree:x?} in a devicetree", device.name).into());
        }
        compared += 1;
    }
    if compared != 66 {
        return Err(
            format!("{compared} devices were compared, not the port, the button and 64 transports").into()
        );
    }
    Ok(())
}

fn list() -> Result<(), Failed> {
    let machine = machine::default_machine();
    let (source, tree) = (dsdt(&machine)?, devicetree(&machine)?);
    let mut found = format!("{:14}{:48}devicetree\n", "device", "ACPI");
    for device in &machine.devices {
        let acpi = match (&device.acpi, acpi_description(device, &source)?) {
            (Some(identity), Some(description)) => {
                format!("{} {}{}", identity.name, identity.hid, description.text())
            }
            _ => "-".into(),
        };
        let devicetree = match (node_name(device), devicetree_description(device, &tree)?) {
            (Some(name), Some(description)) => {
                let node = tree.at(&name);
                let below: Result<String, Failed> = node.children.iter().map(part).collect();
                format!("{name} {}{}{}", node.texts("compatible")[0], description.text(), below?)
            }
            _ => "-".into(),
        };
        writeln!(found, "{:14}{acpi:48}{devicetree}", device.name)?;
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/aarch64/devices.txt");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, &found)?;
    }
    if fs::read_to_string(&path)? != found {
        return Err(format!("{} differs; the list now:\n{found}", path.display()).into());
    }
    Ok(())
}

impl Description {
    fn text(&self) -> String {
        let windows = self.windows.iter().map(|(base, len)| format!(" {base:x}+{len:x}"));
        let interrupts = self
            .interrupts
            .iter()
            .map(|(intid, edge)| format!(" {intid} {}", if *edge { "edge" } else { "level" }));
        let coherent = self.coherent.then(|| " coherent".to_owned());
        windows.chain(interrupts).chain(coherent).collect()
    }
}

/// `None` if ACPI does not list the device.
fn acpi_description(device: &DeviceNode, source: &str) -> Result<Option<Description>, Failed> {
    let Some(identity) = &device.acpi else { return Ok(None) };
    let (_, body) = source.split_once(&format!("Device ({})\n", identity.name)).ok_or("no such device")?;
    let body = body.split("Device (").next().unwrap_or_default();
    let mut description =
        Description { coherent: body.contains("Name (_CCA, One)"), ..Description::default() };
    let mut numbers = body.lines().skip_while(|line| !line.contains("ResourceTemplate")).filter_map(|line| {
        Some((line, u64::from_str_radix(line.trim().strip_prefix("0x")?.get(..8)?, 16).ok()?))
    });
    for line in body.lines().map(str::trim) {
        let mut next = || numbers.next().map(|(_, number)| number).ok_or("a number is missing");
        if line.starts_with("Memory32Fixed (ReadWrite,") {
            description.windows.push((next()?, next()?));
        } else if let Some(flags) = line.strip_prefix("Interrupt (ResourceConsumer, ") {
            let edge = match flags.split(", ").collect::<Vec<_>>()[..] {
                ["Edge", "ActiveHigh", ..] => true,
                ["Level", "ActiveHigh", ..] => false,
                _ => return Err(format!("{line}: neither a rising edge nor a high level").into()),
            };
            description.interrupts.push((u32::try_from(next()?)?, edge));
        }
    }
    Ok(Some(description))
}

/// `None` if the devicetree does not list the device.
fn devicetree_description(device: &DeviceNode, tree: &Tree) -> Result<Option<Description>, Failed> {
    let Some(name) = node_name(device) else { return Ok(None) };
    let node = tree.at(&name);
    let mut description = Description { coherent: node.has("dma-coherent"), ..Description::default() };
    if node.has("reg") {
        description.windows = node.wide("reg").chunks(2).map(|pair| (pair[0], pair[1])).collect();
    }
    description.interrupts = interrupts(node)?;
    Ok(Some(description))
}

/// A child node, which only a devicetree has.
fn part(node: &Tree) -> Result<String, Failed> {
    Ok(format!(
        " / {}{}",
        node.name,
        Description { interrupts: interrupts(node)?, ..Description::default() }.text()
    ))
}

fn interrupts(node: &Tree) -> Result<Vec<(u32, bool)>, Failed> {
    if !node.has("interrupts") {
        return Ok(Vec::new());
    }
    let cells = node.cells("interrupts");
    let lines = cells.chunks(3).map(|cells| match *cells {
        [0, number, 1] => Ok((number + 32, true)),
        [0, number, 4] => Ok((number + 32, false)),
        _ => Err(format!("{cells:?}: neither a rising edge nor a high level").into()),
    });
    lines.collect()
}

fn node_name(device: &DeviceNode) -> Option<String> {
    let name = device.devicetree.as_ref()?.node_name;
    Some(match device.windows.first() {
        Some(window) => format!("{name}@{:x}", window.base()),
        None => name.into(),
    })
}

fn devicetree(machine: &Platform) -> Result<Tree, Failed> {
    Ok(Tree::read(
        &firmware_tables::build(TableSet::Devicetree, machine, &machine::chosen(), &OEM)?.tables[0].bytes,
    ))
}

/// The DSDT's source.
fn dsdt(machine: &Platform) -> Result<String, Failed> {
    let built = firmware_tables::build(TableSet::Acpi, machine, &machine::chosen(), &OEM)?;
    let directory = tempfile::tempdir()?;
    fs::write(directory.path().join("dsdt.aml"), &built.table("dsdt").ok_or("no DSDT")?.bytes)?;
    let output = Command::new("iasl").args(["-d", "dsdt.aml"]).current_dir(directory.path()).output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
    }
    Ok(fs::read_to_string(directory.path().join("dsdt.dsl"))?)
}
