//! A complete flattened devicetree of an arm64 machine (Devicetree Specification 0.4; bindings as in Linux), for guests
//! without ACPI.

mod devices;
mod error_sources;
mod gic;
mod interrupts;
mod phandles;
mod processors;

use platform::{Arch, Chosen, FixedClock, Platform, PowerControl, Range, RegionKind};

use crate::fdt::Node;
use crate::{BuildError, EntryPoint, GuestTables, OemInfo, TableSet, chosen, records};
use error_sources::ErrorSources;
use phandles::Phandles;

/// This table set.
const SET: TableSet = TableSet::Devicetree;

/// The devicetree, and the error records if there are error sources.
pub(crate) fn build(
    platform: &Platform,
    chosen: &Chosen,
    oem: &OemInfo<'_>,
) -> Result<GuestTables, BuildError> {
    if platform.arch != Arch::Aarch64 {
        return Err(BuildError::WrongArch { set: SET, arch: platform.arch });
    }
    if platform.error_injection.is_some() {
        return Err(BuildError::ErrorInjection { set: SET });
    }
    if platform.memory.boot_record.is_some() {
        return Err(BuildError::OnlyAcpi { set: SET, what: "a boot error region" });
    }
    if platform.error_serialization.is_some() {
        return Err(BuildError::OnlyAcpi { set: SET, what: "a store for error records" });
    }
    let phandles = Phandles::of(platform)?;
    let error_sources = ErrorSources::of(platform, phandles.first_free())?;
    let root = root(platform, chosen, oem, &phandles, error_sources.as_ref())?;
    let table = chosen::table(SET, platform, &root)?;
    let entry = EntryPoint::Devicetree { gpa: table.gpa };
    let record_area = error_sources.map(|sources| sources.area);
    // Records are above the devicetree: `chosen::table` ends its area below them.
    let tables = [table].into_iter().chain(record_area.as_ref().map(records::table)).collect();
    Ok(GuestTables { set: SET, tables, entry, record_area, error_device: false })
}

fn root(
    platform: &Platform,
    boot: &Chosen,
    oem: &OemInfo<'_>,
    phandles: &Phandles,
    error_sources: Option<&ErrorSources>,
) -> Result<Node, BuildError> {
    let mut chosen = chosen::node(boot);
    if let Some(console) = platform.console_device().and_then(devices::node_name) {
        chosen = chosen.text("stdout-path", format!("/{console}"));
    }
    let mut root = Node::root()
        .cell_counts(2, 2)
        .texts("compatible", oem.compatible)
        .text("model", oem.model)
        .cells("interrupt-parent", &[phandles::INTERRUPT_CONTROLLER])
        .child(chosen)
        .child(memory(&platform.memory.ram))
        .children(reserved_memory(platform, error_sources))
        .child(processors::cpus(&platform.cpus)?)
        .child(psci(platform.power)?)
        .child(gic::node(platform)?)
        .children(interrupts::timer(platform))
        .children(interrupts::performance_monitors(platform));
    for clock in &platform.clocks {
        root = root.children(phandles.get(clock.name).map(|phandle| fixed_clock(*clock, phandle)));
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

/// `/reserved-memory` (3.5): RAM that the guest must neither use nor map. `None` if there is none.
fn reserved_memory(platform: &Platform, error_sources: Option<&ErrorSources>) -> Option<Node> {
    let reserved_regions = platform.memory.regions.iter().filter(|region| {
        matches!(region.kind, RegionKind::Reserved | RegionKind::AcpiNvs | RegionKind::Unusable)
            && platform.memory.is_ram(region.range)
    });
    let nodes: Vec<Node> = reserved_regions
        .flat_map(|region| match error_sources {
            Some(sources) if Some(region.range) == platform.memory.records => sources.reserved(region.range),
            _ if region.kind == RegionKind::Unusable => vec![reserved("poisoned", region.range)],
            _ => vec![reserved("firmware", region.range)],
        })
        .collect();
    (!nodes.is_empty()).then(|| Node::new("reserved-memory").cell_counts(2, 2).flag("ranges").children(nodes))
}

fn reserved(name: &str, range: Range) -> Node {
    Node::at(name, range.start).reg(&[range]).flag("no-map")
}

/// `/psci` (Linux, `arm/psci.yaml`). From PSCI 0.2 on, function ids are standard and not listed.
fn psci(power: PowerControl) -> Result<Node, BuildError> {
    if power != PowerControl::PsciHvc {
        let actual = format!("{power:x?}");
        return Err(BuildError::Power { set: SET, expected: "PSCI by HVC", actual });
    }
    Ok(Node::new("psci").texts("compatible", &["arm,psci-1.0", "arm,psci-0.2"]).text("method", "hvc"))
}

/// A clock of constant frequency (Linux, `clock/fixed-clock.yaml`).
fn fixed_clock(clock: FixedClock, phandle: u32) -> Node {
    Node::new(clock.name)
        .text("compatible", "fixed-clock")
        .cells("#clock-cells", &[0])
        .cells("clock-frequency", &[clock.hz])
        .cells("phandle", &[phandle])
}
