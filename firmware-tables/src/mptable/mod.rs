//! MP floating pointer and configuration table (Intel MultiProcessor Specification 1.4), for guests without ACPI.
//!
//! An MP table cannot describe memory-mapped devices: the command line contains the virtio-mmio transports
//! (`virtio_mmio.device=4K@0xd0000000:5`). Their interrupts need an entry nevertheless, or the guest does not set up the
//! pin. They are described as ISA interrupts: interrupt n is pin n, also from 16 on, beyond those of a real ISA bus.

mod wire;

use platform::{Arch, Cpu, DeviceNode, InterruptController, Platform, Trigger};
use zerocopy::little_endian::{U16, U32};
use zerocopy::{Immutable, IntoBytes};

use crate::area::Area;
use crate::{BuildError, EntryPoint, GuestTables, OemInfo, Table, TableSet, checksum};

/// This table set.
const SET: TableSet = TableSet::MpTable;
/// The name of the configuration table in errors.
const TABLE: &str = "MP configuration table";
/// Guests search for the floating pointer from here to the end of the first MiB (4, "The MP Floating Pointer Structure",
/// place c).
const SCAN_START: u64 = 0xf_0000;
/// The id of the only bus.
const ISA_BUS: u8 = 0;
/// Number of interrupts of an ISA bus.
const ISA_LINES: usize = 16;
/// Number of pins of KVM's I/O APIC.
const PINS: usize = 24;
/// The 8254 timer's ISA line.
const TIMER_LINE: usize = 0;
/// The timer's pin. The ISA interrupt of that number cascades the two 8259s and has no pin.
const TIMER_PIN: usize = 2;
/// APIC id that means all local APICs.
const ALL: u8 = 0xff;
/// Maximum number of processors: ids are 0 to 254.
const MAX_CPUS: usize = 255;

/// Both structures, in the part of the table area where guests search for the floating pointer.
pub(crate) fn build(platform: &Platform, oem: &OemInfo<'_>) -> Result<GuestTables, BuildError> {
    if platform.arch != Arch::X86_64 {
        return Err(BuildError::WrongArch { set: SET, arch: platform.arch });
    }
    if !platform.error_sources.is_empty() {
        return Err(BuildError::ErrorSources { set: SET, sources: platform.error_sources.len() });
    }
    if platform.error_injection.is_some() {
        return Err(BuildError::ErrorInjection { set: SET });
    }
    if platform.memory.boot_record.is_some() {
        return Err(BuildError::OnlyAcpi { set: SET, what: "a boot error region" });
    }
    if platform.error_serialization.is_some() {
        return Err(BuildError::OnlyAcpi { set: SET, what: "a store for error records" });
    }
    let configuration = configuration(platform, oem)?;
    let mut area = Area::new(platform.memory.tables, SCAN_START);
    let pointer_gpa = area.claim(size_of::<wire::FloatingPointer>());
    let table_gpa = area.claim(configuration.len());
    area.close(SET)?;

    let pointer = Table {
        name: "mpfp",
        file_name: "mpfp.bin",
        gpa: pointer_gpa,
        bytes: floating_pointer(low("MP floating pointer", "physical address pointer", table_gpa)?),
    };
    let table = Table { name: "mptable", file_name: "mptable.bin", gpa: table_gpa, bytes: configuration };
    let entry = EntryPoint::MpFloatingPointer { gpa: pointer.gpa };
    Ok(GuestTables { set: SET, tables: vec![pointer, table], entry, record_area: None, error_device: false })
}

fn floating_pointer(table: u32) -> Vec<u8> {
    let mut pointer = wire::FloatingPointer {
        signature: *b"_MP_",
        table: U32::new(table),
        paragraphs: 1,
        revision: wire::REVISION_1_4,
        checksum: 0,
        // 0: a configuration table is present.
        default_configuration: 0,
        features: [0; 4],
    };
    pointer.checksum = checksum::balancing(pointer.as_bytes());
    pointer.as_bytes().to_vec()
}

