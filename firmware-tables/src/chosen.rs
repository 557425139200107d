//! `/chosen` and the place of the tree that it is in: what every arm64 kernel is given, whichever tables it then reads.

use platform::{Chosen, Platform, Range, aarch64};

use crate::area::Area;
use crate::fdt::Node;
use crate::{BuildError, Table};

/// `/chosen` (Devicetree Specification 0.4, 3.6; for the rest `chosen.yaml` of dt-schema).
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

/// The tree below `root`, at the address for it.
pub(crate) fn table(tables: &'static str, platform: &Platform, root: &Node) -> Result<Table, BuildError> {
    let bytes = root.flattened()?;
    let mut area = Area::new(room(platform), 0);
    let gpa = area.claim(bytes.len());
    area.close(tables)?;
    Ok(Table { name: "platform", file_name: "platform.dtb", gpa, bytes })
}

/// Where a devicetree may be: the addresses for it, as far as there is memory without error records.
fn room(platform: &Platform) -> Range {
    let start = aarch64::DEVICETREE;
    let ram = platform.memory.ram.iter().find(|ram| ram.contains(start));
    let end = ram.map_or(start, |ram| ram.end());
    let end = platform.memory.records.map_or(end, |records| end.min(records.start));
    Range { start, len: aarch64::DEVICETREE_MAX.min(end.saturating_sub(start)) }
}
