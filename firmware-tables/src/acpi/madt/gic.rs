//! GICs.

use platform::{Cpu, Platform, Range};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{Immutable, IntoBytes, Unaligned};

use super::{Fixed, MADT, PREFIX, Structure, push};
use crate::BuildError;

/// GICC flag Enabled (table 5.37): the processor is ready for use. The performance interrupt is level-triggered.
const ENABLED: u32 = 1;
/// The affinity fields of an MPIDR: Aff3, and Aff2 to Aff0. Others must be zero (table 5.36).
const AFFINITY: u64 = 0xff_00ff_ffff;
/// Maximum number of processors of a GICv2 (Arm IHI 0048).
const GICV2_MAX_CPUS: usize = 8;

/// The MADT of a GICv3 without its header: one redistributor region for all processors.
pub(super) fn version_3(
    platform: &Platform,
    distributor: Range,
    redistributors: Range,
    its: Option<Range>,
) -> Result<Vec<u8>, BuildError> {
    let length = u32::try_from(redistributors.len).map_err(|_| BuildError::FieldTooNarrow {
        table: MADT,
        field: "discovery range length",
        value: redistributors.len,
    })?;
    let mut body = controller(platform, distributor, 3, 0)?;
    push(
        &mut body,
        Redistributors {
            reserved: U16::ZERO,
            base: U64::new(redistributors.start),
            length: U32::new(length),
        },
    );
    if let Some(its) = its {
        push(
            &mut body,
            TranslationService {
                reserved: U16::ZERO,
                id: U32::ZERO,
                base: U64::new(its.start),
                reserved2: U32::ZERO,
            },
        );
    }
    Ok(body)
}

/// The MADT of a GICv2 without its header.
pub(super) fn version_2(
    platform: &Platform,
    distributor: Range,
    cpu_interface: Range,
) -> Result<Vec<u8>, BuildError> {
    let cpus = platform.cpus.len();
    if cpus > GICV2_MAX_CPUS {
        return Err(BuildError::TooManyCpus { table: "MADT (GICv2)", cpus, limit: GICV2_MAX_CPUS });
    }
    controller(platform, distributor, 2, cpu_interface.start)
}

/// The processors and the distributor. `cpu_interface` is 0 if the CPU interface is accessed by system registers.
fn controller(
    platform: &Platform,
    distributor: Range,
    version: u8,
    cpu_interface: u64,
) -> Result<Vec<u8>, BuildError> {
    let performance_interrupt =
        platform.private_interrupts.and_then(|interrupts| interrupts.performance_monitors).unwrap_or(0);
    let mut body = Fixed { local_apic: U32::ZERO, flags: U32::ZERO }.as_bytes().to_vec();
    for cpu in &platform.cpus {
        push(&mut body, CpuInterface::new(*cpu, performance_interrupt, cpu_interface)?);
    }
    push(
        &mut body,
        Distributor {
            reserved: U16::ZERO,
            id: U32::ZERO,
            base: U64::new(distributor.start),
            vector_base: U32::ZERO,
            version,
            reserved2: [0; 3],
        },
    );
    Ok(body)
}

/// GIC CPU Interface (GICC; ACPI 6.5, 5.2.12.14, table 5.36), as long as in ACPI 6.3: without the interrupt of the trace
/// buffer.
#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct CpuInterface {
    reserved: U16,
    interface_number: U32,
    processor_uid: U32,
    flags: U32,
    parking_protocol_version: U32,
    performance_interrupt: U32,
    parked_address: U64,
    base: U64,
    /// GICV.
    virtual_base: U64,
    /// GICH.
    control_base: U64,
    maintenance_interrupt: U32,
    /// 0: the redistributors have their own structure.
    redistributor_base: U64,
    mpidr: U64,
    efficiency_class: u8,
    reserved2: u8,
    /// Statistical profiling.
    overflow_interrupt: U16,
}

impl Structure for CpuInterface {
    const TYPE: u8 = 0xb;
}

const _: () = assert!(PREFIX + size_of::<CpuInterface>() == 80);

impl CpuInterface {
    fn new(cpu: Cpu, performance_interrupt: u32, base: u64) -> Result<Self, BuildError> {
        let id = cpu.hardware_id;
        if id & !AFFINITY != 0 {
            return Err(BuildError::Affinity { table: MADT, index: cpu.index, id });
        }
        Ok(CpuInterface {
            reserved: U16::ZERO,
            interface_number: U32::new(cpu.index),
            processor_uid: U32::new(cpu.index),
            flags: U32::new(ENABLED),
            parking_protocol_version: U32::ZERO,
            performance_interrupt: U32::new(performance_interrupt),
            parked_address: U64::ZERO,
            base: U64::new(base),
            virtual_base: U64::ZERO,
            control_base: U64::ZERO,
            maintenance_interrupt: U32::ZERO,
            redistributor_base: U64::ZERO,
            mpidr: U64::new(id),
            efficiency_class: 0,
            reserved2: 0,
            overflow_interrupt: U16::ZERO,
        })
    }
}

/// GIC Distributor (GICD; ACPI 6.5, 5.2.12.15, table 5.38).
#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct Distributor {
    reserved: U16,
    id: U32,
    base: U64,
    vector_base: U32,
    version: u8,
    reserved2: [u8; 3],
}

impl Structure for Distributor {
    const TYPE: u8 = 0xc;
}

const _: () = assert!(PREFIX + size_of::<Distributor>() == 24);

/// GIC Redistributor (GICR; ACPI 6.5, 5.2.12.17, table 5.41): the region of all redistributors.
#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct Redistributors {
    reserved: U16,
    base: U64,
    length: U32,
}

impl Structure for Redistributors {
    const TYPE: u8 = 0xe;
}

const _: () = assert!(PREFIX + size_of::<Redistributors>() == 16);

/// GIC Interrupt Translation Service (ITS; ACPI 6.5, 5.2.12.18, table 5.42).
#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct TranslationService {
    reserved: U16,
    id: U32,
    base: U64,
    reserved2: U32,
}

impl Structure for TranslationService {
    const TYPE: u8 = 0xf;
}

const _: () = assert!(PREFIX + size_of::<TranslationService>() == 20);
