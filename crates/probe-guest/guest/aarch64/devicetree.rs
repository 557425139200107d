//! The nodes and properties of a devicetree that the guest uses.

use super::efi;
use super::fdt::{Cell, Fdt, Item};
use super::reserved_memory::ReservedMemory;
use super::topology::{Interface, Topology, Window};
use crate::dsdt::Interrupt;
use crate::failure::Failure;
use crate::memory_map::{Kind, MemoryMap};
use crate::wire::{Field, read_at};

/// Maximum nesting depth of nodes.
const MAX_DEPTH: usize = 16;

/// The contents of a devicetree.
pub(crate) struct Devicetree<'a> {
    pub(crate) nodes: usize,
    /// Whether the root has no node but `/chosen`: then ACPI describes the machine (Linux, drivers of ACPI for arm64).
    pub(crate) has_only_chosen: bool,
    pub(crate) bootargs: &'a [u8],
    /// EFI tables from `/chosen`; `None` without them.
    pub(crate) efi: Option<efi::Pointers>,
    pub(crate) memory: MemoryMap,
    pub(crate) topology: Topology,
    /// The virtual timer's interrupt.
    pub(crate) timer: Option<Interrupt>,
    /// Address and interrupt of the first PL011.
    pub(crate) serial: Option<(u64, Interrupt)>,
    /// Address of a PL031.
    pub(crate) clock: Option<u64>,
    /// Whether PSCI is called by HVC; `None` without PSCI.
    pub(crate) psci_by_hvc: Option<bool>,
    /// Reserved memory, and the error sources that refer to it.
    pub(crate) reserved: ReservedMemory,
}

impl<'a> Devicetree<'a> {
    pub(crate) fn read(fdt: &Fdt<'a>) -> Result<Self, Failure> {
        let mut found = Devicetree {
            nodes: 0,
            has_only_chosen: true,
            bootargs: &[],
            efi: None,
            memory: MemoryMap::new(),
            topology: Topology::new(),
            timer: None,
            serial: None,
            clock: None,
            psci_by_hvc: None,
            reserved: ReservedMemory::new(),
        };
        let mut drafts = [Node::default(); MAX_DEPTH];
        let mut depth = 0usize;
        for item in fdt.items() {
            let item =
                item.map_err(|error| Failure::with("devicetree: malformed at offset", error.at as u64))?;
            match item {
                Item::Node(name) => {
                    let slot = drafts
                        .get_mut(depth)
                        .ok_or(Failure::with("devicetree: more levels than", MAX_DEPTH as u64))?;
                    *slot = Node { name, ..Node::default() };
                    found.nodes += 1;
                    found.has_only_chosen &= depth != 1 || name == b"chosen";
                    depth += 1;
                }
                Item::Property(name, value) => {
                    if let Some(node) = depth.checked_sub(1).and_then(|index| drafts.get_mut(index)) {
                        node.property(name, value);
                    }
                }
                Item::EndOfNode => {
                    depth = depth.saturating_sub(1);
                    let parent = depth.checked_sub(1).and_then(|index| drafts.get(index));
                    if let (Some(node), Some(parent)) = (drafts.get(depth), parent) {
                        node.finish(parent, depth, &mut found)?;
                    }
                }
            }
        }
        found.memory = found.reserved.reserve_in(core::mem::replace(&mut found.memory, MemoryMap::new()))?;
        Ok(found)
    }
}

/// The properties of a node that the guest uses.
#[derive(Clone, Copy)]
struct Node<'a> {
    name: &'a [u8],
    /// Of the children's `reg` (Devicetree Specification 0.4, 2.3.5).
    address_cells: u32,
    size_cells: u32,
    compatible: &'a [u8],
    device_type: &'a [u8],
    is_disabled: bool,
    reg: &'a [u8],
    interrupts: &'a [u8],
    memory_region: &'a [u8],
    phandle: u32,
    redistributor_regions: u32,
    method: &'a [u8],
    bootargs: &'a [u8],
    efi: efi::Pointers,
    /// Bit mask of the five properties for EFI that are present.
    efi_properties: u8,
}

impl Default for Node<'_> {
    fn default() -> Self {
        Node {
            name: &[],
            address_cells: 2,
            size_cells: 1,
            compatible: &[],
            device_type: &[],
            is_disabled: false,
            reg: &[],
            interrupts: &[],
            memory_region: &[],
            phandle: 0,
            redistributor_regions: 1,
            method: &[],
            bootargs: &[],
            efi: efi::Pointers::default(),
            efi_properties: 0,
        }
    }
}

impl<'a> Node<'a> {
    fn property(&mut self, name: &[u8], value: &'a [u8]) {
        let number = || number(value).unwrap_or(0);
        let mut efi_property = |index: u8| self.efi_properties |= 1 << index;
        match name {
            b"#address-cells" => self.address_cells = number() as u32,
            b"#size-cells" => self.size_cells = number() as u32,
            b"compatible" => self.compatible = value,
            b"device_type" => self.device_type = text(value),
            b"status" => self.is_disabled = !matches!(text(value), b"okay" | b"ok"),
            b"reg" => self.reg = value,
            b"interrupts" => self.interrupts = value,
            b"memory-region" => self.memory_region = value,
            b"phandle" => self.phandle = number() as u32,
            b"#redistributor-regions" => self.redistributor_regions = number() as u32,
            b"method" => self.method = text(value),
            b"bootargs" => self.bootargs = text(value),
            b"linux,uefi-system-table" => {
                efi_property(0);
                self.efi.system_table = number();
            }
            b"linux,uefi-mmap-start" => {
                efi_property(1);
                self.efi.map = number();
            }
            b"linux,uefi-mmap-size" => {
                efi_property(2);
                self.efi.map_len = number() as u32;
            }
            b"linux,uefi-mmap-desc-size" => {
                efi_property(3);
                self.efi.descriptor_len = number() as u32;
            }
            b"linux,uefi-mmap-desc-ver" => {
                efi_property(4);
                self.efi.descriptor_version = number() as u32;
            }
            _ => {}
        }
    }

