//! The MP table, for guests that are to know nothing of ACPI.
//!
//! It has no words for memory-mapped devices: a guest learns of its virtio-mmio transports from its command line
//! (`virtio_mmio.device=4K@0xd0000000:5`). Their interrupts need an entry all the same, or the pin is not set up. The ISA
//! bus stands in for them: interrupt n is pin n there, also from 16 up, where a real one ends.

mod wire;

use platform::{Arch, Chosen, Cpu, DeviceNode, InterruptController, Platform, Trigger};
use zerocopy::little_endian::{U16, U32};
use zerocopy::{Immutable, IntoBytes};

use crate::area::Area;
use crate::{BuildError, EntryPoint, GuestTables, Table, TableSet, checksum};

/// The name of this table set.
const NAME: &str = "mptable";
/// Where guests look, up to the end of the first MiB (4, "The MP Floating Pointer Structure", place c).
const SCAN_START: u64 = 0xf_0000;
/// The identification of the only bus.
const ISA_BUS: u8 = 0;
/// The lines of an ISA bus.
const ISA_LINES: usize = 16;
/// Pins of KVM's I/O APIC.
const PINS: usize = 24;
/// The 8254 timer's ISA line.
const TIMER_LINE: usize = 0;
/// The pin that the timer is wired to. The line of that number only joins the two 8259s: it has no pin.
const TIMER_PIN: usize = 2;
/// All local APICs.
const ALL: u8 = 0xff;
/// As many as there are ids for a local APIC.
const MAX_CPUS: usize = 255;

/// MP floating pointer and configuration table (Intel MultiProcessor Specification 1.4).
#[derive(Clone, Copy, Debug)]
pub struct MpTable;

impl TableSet for MpTable {
    fn name(&self) -> &'static str {
        NAME
    }

    fn build(&self, platform: &Platform, _: &Chosen) -> Result<GuestTables, BuildError> {
        if platform.arch != Arch::X86_64 {
            return Err(BuildError::WrongArch { tables: NAME, arch: platform.arch });
        }
        if !platform.error_sources.is_empty() {
            return Err(BuildError::ErrorSources { tables: NAME, sources: platform.error_sources.len() });
        }
        let configuration = configuration(platform)?;
        let mut area = Area::new(platform.memory.tables, SCAN_START);
        let pointer_gpa = area.claim(size_of::<wire::FloatingPointer>());
        let table_gpa = area.claim(configuration.len());
        area.close(NAME)?;

        let pointer = Table {
            name: "mpfp",
            file_name: "mpfp.bin",
            gpa: pointer_gpa,
            bytes: floating_pointer(low("configuration table", table_gpa)?),
        };
        let table = Table { name: "mptable", file_name: "mptable.bin", gpa: table_gpa, bytes: configuration };
        let entry = EntryPoint::MpFloatingPointer { gpa: pointer.gpa };
        Ok(GuestTables { kind: NAME, tables: vec![pointer, table], entry, record_area: None })
    }
}

fn floating_pointer(table: u32) -> Vec<u8> {
    let mut pointer = wire::FloatingPointer {
        signature: *b"_MP_",
        table: U32::new(table),
        paragraphs: 1,
        revision: wire::REVISION_1_4,
        checksum: 0,
        // The table says all, and the 8259s are wired through a local APIC from the start: no mode switch.
        default_configuration: 0,
        features: [0; 4],
    };
    pointer.checksum = checksum::balancing(pointer.as_bytes());
    pointer.as_bytes().to_vec()
}

fn configuration(platform: &Platform) -> Result<Vec<u8>, BuildError> {
    let InterruptController::Apic { local_base, io_apic } = platform.interrupts else {
        return Err(BuildError::WrongArch { tables: NAME, arch: platform.arch });
    };
    if platform.cpus.len() > MAX_CPUS {
        return Err(BuildError::TooManyCpus { tables: NAME, cpus: platform.cpus.len(), limit: MAX_CPUS });
    }
    let mut entries = Entries::default();
    for cpu in &platform.cpus {
        entries.push(wire::Processor::new(apic_id(*cpu)?, cpu.index == 0));
    }
    entries.push(wire::Bus::new(ISA_BUS, *b"ISA   "));
    entries.push(wire::IoApic::new(io_apic.id, low("I/O APIC", io_apic.base)?));
    for Wire { line, pin, mode } in wires(&platform.devices, io_apic.gsi_base)? {
        entries.push(wire::InterruptAssignment::io(mode, ISA_BUS, line, io_apic.id, pin));
    }
    entries.push(wire::InterruptAssignment::local(wire::EXT_INT, ISA_BUS, ALL, 0));
    entries.push(wire::InterruptAssignment::local(wire::NMI, ISA_BUS, ALL, 1));
    Ok(entries.into_table(low("local APIC", local_base)?))
}

/// A line of the bus and the I/O APIC's pin that it ends at.
struct Wire {
    line: u8,
    pin: u8,
    mode: u16,
}

/// All ISA lines, and of those beyond the ones that a device uses.
fn wires(devices: &[DeviceNode], gsi_base: u32) -> Result<Vec<Wire>, BuildError> {
    let mut modes = [None; PINS];
    modes[..ISA_LINES].fill(Some(wire::CONFORMING));
    modes[TIMER_PIN] = None;
    for (device, interrupt) in
        devices.iter().flat_map(|device| device.interrupts.iter().map(move |interrupt| (device, *interrupt)))
    {
        let error =
            |reason| BuildError::Interrupt { tables: NAME, device: device.name.clone(), interrupt, reason };
        let pin = interrupt.gsi.checked_sub(gsi_base).map_or(PINS, |pin| pin as usize);
        if pin == TIMER_LINE || pin == TIMER_PIN {
            return Err(error("GSI 0 and 2 are the timer's"));
        }
        let mode = modes.get_mut(pin).ok_or_else(|| error("the I/O APIC has 24 pins"))?;
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

/// 255 means all local APICs.
fn apic_id(cpu: Cpu) -> Result<u8, BuildError> {
    u8::try_from(cpu.hardware_id).ok().filter(|id| *id != ALL).ok_or(BuildError::ApicId {
        tables: NAME,
        index: cpu.index,
        id: cpu.hardware_id,
        limit: "ids go up to 254",
    })
}

fn low(what: &'static str, gpa: u64) -> Result<u32, BuildError> {
    u32::try_from(gpa).map_err(|_| BuildError::AddressTooHigh { tables: NAME, what, gpa })
}

/// The entries of a configuration table, in the order of their type as 4.3 has it.
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

    /// The header, with a checksum over all, and the entries.
    fn into_table(self, local_apic: u32) -> Vec<u8> {
        // 255 processors at most take 5100 bytes, and everything else 300: the length fits into 16 bits.
        let length = size_of::<wire::Header>() + self.bytes.len();
        let mut header = wire::Header {
            signature: *b"PCMP",
            length: U16::new(length as u16),
            revision: wire::REVISION_1_4,
            checksum: 0,
            oem_id: *b"GHEST   ",
            product_id: *b"GHEST VMM   ",
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
