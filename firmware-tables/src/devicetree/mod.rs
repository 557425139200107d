//! A flattened devicetree of a whole arm64 machine, for guests that are to know nothing of ACPI.
//!
//! Nodes stand in an order that a reader can follow: what the machine is made of, its processors and their interrupts,
//! its devices, and what the boot loader has to say.

mod devices;
mod error_sources;
mod gic;
mod interrupts;
mod phandles;
mod processors;

use platform::{Arch, Chosen, Platform, PowerControl, Range, RegionKind, aarch64};

use crate::fdt::Node;
use crate::{BuildError, EntryPoint, GuestTables, TableSet, chosen, records};
use error_sources::ErrorSources;
use phandles::Phandles;

/// The name of this table set.
const NAME: &str = "devicetree";

/// A complete devicetree (Devicetree Specification 0.4; bindings as Linux keeps them).
#[derive(Clone, Copy, Debug)]
pub struct Devicetree;

impl TableSet for Devicetree {
    fn name(&self) -> &'static str {
        NAME
    }

    fn build(&self, platform: &Platform, chosen: &Chosen) -> Result<GuestTables, BuildError> {
        if platform.arch != Arch::Aarch64 {
            return Err(BuildError::WrongArch { tables: NAME, arch: platform.arch });
        }
        let phandles = Phandles::of(platform)?;
        let error_sources = ErrorSources::of(platform, phandles.first_free())?;
        let root = root(platform, chosen, &phandles, error_sources.as_ref())?;
        let table = chosen::table(NAME, platform, &root)?;
        let entry = EntryPoint::Devicetree { gpa: table.gpa };
        let record_area = error_sources.map(|sources| sources.area);
        // Records lie above every devicetree.
        let tables = [table].into_iter().chain(record_area.as_ref().map(records::table)).collect();
        Ok(GuestTables { kind: NAME, tables, entry, record_area })
    }
}

fn root(
    platform: &Platform,
    boot: &Chosen,
    phandles: &Phandles,
    error_sources: Option<&ErrorSources>,
) -> Result<Node, BuildError> {
    let mut chosen = chosen::node(boot);
    if let Some(console) = platform.console_device().and_then(devices::node_name) {
        chosen = chosen.text("stdout-path", format!("/{console}"));
    }
    let mut root = Node::root()
        .cell_counts(2, 2)
        // A machine with nothing of its own that a kernel would have to know.
        .text("compatible", "linux,dummy-virt")
        .text("model", "ghest")
        .cells("interrupt-parent", &[phandles::INTERRUPT_CONTROLLER])
        .child(chosen)
        .child(memory(&platform.memory.ram))
        .children(reserved_memory(platform, error_sources))
        .child(processors::cpus(&platform.cpus)?)
        .child(psci(platform.power)?)
        .child(gic::node(platform)?)
        .children(interrupts::timer(platform))
        .children(interrupts::performance_monitors(platform));
    if let Some(phandle) = phandles.get(aarch64::APB_CLOCK) {
        root = root.child(clock(phandle));
    }
    for device in &platform.devices {
        if let Some(identity) = &device.devicetree {
            root = root.child(devices::node(device, identity, phandles)?);
        }
    }
    Ok(root.children(error_sources.into_iter().flat_map(ErrorSources::nodes)))
}

/// `/memory` (3.4).
fn memory(ram: &[Range]) -> Node {
    let start = ram.first().map_or(0, |first| first.start);
    Node::at("memory", start).text("device_type", "memory").reg(ram)
}

/// `/reserved-memory` (3.5): what of the memory is not to be used, and not to be mapped either.
fn reserved_memory(platform: &Platform, error_sources: Option<&ErrorSources>) -> Option<Node> {
    let kept = platform.memory.regions.iter().filter(|region| {
        matches!(region.kind, RegionKind::Reserved | RegionKind::AcpiNvs)
            && platform.memory.is_ram(region.range)
    });
    let nodes: Vec<Node> = kept
        .flat_map(|region| match error_sources {
            Some(sources) if Some(region.range) == platform.memory.records => sources.reserved(region.range),
            _ => vec![reserved("firmware", region.range)],
        })
        .collect();
    (!nodes.is_empty()).then(|| Node::new("reserved-memory").cell_counts(2, 2).flag("ranges").children(nodes))
}

fn reserved(name: &str, range: Range) -> Node {
    Node::at(name, range.start).reg(&[range]).flag("no-map")
}

/// `/psci` (Linux, `arm/psci.yaml`): the calls of PSCI 0.2 and above have numbers of their own, none are listed.
fn psci(power: PowerControl) -> Result<Node, BuildError> {
    if power != PowerControl::PsciHvc {
        let found = format!("{power:x?}");
        return Err(BuildError::Power { tables: NAME, needed: "PSCI by HVC", found });
    }
    Ok(Node::new("psci").texts("compatible", &["arm,psci-1.0", "arm,psci-0.2"]).text("method", "hvc"))
}

/// The clock of the peripheral bus (Linux, `clock/fixed-clock.yaml`).
fn clock(phandle: u32) -> Node {
    Node::new(aarch64::APB_CLOCK)
        .text("compatible", "fixed-clock")
        .cells("#clock-cells", &[0])
        .cells("clock-frequency", &[aarch64::APB_CLOCK_HZ])
        .cells("phandle", &[phandle])
}