    /// Evaluates a node after all of its properties were read.
    fn finish(&self, parent: &Node<'_>, depth: usize, found: &mut Devicetree<'a>) -> Result<(), Failure> {
        if depth == 1 && self.name == b"chosen" {
            found.bootargs = self.bootargs;
            found.efi = match self.efi_properties {
                0 => None,
                0x1f => Some(self.efi),
                some => {
                    return Err(Failure::with(
                        "devicetree: incomplete linux,uefi-* properties, mask",
                        u64::from(some),
                    ));
                }
            };
        }
        if self.is_disabled {
            return Ok(());
        }
        let mut windows = self.windows(parent)?;
        if depth == 2 && parent.name == b"reserved-memory" {
            let kind = if self.name.starts_with(b"poisoned@") { Kind::Unusable } else { Kind::AcpiNvs };
            return windows.try_for_each(|window| found.reserved.add_region(self.phandle, window, kind));
        }
        match self.device_type {
            b"memory" => {
                for window in windows {
                    found.memory.push(window.start, window.end - window.start, Kind::Usable)?;
                }
                return Ok(());
            }
            b"cpu" => {
                let window = windows.next().ok_or(Failure::new("devicetree: a processor has no reg"))?;
                return found.topology.add_processor(window.start);
            }
            _ => {}
        }
        if self.is(b"arm,gic-v3") {
            self.gic_v3(windows, &mut found.topology)?;
        } else if self.is(b"arm,cortex-a15-gic") || self.is(b"arm,gic-400") {
            let missing = Failure::new("devicetree: the GIC has fewer than two reg entries");
            found.topology.distributor = windows.next().ok_or(missing)?.start;
            found.topology.interface = Interface::Memory(windows.next().ok_or(missing)?.start);
        } else if self.is(b"arm,armv8-timer") {
            // Secure, physical, virtual, hypervisor.
            found.timer = interrupt(self.interrupts, 2);
        } else if self.is(b"arm,pl011") && found.serial.is_none() {
            found.serial = windows.next().map(|window| window.start).zip(interrupt(self.interrupts, 0));
        } else if self.is(b"arm,pl031") {
            found.clock = windows.next().map(|window| window.start);
        } else if self.is(b"arm,psci-0.2") || self.is(b"arm,psci-1.0") {
            found.psci_by_hvc = Some(self.method == b"hvc");
        } else if self.is(b"arm,ras-cper") {
            found.reserved.add_source(self.memory_region, interrupt(self.interrupts, 0))?;
        }
        Ok(())
    }

    fn gic_v3(
        &self,
        mut windows: impl Iterator<Item = Window>,
        topology: &mut Topology,
    ) -> Result<(), Failure> {
        let missing = Failure::new("devicetree: the GIC has too few reg entries");
        topology.distributor = windows.next().ok_or(missing)?.start;
        topology.interface = Interface::SystemRegisters;
        for _ in 0..self.redistributor_regions {
            topology.add_redistributors(windows.next().ok_or(missing)?)?;
        }
        Ok(())
    }

    /// The elements of `reg`.
    fn windows(&self, parent: &Node<'_>) -> Result<impl Iterator<Item = Window> + use<'a>, Failure> {
        let cells = [parent.address_cells, parent.size_cells];
        let [address_len, size_len] = cells.map(|cells| Cell::SIZE * cells.min(4) as usize);
        let is_odd = address_len + size_len == 0 || !self.reg.len().is_multiple_of(address_len + size_len);
        if !self.reg.is_empty() && (is_odd || cells.iter().any(|cells| *cells > 2)) {
            return Err(Failure::with("devicetree: invalid length of reg:", self.reg.len() as u64));
        }
        Ok(self.reg.chunks_exact((address_len + size_len).max(1)).filter_map(move |entry| {
            let (address, size) = entry.split_at_checked(address_len)?;
            let start = number(address)?;
            Some(Window { start, end: start.checked_add(number(size).unwrap_or(0))? })
        }))
    }

    fn is(&self, compatible: &[u8]) -> bool {
        self.compatible.split(|byte| *byte == 0).any(|entry| entry == compatible)
    }
}

/// A number of one or two cells.
fn number(value: &[u8]) -> Option<u64> {
    match value.len() {
        4 => read_at::<Cell>(value, 0).map(|cell| u64::from(cell.0)),
        8 => value.first_chunk().map(|bytes| u64::from_be_bytes(*bytes)),
        _ => None,
    }
}

/// A string without its NUL.
fn text(value: &[u8]) -> &[u8] {
    value.strip_suffix(b"\0").unwrap_or(value)
}

/// The interrupt at an index; three cells per interrupt (Linux, bindings/interrupt-controller/arm,gic-v3.yaml).
fn interrupt(interrupts: &[u8], index: usize) -> Option<Interrupt> {
    const SPI: u32 = 0;
    const PPI: u32 = 1;
    let cell = |number: usize| Some(read_at::<Cell>(interrupts, Cell::SIZE * (3 * index + number))?.0);
    let gsi = match cell(0)? {
        SPI => cell(1)?.checked_add(32)?,
        PPI => cell(1)?.checked_add(16)?,
        _ => return None,
    };
    // IRQ_TYPE_EDGE_FALLING and IRQ_TYPE_LEVEL_LOW are separate bits.
    let flags = cell(2)?;
    Some(Interrupt { gsi, level: flags & 0xc != 0, active_low: flags & 0xa != 0 })
}
