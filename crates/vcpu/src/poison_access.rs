//! An access of a vCPU to poisoned memory.

use guest_memory::{GuestRam, sigbus};
use ras_core::Span;

/// An access of a vCPU to poisoned memory, in the terms of its source: only the signal names a host address, which may not be guest
/// memory, and only KVM names a size. Exhaustive, as [`Exit`](crate::Exit) is: each source has to be handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoisonAccess {
    /// A SIGBUS with BUS_MCEERR_AR during KVM_RUN, which names the HVA.
    Sigbus(sigbus::Fault),
    /// KVM_EXIT_MEMORY_FAULT with EHWPOISON, which names the GPA.
    MemoryFault {
        /// First GPA.
        gpa: u64,
        /// Bytes.
        size: u64,
    },
    /// KVM_EXIT_ARM_SEA: a synchronous external abort that no host driver claimed. The host has not offlined the page.
    ArmSea {
        /// The GPA that was accessed. `None` if KVM does not know it.
        gpa: Option<u64>,
    },
}

impl PoisonAccess {
    /// The poisoned memory. `None` if it is not guest memory, or its address is not known.
    #[must_use]
    pub fn span(&self, ram: &GuestRam) -> Option<Span> {
        let log2 = |bytes: u64| (u64::BITS - bytes.saturating_sub(1).leading_zeros()) as u8;
        match *self {
            PoisonAccess::Sigbus(fault) => Some(Span::around(ram.guest_address(fault.hva)?, fault.log2_len)),
            PoisonAccess::MemoryFault { gpa, size } => Some(Span::around(gpa, log2(size))),
            PoisonAccess::ArmSea { gpa } => Some(Span::around(gpa?, log2(ram.backing().page_size()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use guest_memory::Backing;

    use super::*;

    #[test]
    fn each_source_leads_to_the_poisoned_span() {
        let ram = GuestRam::allocate(&[(0x10_0000, 0x1_0000)], Backing::Anonymous).expect("small memory");
        let hva = ram.host_address(0x10_2345).expect("guest memory");
        let fault = |hva| sigbus::Fault { hva, log2_len: 12, action: sigbus::Action::Required };
        let span = |access: PoisonAccess| access.span(&ram);
        assert_eq!(span(PoisonAccess::Sigbus(fault(hva))), Some(Span::around(0x10_2000, 12)));
        assert_eq!(span(PoisonAccess::Sigbus(fault(1))), None, "memory of this process");
        let named = PoisonAccess::MemoryFault { gpa: 0x20_0000, size: 0x20_0000 };
        assert_eq!(span(named), Some(Span::around(0x20_0000, 21)));
        assert_eq!(span(PoisonAccess::ArmSea { gpa: None }), None);
        let page = span(PoisonAccess::ArmSea { gpa: Some(0x10_2345) }).expect("a page");
        assert_eq!(page.bytes(), ram.backing().page_size());
    }
}
