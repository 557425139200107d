//! All settings of a profile, each understood by itself, and the machine that they make.

use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use platform::Arch;
use ras_core::Response;

use crate::description::Section;
use crate::diagnostic::{Report, Reported};
use crate::keys::{boot, control, device, machine, memory, ras};
use crate::machine::{
    Backing, Boot, BootProtocol, Device, Kernel, Machine, Memory, OnMissingSupport, OnReboot, PageSize, Ras,
    Repair, TableSet,
};
use crate::reader::{Answer, SectionReader, Setting, unknown_sections};
use crate::source::Place;
use crate::tree::Table;

/// A setting that may be left out and then has no value.
pub(crate) type OptionalAnswer<T> = Result<Option<Setting<T>>, Reported>;

/// What a profile says, key by key. Paths are resolved.
pub(crate) struct Answers {
    pub(crate) name: OptionalAnswer<String>,
    pub(crate) vcpus: Answer<u32>,
    pub(crate) memory: Answer<u64>,
    pub(crate) firmware: Answer<TableSet>,
    pub(crate) on_reboot: Answer<OnReboot>,
    pub(crate) backing: Answer<Backing>,
    pub(crate) page_size: OptionalAnswer<PageSize>,
    pub(crate) kernel: Answer<Kernel>,
    pub(crate) initrd: OptionalAnswer<PathBuf>,
    pub(crate) cmdline: Answer<String>,
    pub(crate) protocol: Answer<BootProtocol>,
    pub(crate) synchronous: Answer<Option<Response>>,
    pub(crate) asynchronous: Answer<Option<Response>>,
    pub(crate) poll_interval: Answer<Duration>,
    pub(crate) on_missing_support: Answer<OnMissingSupport>,
    pub(crate) repair: Answer<Repair>,
    pub(crate) devices: Result<Vec<DeviceAnswers>, Reported>,
    pub(crate) control_socket: OptionalAnswer<PathBuf>,
}

/// What a profile says of one device.
pub(crate) struct DeviceAnswers {
    /// Its header.
    pub(crate) place: Place,
    pub(crate) kind: Result<DeviceKind, Reported>,
}

pub(crate) enum DeviceKind {
    VirtioBlock { path: Answer<PathBuf>, read_only: Answer<bool> },
}

impl Answers {
    /// Reads every key. What stands at no place of its own is reported at `start`.
    pub(crate) fn read(root: &Table, base_dir: &Path, start: &Place, report: &mut Report) -> Answers {
        let meant = unknown_sections(root, report);
        let open = |section: &Section, report: &mut Report| {
            SectionReader::open(section, root, &meant, start, report)
        };
        let machine = open(&machine::SECTION, report);
        let memory = open(&memory::SECTION, report);
        let boot = open(&boot::SECTION, report);
        let ras = open(&ras::SECTION, report);
        let control = open(&control::SECTION, report);
        let resolved = |path: PathBuf| resolved(base_dir, &path);
        Answers {
            name: machine.optional(&machine::NAME, report),
            vcpus: machine.value(&machine::VCPUS, report),
            memory: machine.value(&machine::MEMORY, report),
            firmware: machine.value(&machine::FIRMWARE, report),
            on_reboot: machine.value(&machine::ON_REBOOT, report),
            backing: memory.value(&memory::BACKING, report),
            page_size: memory.optional(&memory::PAGE_SIZE, report),
            kernel: boot.value(&boot::KERNEL, report).map(|setting| {
                setting.map(|kernel| match kernel {
                    Kernel::File(path) => Kernel::File(resolved(path)),
                    builtin => builtin,
                })
            }),
            initrd: boot.optional(&boot::INITRD, report).map(|initrd| initrd.map(|path| path.map(resolved))),
            cmdline: boot.value(&boot::CMDLINE, report),
            protocol: boot.value(&boot::PROTOCOL, report),
            synchronous: ras.value(&ras::SYNCHRONOUS, report),
            asynchronous: ras.value(&ras::ASYNCHRONOUS, report),
            poll_interval: ras.value(&ras::POLL_INTERVAL, report),
            on_missing_support: ras.value(&ras::ON_MISSING_SUPPORT, report),
            repair: ras.value(&ras::REPAIR, report),
            devices: SectionReader::open_all(&device::SECTION, root, report).map(|readers| {
                readers.into_iter().map(|reader| DeviceAnswers::read(reader, base_dir, report)).collect()
            }),
            control_socket: control
                .optional(&control::SOCKET, report)
                .map(|socket| socket.map(|path| path.map(resolved))),
        }
    }

    /// The machine, once every answer is there.
    pub(crate) fn into_machine(self, arch: Arch, default_name: String) -> Result<Machine, Reported> {
        let backing = self.backing?.value;
        let page_size = self.page_size?.map_or(default_page_size(backing), |setting| setting.value);
        Ok(Machine {
            name: self.name?.map_or(default_name, |setting| setting.value),
            arch,
            vcpus: self.vcpus?.value,
            firmware: self.firmware?.value,
            on_reboot: self.on_reboot?.value,
            memory: Memory { size: self.memory?.value, backing, page_size },
            boot: Boot {
                kernel: self.kernel?.value,
                initrd: self.initrd?.map(|setting| setting.value),
                cmdline: self.cmdline?.value,
                protocol: self.protocol?.value,
            },
            ras: Ras {
                synchronous: self.synchronous?.value,
                asynchronous: self.asynchronous?.value,
                poll_interval: self.poll_interval?.value,
                on_missing_support: self.on_missing_support?.value,
                repair: self.repair?.value,
            },
            devices: self
                .devices?
                .into_iter()
                .map(DeviceAnswers::into_device)
                .collect::<Result<Vec<Device>, Reported>>()?,
            control_socket: self.control_socket?.map(|setting| setting.value),
        })
    }
}

impl DeviceAnswers {
    fn read(reader: SectionReader<'_>, base_dir: &Path, report: &mut Report) -> DeviceAnswers {
        let place = reader.place().clone();
        let kind = reader.required_value(&device::TYPE, report).map(|kind| {
            let reader = reader.knows_only(device::keys(kind.value), report);
            match kind.value {
                device::Type::VirtioBlock => DeviceKind::VirtioBlock {
                    path: reader
                        .required_value(&device::virtio_block::PATH, report)
                        .map(|setting| setting.map(|path| resolved(base_dir, &path))),
                    read_only: reader.value(&device::virtio_block::READ_ONLY, report),
                },
            }
        });
        DeviceAnswers { place, kind }
    }

    fn into_device(self) -> Result<Device, Reported> {
        match self.kind? {
            DeviceKind::VirtioBlock { path, read_only } => {
                Ok(Device::VirtioBlock { path: path?.value, read_only: read_only?.value })
            }
        }
    }
}

/// The size of pages where a profile names none.
pub(crate) fn default_page_size(backing: Backing) -> PageSize {
    match backing {
        Backing::Anonymous | Backing::Memfd => PageSize::Small,
        Backing::Hugetlbfs => PageSize::Large,
    }
}

/// A path relative to `base_dir`, without `.` in it: so two ways to write one path are equal, short of links and `..`.
fn resolved(base_dir: &Path, path: &Path) -> PathBuf {
    let joined = base_dir.join(path);
    let plain: PathBuf = joined.components().filter(|part| *part != Component::CurDir).collect();
    if plain.as_os_str().is_empty() { joined } else { plain }
}
