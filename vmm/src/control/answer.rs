//! The answers to requests: the fields of a response beside `ok`.

use std::path::PathBuf;

use machine_profile::Machine;
use platform::{DeviceNode, Trigger, Window};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::board;
use crate::board::profile_devices::{self, PlaceError};

/// A machine and its state.
#[derive(Debug, Serialize, JsonSchema)]
pub struct State {
    /// The machine's name.
    pub machine: String,
    /// What its vCPUs do.
    pub state: RunState,
    /// Its number of vCPUs.
    pub vcpus: usize,
    /// Records that the guest has not acknowledged in time. If a vCPU consumed the error of one, the guest may hang.
    #[schemars(with = "Vec<Map<String, Value>>")]
    pub overdue: Vec<Value>,
    /// The dump for which the vCPUs are paused. Absent if none is being made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dump: Option<DumpProgress>,
}

/// How far a dump is.
#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
pub struct DumpProgress {
    /// Bytes of guest memory that are dumped.
    pub done: u64,
    /// Bytes of guest memory.
    pub total: u64,
}

/// A dump of a machine.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Dumped {
    /// Its path.
    pub file: PathBuf,
    /// Its length in bytes. What is zero takes no space on the disk.
    pub bytes: u64,
    /// Memory that is not in it: poisoned pages.
    pub omitted: Vec<Omitted>,
    /// The guest physical address of the note VMCOREINFO of a Linux guest. Null if none was found: then crash and drgn do not know the kernel.
    pub vmcoreinfo: Option<u64>,
}

/// Memory that is not in a dump.
#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
pub struct Omitted {
    /// Its first guest physical address.
    pub gpa: u64,
    /// Its length in bytes.
    pub span: u64,
}

/// What the vCPUs of a machine do.
#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RunState {
    /// They run.
    Running,
    /// They are paused.
    Paused,
    /// The machine is stopping, or being reset.
    Stopping,
}

impl From<vcpu::RunState> for RunState {
    fn from(state: vcpu::RunState) -> Self {
        match state {
            vcpu::RunState::Run => RunState::Running,
            vcpu::RunState::Pause => RunState::Paused,
            vcpu::RunState::Stop => RunState::Stopping,
        }
    }
}

/// A balloon, and what the guest says of its memory.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Balloon {
    /// Bytes that it is to take from the guest.
    pub target: u64,
    /// Bytes that it has taken, as the guest says.
    pub actual: u64,
    /// The guest's last statistics. Each request asks for new ones, which a later one gets. Null if it has sent none since it was reset.
    pub statistics: Option<BalloonStatistics>,
}

/// What a guest says of its memory. It may be wrong, and omit any of it.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct BalloonStatistics {
    /// Milliseconds since the guest said it.
    pub age_ms: u64,
    /// Bytes of memory, without what the balloon has.
    pub total: Option<u64>,
    /// Bytes that are not used.
    pub free: Option<u64>,
    /// Bytes that programs can get without swapping.
    pub available: Option<u64>,
    /// Bytes of caches that can be released quickly.
    pub caches: Option<u64>,
    /// Bytes that were read from the swap.
    pub swap_in: Option<u64>,
    /// Bytes that were written to the swap.
    pub swap_out: Option<u64>,
    /// Page faults that needed I/O.
    pub major_faults: Option<u64>,
    /// Page faults that did not.
    pub minor_faults: Option<u64>,
    /// Huge pages that were allocated.
    pub huge_pages: Option<u64>,
    /// Huge pages that could not be allocated.
    pub huge_page_failures: Option<u64>,
}

#[cfg(feature = "virtio-balloon")]
impl From<devices::virtio_balloon::Statistics> for BalloonStatistics {
    fn from(of: devices::virtio_balloon::Statistics) -> Self {
        BalloonStatistics {
            age_ms: u64::try_from(of.at.elapsed().as_millis()).unwrap_or(u64::MAX),
            total: of.total,
            free: of.free,
            available: of.available,
            caches: of.caches,
            swap_in: of.swap_in,
            swap_out: of.swap_out,
            major_faults: of.major_faults,
            minor_faults: of.minor_faults,
            huge_pages: of.huge_pages,
            huge_page_failures: of.huge_page_failures,
        }
    }
}

