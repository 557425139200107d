//! The interrupt controller: GICv3 by system registers (Arm IHI 0069), or GICv2 by memory (Arm IHI 0048).

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::DEVICES_END;
use super::counter::wait_until;
use super::cpu::{self, read_register, write_register};
use super::topology::{Interface, MAX_PROCESSORS, Topology};
use crate::dsdt::Interrupt;
use crate::failure::Failure;
use crate::physical::Register;

/// Registers of the distributor. A redistributor's second frame has the registers of private interrupts at the same offsets.
mod offset {
    pub(super) const CONTROL: u64 = 0x000;
    pub(super) const TYPE: u64 = 0x004;
    pub(super) const GROUP: u64 = 0x080;
    pub(super) const SET_ENABLE: u64 = 0x100;
    pub(super) const CLEAR_ENABLE: u64 = 0x180;
    pub(super) const CLEAR_PENDING: u64 = 0x280;
    pub(super) const PRIORITY: u64 = 0x400;
    /// GICv2.
    pub(super) const TARGETS: u64 = 0x800;
    pub(super) const CONFIGURATION: u64 = 0xc00;
    /// GICv3.
    pub(super) const ROUTER: u64 = 0x6000;
}

/// Registers of a redistributor's first frame (IHI 0069, 12.10).
mod redistributor {
    pub(super) const TYPE: u64 = 0x08;
    pub(super) const AFFINITY: u64 = 0x0c;
    pub(super) const WAKER: u64 = 0x14;
    pub(super) const LAST: u32 = 1 << 4;
    /// Two more frames, for virtual interrupts.
    pub(super) const VIRTUAL: u32 = 1 << 1;
    pub(super) const PROCESSOR_SLEEP: u32 = 1 << 1;
    pub(super) const CHILDREN_ASLEEP: u32 = 1 << 2;
    pub(super) const FRAME: u64 = 0x1_0000;
}

/// Registers of a GICv2 CPU interface.
mod interface {
    pub(super) const CONTROL: u64 = 0x00;
    pub(super) const PRIORITY_MASK: u64 = 0x04;
    pub(super) const ACKNOWLEDGE: u64 = 0x0c;
    pub(super) const END: u64 = 0x10;
    pub(super) const LEN: u64 = 0x14;
}

const ENABLE_GROUP_0: u32 = 1 << 0;
const ENABLE_GROUP_1: u32 = 1 << 1;
const AFFINITY_ROUTING: u32 = 1 << 4;
const WRITE_PENDING: u32 = 1 << 31;
const LOWEST_PRIORITY: u32 = 0xf0;
const PRIORITY: u32 = 0x80;
/// End of private INTIDs, and start of special INTIDs.
const PRIVATE_END: u32 = 32;
const SPECIAL: u32 = 1020;
const DISTRIBUTOR_LEN: u64 = 0x1000;
const DISTRIBUTOR_LEN_V3: u64 = 0x1_0000;

static DISTRIBUTOR: AtomicU64 = AtomicU64::new(0);
/// Frame with the registers of this processor's private interrupts: the distributor in GICv2.
static PRIVATE: AtomicU64 = AtomicU64::new(0);
/// The CPU interface; 0 if it consists of system registers.
static INTERFACE: AtomicU64 = AtomicU64::new(0);
/// Number of INTIDs of the distributor.
static INTERRUPTS: AtomicU32 = AtomicU32::new(0);

/// Initialises the GIC for the processor that runs this. No interrupt is enabled yet.
pub(crate) fn set_up(topology: &Topology) -> Result<(), Failure> {
    let distributor = topology.distributor;
    DISTRIBUTOR.store(distributor, Ordering::Relaxed);
    match topology.interface {
        Interface::SystemRegisters => {
            check_window(distributor, DISTRIBUTOR_LEN_V3)?;
            set_up_v3(topology)?;
        }
        Interface::Memory(base) => {
            check_window(distributor, DISTRIBUTOR_LEN)?;
            check_window(base, interface::LEN)?;
            PRIVATE.store(distributor, Ordering::Relaxed);
            INTERFACE.store(base, Ordering::Relaxed);
            register(distributor, offset::CONTROL).write(ENABLE_GROUP_0);
            register(base, interface::PRIORITY_MASK).write(LOWEST_PRIORITY);
            register(base, interface::CONTROL).write(ENABLE_GROUP_0);
        }
        Interface::Missing => return Err(Failure::new("the tables list no interrupt controller")),
    }
    let lines = register(distributor, offset::TYPE).read() & 0x1f;
    INTERRUPTS.store((32 * (lines + 1)).min(SPECIAL), Ordering::Relaxed);
    Ok(())
}

