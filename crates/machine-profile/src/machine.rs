//! The machine that a profile describes.
//!
//! In a [`Machine`] every default is filled in and every constraint is checked.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use platform::Arch;
pub use ras_core::request::{OnMissingSupport, Repair, TableSet};
use ras_core::{Response, Threshold};

use crate::device_config::DeviceConfig;

/// A validated machine.
#[derive(Clone, Debug, PartialEq)]
pub struct Machine {
    /// `machine.name`; by default the file's name without its extension.
    pub name: String,
    /// Architecture of the guest.
    pub arch: Arch,
    /// `machine.vcpus`: 1 to 512.
    pub vcpus: u32,
    /// `machine.firmware`: the tables the guest gets.
    pub firmware: TableSet,
    /// `machine.on-reboot`: the effect of a reset that the guest requests.
    pub on_reboot: OnReboot,
    /// `machine.memory` and `[memory]`.
    pub memory: Memory,
    /// `[boot]`.
    pub boot: Boot,
    /// `[ras]`.
    pub ras: Ras,
    /// `[[device]]`, in the order of the profile.
    pub devices: Vec<Device>,
    /// `control.socket`.
    pub control_socket: Option<PathBuf>,
    /// `[metrics]`. `None` if it names no file.
    pub metrics: Option<Metrics>,
}

/// Where metrics are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metrics {
    /// `metrics.file`, resolved against the profile's directory.
    pub file: PathBuf,
    /// `metrics.interval`: 100 ms to 1 h.
    pub interval: Duration,
}

/// The effect of a reset that the guest requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OnReboot {
    /// The VMM exits.
    Exit,
    /// The machine boots again, also in place of an end because of a memory error.
    Restart,
}

/// The guest's memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Bytes: a multiple of the page size.
    pub size: u64,
    /// The backing of the pages.
    pub backing: MemoryBacking,
    /// Size of the pages that back the guest.
    pub page_size: PageSize,
    /// `memory.path`, resolved against the profile's directory: the file that holds the memory. `None` if it ends with the process.
    pub path: Option<PathBuf>,
}

/// The backing of the guest's pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MemoryBacking {
    /// Private anonymous memory.
    Anonymous,
    /// A memfd, shared.
    Memfd,
    /// The host's pool of huge pages.
    Hugetlbfs,
}

/// The size of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PageSize {
    /// 4 KiB.
    Small,
    /// 2 MiB.
    Large,
    /// 1 GiB.
    Giant,
}

impl PageSize {
    /// Bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        match self {
            PageSize::Small => 4 << 10,
            PageSize::Large => 2 << 20,
            PageSize::Giant => 1 << 30,
        }
    }
}

/// What is booted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Boot {
    /// `boot.kernel`.
    pub kernel: Kernel,
    /// `boot.initrd`, resolved against the profile's directory.
    pub initrd: Option<PathBuf>,
    /// `boot.cmdline`.
    pub cmdline: String,
    /// `boot.protocol`.
    pub protocol: BootProtocol,
}

/// The kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kernel {
    /// The built-in guest, `builtin:probe`.
    BuiltinProbe,
    /// A file, resolved against the profile's directory.
    File(PathBuf),
}

/// `builtin:probe`, or the path.
impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kernel::BuiltinProbe => f.write_str("builtin:probe"),
            Kernel::File(path) => path.display().fmt(f),
        }
    }
}

/// How the kernel is entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BootProtocol {
    /// The protocol that the kernel file supports: PVH for an ELF file with the PVH note, else the Linux protocol.
    Auto,
    /// The Linux boot protocol: 64-bit entry on x86_64, Image on aarch64.
    Linux,
    /// PVH (x86_64).
    Pvh,
}

/// How memory errors are handled, as requested.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ras {
    /// `ras.synchronous`: response to errors that a vCPU consumed (action required). `None`: `auto`.
    pub synchronous: Option<Response>,
    /// `ras.asynchronous`: response to errors that were detected and not consumed (action optional). `None`: `auto`.
    pub asynchronous: Option<Response>,
    /// `ras.poll-interval`: of a polled source. 1 ms to 1 h.
    pub poll_interval: Duration,
    /// `ras.on-missing-support`.
    pub on_missing_support: OnMissingSupport,
    /// `ras.repair`.
    pub repair: Repair,
    /// `ras.corrected`, `ras.corrected-threshold` and `ras.corrected-window`. `None` if the guest has no source of corrected errors.
    pub corrected: Option<Corrected>,
    /// `ras.injection`: whether the guest can inject errors into its own memory.
    pub injection: bool,
    /// `ras.boot-record`: whether a boot finds the record of the error that ended the one before. With ACPI only.
    pub boot_record: bool,
    /// `ras.persistent-store`, resolved against the profile's directory. With ACPI only.
    pub persistent_store: Option<PathBuf>,
    /// `ras.ledger`, resolved against the profile's directory.
    pub ledger: Option<PathBuf>,
    /// `ras.budget` and `ras.on-budget`. `None` if there is no limit.
    pub budget: Option<Budget>,
}

/// The source of corrected errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Corrected {
    /// How the guest is notified.
    pub response: Response,
    /// When the errors of a page are so many that the guest should no longer use it. `None`: never.
    pub threshold: Option<Threshold>,
}

/// How many pages may be poisoned, and what follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Distinct pages of 4 KiB.
    pub pages: u32,
    /// What is done when so many are poisoned.
    pub action: OnBudget,
}

/// What is done when a budget is spent, beside the event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OnBudget {
    /// Nothing.
    Report,
    /// Press the power button.
    PowerButton,
    /// Stop the machine.
    Stop,
}

/// A `[[device]]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Device {
    /// `type`: the name of the kind.
    pub kind: &'static str,
    /// The configuration, of the type that the kind defines.
    pub config: DeviceConfig,
    /// The files of the host that it opens.
    pub files: Vec<DeviceFile>,
}

/// A file of the host that a device opens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceFile {
    /// The address of the key that names it: `device.0.path`.
    pub key: String,
    /// The path, resolved against the profile's directory.
    pub path: PathBuf,
    /// Whether the device writes to it.
    pub writes: bool,
}