/// The ledger of poisoned pages.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Ledger {
    /// Each span of pages that was poisoned, by its address.
    #[schemars(with = "Vec<Map<String, Value>>")]
    pub entries: Value,
    /// Bytes that are poisoned now.
    pub bytes_lost: u64,
}

/// Where guest memory is mapped in the process.
#[derive(Debug, Serialize, JsonSchema)]
pub struct MemoryMap {
    /// Each mapping.
    pub slots: Vec<MemorySlot>,
}

/// A mapping of guest memory.
#[derive(Debug, Serialize, JsonSchema)]
pub struct MemorySlot {
    /// Its guest physical address.
    pub gpa: u64,
    /// Its length in bytes.
    pub len: u64,
    /// Its address in the process.
    pub hva: u64,
}

/// Guest memory that was moved to another page of the host.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct RetiredMemory {
    /// Its first guest physical address.
    pub gpa: u64,
    /// Its length in bytes: a page of the host.
    pub span: u64,
    /// The physical address, on the host, of the page that is out of use. Null if the machine may not know it.
    pub host_address: Option<u64>,
}

/// The devices of a machine.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Devices {
    /// Those of every machine, and those of the profile.
    pub devices: Vec<Device>,
}

/// A device.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Device {
    /// Its name, which events and the log use.
    pub name: String,
    /// The `type` of a device of the profile. Absent for devices of every machine.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<&'static str>,
    /// Its registers.
    pub registers: Vec<Registers>,
    /// Its interrupt lines.
    pub interrupts: Vec<Interrupt>,
    /// Files of the host that it uses.
    pub files: Vec<DeviceFile>,
}

/// A block of registers.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Registers {
    /// Whether they are memory-mapped or I/O ports.
    pub space: Space,
    /// The first guest physical address, or the first port.
    pub base: u64,
    /// The number of bytes, or of ports.
    pub len: u64,
}

/// An address space of registers.
#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Space {
    /// Guest physical addresses.
    Memory,
    /// I/O ports (x86_64).
    Ports,
}

/// An interrupt line.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Interrupt {
    /// Its global system interrupt; on arm64 the INTID.
    pub gsi: u32,
    /// When it interrupts.
    pub trigger: TriggerMode,
}

/// When an interrupt line interrupts.
#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TriggerMode {
    /// At a rising edge.
    Edge,
    /// While it is high.
    Level,
}

/// A file of the host.
#[derive(Debug, Serialize, JsonSchema)]
pub struct DeviceFile {
    /// Its path.
    pub path: PathBuf,
    /// Whether the device writes to it.
    pub writes: bool,
}

impl Devices {
    /// The devices of a machine.
    ///
    /// # Errors
    /// Returns an error if those of the profile have no place in the machine.
    pub(crate) fn of(machine: &Machine) -> Result<Self, PlaceError> {
        let fixed = board::nodes(machine.arch).into_iter().map(|node| Device::new(&node, None));
        let nodes = profile_devices::nodes(machine)?;
        let configured =
            nodes.iter().zip(&machine.devices).map(|(node, device)| Device::new(node, Some(device)));
        Ok(Devices { devices: fixed.chain(configured).collect() })
    }
}

impl Device {
    fn new(node: &DeviceNode, configured: Option<&machine_profile::Device>) -> Self {
        let files = configured.into_iter().flat_map(|device| &device.files);
        Device {
            name: node.name.clone(),
            kind: configured.map(|device| device.kind),
            registers: node.windows.iter().copied().map(Registers::from).collect(),
            interrupts: node.interrupts.iter().map(Interrupt::from).collect(),
            files: files.map(|file| DeviceFile { path: file.path.clone(), writes: file.writes }).collect(),
        }
    }
}

impl From<Window> for Registers {
    fn from(window: Window) -> Self {
        match window {
            Window::Ports { base, len } => {
                Registers { space: Space::Ports, base: base.into(), len: len.into() }
            }
            Window::Mmio { base, len } => Registers { space: Space::Memory, base, len },
        }
    }
}

impl From<&platform::Interrupt> for Interrupt {
    fn from(line: &platform::Interrupt) -> Self {
        let trigger = match line.trigger {
            Trigger::Edge => TriggerMode::Edge,
            Trigger::Level => TriggerMode::Level,
        };
        Interrupt { gsi: line.gsi, trigger }
    }
}

/// The events follow, one line each.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Following {}
