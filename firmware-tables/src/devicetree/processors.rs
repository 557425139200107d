//! `/cpus`.

use platform::Cpu;

use crate::BuildError;
use crate::fdt::Node;

/// The affinity fields of MPIDR_EL1 (Arm DDI 0487): Aff3, and Aff2 to Aff0.
const AFFINITY: u64 = 0xff_00ff_ffff;

/// `/cpus` (3.7 and 3.8; Linux, `arm/cpus.yaml`): `reg` is the affinity in two cells.
pub(super) fn cpus(cpus: &[Cpu]) -> Result<Node, BuildError> {
    let nodes = cpus.iter().map(|cpu| processor(*cpu)).collect::<Result<Vec<_>, _>>()?;
    Ok(Node::new("cpus").cell_counts(2, 0).children(nodes))
}

fn processor(cpu: Cpu) -> Result<Node, BuildError> {
    let id = cpu.hardware_id;
    if id & !AFFINITY != 0 {
        return Err(BuildError::Affinity { table: "/cpus", index: cpu.index, id });
    }
    Ok(Node::at("cpu", id)
        .text("device_type", "cpu")
        .text("compatible", "arm,armv8")
        .wide("reg", id)
        .text("enable-method", "psci"))
}
