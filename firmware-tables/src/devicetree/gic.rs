//! The interrupt controller's node.

use platform::{InterruptController, Platform, Range};

use super::{SET, interrupts, phandles};
use crate::BuildError;
use crate::fdt::Node;

/// Maximum number of processors of a GICv2 (Arm IHI 0048).
const GICV2_MAX_CPUS: usize = 8;

/// Linux, `interrupt-controller/arm,gic-v3.yaml` and `interrupt-controller/arm,gic.yaml`.
pub(super) fn node(platform: &Platform) -> Result<Node, BuildError> {
    match platform.interrupts {
        InterruptController::Gicv3 { distributor, redistributors, its } => {
            let node = controller("arm,gic-v3", &[distributor, redistributors]);
            Ok(match its {
                Some(its) => node.cell_counts(2, 2).flag("ranges").child(translation_service(its)),
                None => node.cells("#address-cells", &[0]),
            })
        }
        InterruptController::Gicv2 { distributor, cpu_interface } => {
            let cpus = platform.cpus.len();
            if cpus > GICV2_MAX_CPUS {
                return Err(BuildError::TooManyCpus {
                    table: "interrupt-controller (GICv2)",
                    cpus,
                    limit: GICV2_MAX_CPUS,
                });
            }
            Ok(controller("arm,cortex-a15-gic", &[distributor, cpu_interface]).cells("#address-cells", &[0]))
        }
        InterruptController::Apic { .. } => {
            Err(BuildError::InterruptController { set: SET, arch: platform.arch })
        }
    }
}

fn controller(compatible: &str, registers: &[Range; 2]) -> Node {
    Node::at("interrupt-controller", registers[0].start)
        .text("compatible", compatible)
        .reg(registers)
        .flag("interrupt-controller")
        .cells("#interrupt-cells", &[interrupts::CELLS])
        .cells("phandle", &[phandles::INTERRUPT_CONTROLLER])
}

/// The Interrupt Translation Service. Its MSI specifier is one cell, the device id of the sender.
fn translation_service(registers: Range) -> Node {
    Node::at("msi-controller", registers.start)
        .text("compatible", "arm,gic-v3-its")
        .reg(&[registers])
        .flag("msi-controller")
        .cells("#msi-cells", &[1])
}
