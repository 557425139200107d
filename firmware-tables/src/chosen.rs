//! `/chosen`, and the placement of the devicetree that contains it: every arm64 kernel gets one, also with ACPI.

use platform::{Chosen, Platform, Range};
use ras_core::request::TableSet;

use crate::area::Area;
use crate::fdt::Node;
use crate::{BuildError, Table};

/// `/chosen` (Devicetree Specification 0.4, 3.6; for seeds and initrd `chosen.yaml` of dt-schema).
pub(crate) fn node(chosen: &Chosen) -> Node {
    let mut node = Node::new("chosen").text("bootargs", &chosen.command_line);
    if let Some(initrd) = chosen.initrd {
        node = node.wide("linux,initrd-start", initrd.start).wide("linux,initrd-end", initrd.end());
    }
    if let Some(seed) = chosen.kaslr_seed {
        node = node.wide("kaslr-seed", seed);
    }
    if let Some(seed) = &chosen.rng_seed {
        node = node.bytes("rng-seed", seed);
    }
    node
}

/// The tree below `root` as a table in the platform's devicetree area.
pub(crate) fn table(set: TableSet, platform: &Platform, root: &Node) -> Result<Table, BuildError> {
    let bytes = root.flattened()?;
    let mut area = Area::new(available(set, platform)?, 0);
    let gpa = area.claim(bytes.len());
    area.close(set)?;
    Ok(Table { name: "platform", file_name: "platform.dtb", gpa, bytes })
}

/// The part of the devicetree area that is RAM and below the error records.
fn available(set: TableSet, platform: &Platform) -> Result<Range, BuildError> {
    let memory = &platform.memory;
    let Range { start, len } = memory.devicetree.ok_or(BuildError::NoDevicetreeArea { set })?;
    let ram = memory.ram.iter().find(|ram| ram.contains(start));
    let end = ram.map_or(start, |ram| ram.end());
    let end = memory.records.map_or(end, |records| end.min(records.start));
    Ok(Range { start, len: len.min(end.saturating_sub(start)) })
}
