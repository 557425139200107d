//! The LINT pins of the local APIC, as a PC's firmware sets them: virtual wire mode (Intel MultiProcessor Specification 1.4,
//! 3.6.2.2), with the legacy interrupt controller on LINT0 and the NMI on LINT1.

use kvm_bindings::kvm_lapic_state;

/// LVT LINT0 register (Intel SDM volume 3, table 10-1).
const LVT_LINT0: usize = 0x350;
/// LVT LINT1 register.
const LVT_LINT1: usize = 0x360;
/// Delivery mode field of an LVT register: bits 8 to 10.
const DELIVERY_MODE: u32 = 0x700;
/// Delivery mode NMI.
const NMI: u32 = 0x400;
/// Delivery mode ExtINT.
const EXT_INT: u32 = 0x700;

/// Sets the delivery modes of both pins. Everything else, including their masks, keeps its reset value; KVM unmasks LINT0.
pub(super) fn wire(lapic: &mut kvm_lapic_state) {
    set_delivery_mode(lapic, LVT_LINT0, EXT_INT);
    set_delivery_mode(lapic, LVT_LINT1, NMI);
}

fn set_delivery_mode(lapic: &mut kvm_lapic_state, register: usize, mode: u32) {
    let bytes = &mut lapic.regs[register..register + 4];
    let value = u32::from_le_bytes([bytes[0] as u8, bytes[1] as u8, bytes[2] as u8, bytes[3] as u8]);
    let value = value & !DELIVERY_MODE | mode;
    for (byte, new) in bytes.iter_mut().zip(value.to_le_bytes()) {
        *byte = new as _;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_delivery_modes_change() {
        let mut lapic = kvm_lapic_state::default();
        lapic.regs[LVT_LINT0 + 2] = 1;
        wire(&mut lapic);
        assert_eq!(
            lapic.regs[LVT_LINT0..LVT_LINT0 + 4].iter().map(|&b| b as u8).collect::<Vec<_>>(),
            [0, 7, 1, 0]
        );
        assert_eq!(
            lapic.regs[LVT_LINT1..LVT_LINT1 + 4].iter().map(|&b| b as u8).collect::<Vec<_>>(),
            [0, 4, 0, 0]
        );
        assert_eq!(lapic.regs.iter().filter(|&&byte| byte != 0).count(), 3);
    }
}