fn set_up_v3(topology: &Topology) -> Result<(), Failure> {
    let distributor = topology.distributor;
    let own = own_redistributor(topology)?;
    PRIVATE.store(own + redistributor::FRAME, Ordering::Relaxed);
    let control = register(distributor, offset::CONTROL);
    control.write(AFFINITY_ROUTING);
    control.write(AFFINITY_ROUTING | ENABLE_GROUP_1);
    if !wait_until(|| control.read() & WRITE_PENDING == 0) {
        return Err(Failure::new("the GIC's distributor does not complete writes"));
    }
    let waker = register(own, redistributor::WAKER);
    waker.write(waker.read() & !redistributor::PROCESSOR_SLEEP);
    if !wait_until(|| waker.read() & redistributor::CHILDREN_ASLEEP == 0) {
        return Err(Failure::new("the GIC's redistributor does not wake up"));
    }
    // ICC_SRE_EL1. All of these by encoding, since some assemblers do not have the names.
    let enable = read_register!("S3_0_C12_C12_5") | 1;
    // SAFETY: changes interrupt delivery; no interrupt is enabled.
    unsafe { write_register!("S3_0_C12_C12_5", enable) };
    if read_register!("S3_0_C12_C12_5") & 1 == 0 {
        return Err(Failure::new("the GIC's system registers cannot be enabled"));
    }
    // SAFETY: likewise. ICC_PMR_EL1, ICC_BPR1_EL1, ICC_CTLR_EL1 and ICC_IGRPEN1_EL1.
    unsafe {
        write_register!("S3_0_C4_C6_0", u64::from(LOWEST_PRIORITY));
        write_register!("S3_0_C12_C12_3", 0);
        write_register!("S3_0_C12_C12_4", 0);
        write_register!("S3_0_C12_C12_7", 1);
    }
    Ok(())
}

/// The redistributor of the processor that runs this. Fails if a listed processor has none.
fn own_redistributor(topology: &Topology) -> Result<u64, Failure> {
    let mut own = None;
    let mut has_one = [false; MAX_PROCESSORS];
    for region in topology.redistributors() {
        let mut base = region.start;
        while base < region.end {
            check_window(base, 2 * redistributor::FRAME)?;
            let kind = register(base, redistributor::TYPE).read();
            let affinity = u64::from(register(base, redistributor::AFFINITY).read());
            // GICR_TYPER has the four affinity levels contiguously, MPIDR_EL1 does not.
            let affinity = (affinity & 0xff00_0000) << 8 | affinity & 0xff_ffff;
            if affinity == cpu::affinity() {
                own = Some(base);
            }
            for (has_one, _) in has_one.iter_mut().zip(topology.mpidrs()).filter(|(_, of)| **of == affinity) {
                *has_one = true;
            }
            if kind & redistributor::LAST != 0 {
                break;
            }
            base += redistributor::FRAME * if kind & redistributor::VIRTUAL != 0 { 4 } else { 2 };
        }
    }
    let without = topology.mpidrs().iter().zip(has_one).find(|(_, has_one)| !has_one);
    match (without, own) {
        (None, Some(own)) => Ok(own),
        (Some((mpidr, _)), _) => Err(Failure::with("no redistributor for the processor with MPIDR", *mpidr)),
        (None, None) => Err(Failure::with("no redistributor for this processor, MPIDR", cpu::affinity())),
    }
}

