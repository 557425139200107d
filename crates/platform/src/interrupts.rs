//! Interrupt controllers, and the private interrupts of Arm processors.

use crate::memory::Range;

/// An I/O APIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IoApic {
    /// APIC id.
    pub id: u8,
    /// GPA of its registers.
    pub base: u64,
    /// The GSI of its pin 0.
    pub gsi_base: u32,
}

/// The interrupt controller of a machine.
///
/// Not `#[non_exhaustive]`: table builders and the VMM have to handle every one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InterruptController {
    /// Local APICs and one I/O APIC, as KVM's in-kernel irqchip provides them. GSI n is pin n; only the timer's
    /// interrupt is overridden (ISA 0 on GSI 2).
    Apic {
        /// GPA of each processor's local APIC.
        local_base: u64,
        /// The I/O APIC.
        io_apic: IoApic,
    },
    /// A GICv3 (Arm IHI 0069). GSI n is INTID n.
    Gicv3 {
        /// The distributor's frames: 64 KiB.
        distributor: Range,
        /// The redistributors' frames: 128 KiB for each processor, in the order of their index.
        redistributors: Range,
        /// The frames of the Interrupt Translation Service (ITS), 128 KiB. `None` if the machine has no ITS.
        its: Option<Range>,
    },
    /// A GICv2 (Arm IHI 0048), for at most eight processors. GSI n is INTID n.
    Gicv2 {
        /// The distributor's registers: 4 KiB.
        distributor: Range,
        /// The CPU interface: 8 KiB.
        cpu_interface: Range,
    },
}

/// The private peripheral interrupts (PPIs) of an Arm processor, as INTIDs 16 to 31. Level-triggered, active high.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrivateInterrupts {
    /// Secure EL1 physical timer.
    pub secure_timer: u32,
    /// Non-secure EL1 physical timer.
    pub physical_timer: u32,
    /// EL1 virtual timer.
    pub virtual_timer: u32,
    /// Non-secure EL2 physical timer.
    pub hypervisor_timer: u32,
    /// Overflow of the performance monitors (PMU). `None` if processors have no PMU.
    pub performance_monitors: Option<u32>,
}
