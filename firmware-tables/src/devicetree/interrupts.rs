//! Interrupt specifiers of the GIC binding, and the nodes of devices with private interrupts.

use platform::{DeviceNode, Interrupt, InterruptController, Platform, PrivateInterrupts, Trigger};

use super::SET;
use crate::BuildError;
use crate::fdt::Node;

/// Cells of an interrupt specifier: kind, number, flags.
pub(super) const CELLS: u32 = 3;

/// Kind: shared peripheral interrupt.
const SPI: u32 = 0;
/// Kind: private peripheral interrupt.
const PPI: u32 = 1;
/// INTIDs of SPIs (Arm IHI 0069, 2.2).
const SPI_INTIDS: std::ops::Range<u32> = 32..1020;
/// The first PPI's INTID.
const FIRST_PPI_INTID: u32 = 16;
/// Flags: rising edge.
const EDGE_RISING: u32 = 1;
/// Flags: high level.
const LEVEL_HIGH: u32 = 4;
/// Flags of a GICv2: the lowest bit of the mask of processors that a PPI is connected to.
const GICV2_CPU_MASK_SHIFT: u32 = 8;

/// The specifiers of a device's interrupts.
pub(super) fn of_device(device: &DeviceNode, interrupts: &[Interrupt]) -> Result<Vec<u32>, BuildError> {
    let mut cells = Vec::new();
    for interrupt in interrupts {
        cells.extend(shared(*interrupt).ok_or_else(|| BuildError::Interrupt {
            set: SET,
            device: device.name.clone(),
            interrupt: *interrupt,
            limit: "must be an SPI, INTID 32 to 1019 (Arm IHI 0069, 2.2)",
        })?);
    }
    Ok(cells)
}

/// The specifier of an SPI. `None` if the INTID is not one of an SPI.
pub(super) fn shared(interrupt: Interrupt) -> Option<[u32; 3]> {
    let flags = match interrupt.trigger {
        Trigger::Edge => EDGE_RISING,
        Trigger::Level => LEVEL_HIGH,
    };
    SPI_INTIDS.contains(&interrupt.gsi).then(|| [SPI, interrupt.gsi - SPI_INTIDS.start, flags])
}

/// `/timer` (Linux, `timer/arm,arch_timer.yaml`). It counts while its processor idles.
pub(super) fn timer(platform: &Platform) -> Option<Node> {
    let PrivateInterrupts { secure_timer, physical_timer, virtual_timer, hypervisor_timer, .. } =
        platform.private_interrupts?;
    let cells: Vec<u32> = [secure_timer, physical_timer, virtual_timer, hypervisor_timer]
        .into_iter()
        .flat_map(|intid| private(intid, platform))
        .collect();
    Some(
        Node::new("timer")
            .text("compatible", "arm,armv8-timer")
            .cells("interrupts", &cells)
            .flag("always-on"),
    )
}

/// `/pmu` (Linux, `arm/pmu.yaml`).
pub(super) fn performance_monitors(platform: &Platform) -> Option<Node> {
    let intid = platform.private_interrupts?.performance_monitors?;
    let cells = private(intid, platform);
    Some(Node::new("pmu").text("compatible", "arm,armv8-pmuv3").cells("interrupts", &cells))
}

/// The specifier of a PPI: level, active high, on every processor.
fn private(intid: u32, platform: &Platform) -> [u32; 3] {
    let cpu_mask = match platform.interrupts {
        InterruptController::Gicv2 { .. } => {
            ((1u32 << platform.cpus.len().min(8)) - 1) << GICV2_CPU_MASK_SHIFT
        }
        _ => 0,
    };
    [PPI, intid.saturating_sub(FIRST_PPI_INTID), LEVEL_HIGH | cpu_mask]
}
