//! Interrupt controllers.

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
}
