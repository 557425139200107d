//! Interrupt controllers, and the interrupts that every processor has for itself.

use crate::memory::Range;

/// An I/O APIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IoApic {
    /// APIC id.
    pub id: u8,
    /// GPA of its registers.
    pub base: u64,
    /// First GSI that it serves.
    pub gsi_base: u32,
}

/// The interrupt controller of a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InterruptController {
    /// Local APICs and one I/O APIC, as KVM's in-kernel irqchip has them. GSI n is pin n; no interrupt is overridden
    /// but the timer's (ISA 0 on GSI 2).
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
        /// The interrupt translation service's frames, 128 KiB; none where the host has none.
        its: Option<Range>,
    },
    /// A GICv2 (Arm IHI 0048): eight processors at most. GSI n is INTID n.
    Gicv2 {
        /// The distributor's registers: 4 KiB.
        distributor: Range,
        /// The processors' interface: 8 KiB.
        cpu_interface: Range,
    },
}

/// The private interrupts (PPIs, as INTIDs 16 to 31, level, active high) of an Arm processor.
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
    /// Overflow of the performance monitors; none where the processor has none.
    pub performance_monitors: Option<u32>,
}