fn configuration(platform: &Platform, oem: &OemInfo<'_>) -> Result<Vec<u8>, BuildError> {
    let InterruptController::Apic { local_base, io_apic } = platform.interrupts else {
        return Err(BuildError::InterruptController { set: SET, arch: platform.arch });
    };
    if platform.cpus.len() > MAX_CPUS {
        return Err(BuildError::TooManyCpus { table: TABLE, cpus: platform.cpus.len(), limit: MAX_CPUS });
    }
    let mut entries = Entries::default();
    for cpu in &platform.cpus {
        entries.push(wire::Processor::new(apic_id(*cpu)?, cpu.index == 0));
    }
    entries.push(wire::Bus::new(ISA_BUS, *b"ISA   "));
    entries.push(wire::IoApic::new(io_apic.id, low(TABLE, "I/O APIC address", io_apic.base)?));
    for Wire { line, pin, mode } in wires(&platform.devices, io_apic.gsi_base)? {
        entries.push(wire::InterruptAssignment::io(mode, ISA_BUS, line, io_apic.id, pin));
    }
    entries.push(wire::InterruptAssignment::local(wire::EXT_INT, ISA_BUS, ALL, 0));
    entries.push(wire::InterruptAssignment::local(wire::NMI, ISA_BUS, ALL, 1));
    Ok(entries.into_table(low(TABLE, "local APIC address", local_base)?, oem))
}

/// An interrupt of the bus and its pin of the I/O APIC.
struct Wire {
    line: u8,
    pin: u8,
    mode: u16,
}

/// All ISA interrupts, and of those from 16 on the ones that a device uses.
fn wires(devices: &[DeviceNode], gsi_base: u32) -> Result<Vec<Wire>, BuildError> {
    let mut modes = [None; PINS];
    modes[..ISA_LINES].fill(Some(wire::CONFORMING));
    modes[TIMER_PIN] = None;
    for (device, interrupt) in
        devices.iter().flat_map(|device| device.interrupts.iter().map(move |interrupt| (device, *interrupt)))
    {
        let error = |limit| BuildError::Interrupt { set: SET, device: device.name.clone(), interrupt, limit };
        let pin = interrupt.gsi.checked_sub(gsi_base).map_or(PINS, |pin| pin as usize);
        if pin == TIMER_LINE || pin == TIMER_PIN {
            return Err(error("GSI 0 and 2 are reserved for the timer"));
        }
        let mode = modes.get_mut(pin).ok_or_else(|| error("the I/O APIC has pins 0 to 23"))?;
        *mode = Some(match interrupt.trigger {
            Trigger::Edge => wire::EDGE_HIGH,
            Trigger::Level => wire::LEVEL_HIGH,
        });
    }
    let wires = modes.iter().enumerate().filter_map(|(line, mode)| {
        let pin = if line == TIMER_LINE { TIMER_PIN } else { line };
        Some(Wire { line: line as u8, pin: pin as u8, mode: (*mode)? })
    });
    Ok(wires.collect())
}

fn apic_id(cpu: Cpu) -> Result<u8, BuildError> {
    u8::try_from(cpu.hardware_id).ok().filter(|id| *id != ALL).ok_or(BuildError::ApicId {
        table: TABLE,
        index: cpu.index,
        id: cpu.hardware_id,
        limit: "at most 254 (MultiProcessor Specification 1.4, 4.3.1)",
    })
}

fn low(table: &'static str, field: &'static str, value: u64) -> Result<u32, BuildError> {
    u32::try_from(value).map_err(|_| BuildError::FieldTooNarrow { table, field, value })
}

/// The entries of a configuration table, in ascending order of type (4.3).
#[derive(Default)]
struct Entries {
    bytes: Vec<u8>,
    count: u16,
}

impl Entries {
    fn push(&mut self, entry: impl IntoBytes + Immutable) {
        self.bytes.extend_from_slice(entry.as_bytes());
        self.count += 1;
    }

    /// The whole table: header, entries, and a checksum over both.
    fn into_table(self, local_apic: u32, oem: &OemInfo<'_>) -> Vec<u8> {
        // At most 255 processors take 5100 bytes, and everything else 300: the length fits into 16 bits.
        let length = size_of::<wire::Header>() + self.bytes.len();
        let mut header = wire::Header {
            signature: *b"PCMP",
            length: U16::new(length as u16),
            revision: wire::REVISION_1_4,
            checksum: 0,
            oem_id: oem.mp_oem_id,
            product_id: oem.mp_product_id,
            oem_table: U32::ZERO,
            oem_table_len: U16::ZERO,
            entry_count: U16::new(self.count),
            local_apic: U32::new(local_apic),
            extended_len: U16::ZERO,
            extended_checksum: 0,
            reserved: 0,
        };
        header.checksum =
            checksum::balancing(header.as_bytes()).wrapping_add(checksum::balancing(&self.bytes));
        [header.as_bytes(), &self.bytes].concat()
    }
}