/// Routes an interrupt to the processor that runs this, and enables it.
pub(crate) fn enable(interrupt: Interrupt) -> Result<(), Failure> {
    let intid = interrupt.gsi;
    if !(16..INTERRUPTS.load(Ordering::Relaxed)).contains(&intid) {
        return Err(Failure::with("the GIC has no interrupt", u64::from(intid)));
    }
    if interrupt.active_low {
        return Err(Failure::with("a GIC does not support active-low interrupts, INTID", u64::from(intid)));
    }
    let is_v3 = INTERFACE.load(Ordering::Relaxed) == 0;
    let distributor = DISTRIBUTOR.load(Ordering::Relaxed);
    let is_private = intid < PRIVATE_END;
    let base = if is_private { PRIVATE.load(Ordering::Relaxed) } else { distributor };
    let (word, bit) = (u64::from(intid / 32 * 4), 1 << (intid % 32));
    register(base, offset::CLEAR_ENABLE + word).write(bit);
    if is_v3 {
        set_bits(base, offset::GROUP + word, bit, bit);
    }
    set_byte(base, offset::PRIORITY, intid, PRIORITY);
    let shift = intid % 16 * 2;
    let edge = if interrupt.level { 0 } else { 2 << shift };
    set_bits(base, offset::CONFIGURATION + u64::from(intid / 16 * 4), 3 << shift, edge);
    match (is_private, is_v3) {
        (true, _) => {}
        (false, true) => {
            let router = register(distributor, offset::ROUTER + 8 * u64::from(intid));
            let router_high = register(distributor, offset::ROUTER + 8 * u64::from(intid) + 4);
            router.write(cpu::affinity() as u32);
            router_high.write((cpu::affinity() >> 32) as u32);
        }
        (false, false) => {
            // The first registers are those of private interrupts, which target this processor.
            let own = register(distributor, offset::TARGETS).read() & 0xff;
            set_byte(distributor, offset::TARGETS, intid, own);
        }
    }
    if !interrupt.level {
        register(base, offset::CLEAR_PENDING + word).write(bit);
    }
    register(base, offset::SET_ENABLE + word).write(bit);
    Ok(())
}

/// An acknowledged, active interrupt.
pub(crate) struct Acknowledged(u32);

impl Acknowledged {
    pub(crate) fn intid(&self) -> u32 {
        self.0 & 0x3ff
    }

    pub(crate) fn end(self) {
        cpu::publish();
        match INTERFACE.load(Ordering::Relaxed) {
            // SAFETY: ends an acknowledged interrupt (ICC_EOIR1_EL1).
            0 => unsafe { write_register!("S3_0_C12_C12_1", u64::from(self.0)) },
            base => register(base, interface::END).write(self.0),
        }
    }
}

/// Acknowledges the pending interrupt. `None` if it is not pending any more.
pub(crate) fn acknowledge() -> Option<Acknowledged> {
    let acknowledged = Acknowledged(match INTERFACE.load(Ordering::Relaxed) {
        // ICC_IAR1_EL1.
        0 => read_register!("S3_0_C12_C12_0") as u32,
        base => register(base, interface::ACKNOWLEDGE).read(),
    });
    cpu::publish();
    (acknowledged.intid() < SPECIAL).then_some(acknowledged)
}

/// Sets the byte of an interrupt in registers with one byte per interrupt.
fn set_byte(base: u64, offset: u64, intid: u32, value: u32) {
    let shift = intid % 4 * 8;
    set_bits(base, offset + u64::from(intid / 4 * 4), 0xff << shift, value << shift);
}

fn set_bits(base: u64, offset: u64, mask: u32, bits: u32) {
    let register = register(base, offset);
    register.write(register.read() & !mask | bits);
}

fn check_window(base: u64, len: u64) -> Result<(), Failure> {
    let is_mapped = base.checked_add(len).is_some_and(|end| end <= DEVICES_END);
    if base != 0 && base.is_multiple_of(0x1000) && is_mapped {
        Ok(())
    } else {
        Err(Failure::with("the GIC is not in mapped device memory:", base))
    }
}

fn register(base: u64, offset: u64) -> Register {
    // SAFETY: `check_window` validated the base, which is from firmware tables.
    unsafe { Register::at(base + offset) }
}
