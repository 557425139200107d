//! The settings of a profile, each read by itself, and the machine that they make.

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use platform::Arch;
use ras_core::{Response, Threshold};

use crate::description::Section;
use crate::device_config::DeviceConfig;
use crate::device_kind::{DeviceKinds, DeviceSection, SectionContext, TYPE, Uses, resolve};
use crate::diagnostic::{Report, Reported};
use crate::keys::{boot, control, device, machine, memory, metrics, ras};
use crate::machine::{
    Boot, BootProtocol, Budget, Corrected, Device, DeviceFile, Kernel, Machine, Memory, MemoryBacking,
    Metrics, OnBudget, OnMissingSupport, OnReboot, PageSize, Ras, Repair, TableSet,
};
use crate::reader::{SectionReader, Setting, SettingResult, unknown_sections};
use crate::source::Place;
use crate::tree::Table;

/// A setting that has no value if it is omitted.
pub(crate) type OptionalSetting<T> = Result<Option<Setting<T>>, Reported>;

/// The settings of a profile, key by key. Paths are resolved.
pub(crate) struct ProfileSettings {
    pub(crate) name: Result<String, Reported>,
    pub(crate) vcpus: SettingResult<u32>,
    pub(crate) memory: SettingResult<u64>,
    pub(crate) firmware: SettingResult<TableSet>,
    pub(crate) on_reboot: SettingResult<OnReboot>,
    pub(crate) backing: SettingResult<MemoryBacking>,
    pub(crate) page_size: OptionalSetting<PageSize>,
    pub(crate) memory_path: OptionalSetting<PathBuf>,
    pub(crate) kernel: SettingResult<Kernel>,
    pub(crate) initrd: OptionalSetting<PathBuf>,
    pub(crate) cmdline: SettingResult<String>,
    pub(crate) protocol: SettingResult<BootProtocol>,
    pub(crate) synchronous: SettingResult<Option<Response>>,
    pub(crate) asynchronous: SettingResult<Option<Response>>,
    pub(crate) poll_interval: SettingResult<Duration>,
    pub(crate) on_missing_support: SettingResult<OnMissingSupport>,
    pub(crate) repair: SettingResult<Repair>,
    pub(crate) corrected: SettingResult<Option<Response>>,
    pub(crate) corrected_threshold: SettingResult<u32>,
    pub(crate) corrected_window: SettingResult<Duration>,
    pub(crate) injection: SettingResult<bool>,
    pub(crate) boot_record: SettingResult<bool>,
    pub(crate) persistent_store: OptionalSetting<PathBuf>,
    pub(crate) ledger: OptionalSetting<PathBuf>,
    pub(crate) budget: OptionalSetting<u32>,
    pub(crate) on_budget: SettingResult<OnBudget>,
    pub(crate) devices: Result<Vec<DeviceSettings>, Reported>,
    pub(crate) control_socket: OptionalSetting<PathBuf>,
    pub(crate) metrics_file: OptionalSetting<PathBuf>,
    pub(crate) metrics_interval: SettingResult<Duration>,
}

/// The settings of one device.
pub(crate) struct DeviceSettings {
    /// The place of its header.
    pub(crate) place: Place,
    device: Result<(&'static str, DeviceConfig), Reported>,
    /// What it uses, as far as its section could be read.
    pub(crate) uses: Uses,
}

impl ProfileSettings {
    /// Reads every key. A section that is missing is reported at `start`.
    pub(crate) fn read(
        root: &Table,
        base_dir: &Path,
        default_name: String,
        start: &Place,
        kinds: &DeviceKinds,
        report: &mut Report,
    ) -> ProfileSettings {
        let device_keys = kinds.key_names();
        let suggested = unknown_sections(root, &device_keys, report);
        let open = |section: &Section, report: &mut Report| {
            SectionReader::open(section, root, &suggested, start, &device_keys, report)
        };
        let machine = open(&machine::SECTION, report);
        let memory = open(&memory::SECTION, report);
        let boot = open(&boot::SECTION, report);
        let ras = open(&ras::SECTION, report);
        let control = open(&control::SECTION, report);
        let metrics = open(&metrics::SECTION, report);
        let resolved = |path: PathBuf| resolve(base_dir, &path);
        let name = machine
            .optional(&machine::NAME, report)
            .map(|name| name.map_or_else(|| default_name, |setting| setting.value));
        // A name that was reported is of no machine.
        let machine_name = name.as_deref().unwrap_or_default();
        let devices = SectionReader::open_all(&device::SECTION, root, report).map(|readers| {
            readers
                .into_iter()
                .enumerate()
                .map(|(index, reader)| {
                    let context = SectionContext { base_dir, machine: machine_name, index };
                    DeviceSettings::read(reader, kinds, context, report)
                })
                .collect()
        });
        ProfileSettings {
            vcpus: machine.value(&machine::VCPUS, report),
            memory: machine.value(&machine::MEMORY, report),
            firmware: machine.value(&machine::FIRMWARE, report),
            on_reboot: machine.value(&machine::ON_REBOOT, report),
            backing: memory.value(&memory::BACKING, report),
            page_size: memory.optional(&memory::PAGE_SIZE, report),
            memory_path: memory
                .optional(&memory::PATH, report)
                .map(|file| file.map(|path| path.map(resolved))),
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
            corrected: ras.value(&ras::CORRECTED, report),
            corrected_threshold: ras.value(&ras::CORRECTED_THRESHOLD, report),
            corrected_window: ras.value(&ras::CORRECTED_WINDOW, report),
            injection: ras.value(&ras::INJECTION, report),
            boot_record: ras.value(&ras::BOOT_RECORD, report),
            persistent_store: ras
                .optional(&ras::PERSISTENT_STORE, report)
                .map(|file| file.map(|path| path.map(resolved))),
            ledger: ras.optional(&ras::LEDGER, report).map(|file| file.map(|path| path.map(resolved))),
            budget: ras.optional(&ras::BUDGET, report),
            on_budget: ras.value(&ras::ON_BUDGET, report),
            devices,
            control_socket: control
                .optional(&control::SOCKET, report)
                .map(|socket| socket.map(|path| path.map(resolved))),
            metrics_file: metrics
                .optional(&metrics::FILE, report)
                .map(|file| file.map(|path| path.map(resolved))),
            metrics_interval: metrics.value(&metrics::INTERVAL, report),
            name,
        }
    }

    /// The machine. Returns an error if a setting was reported.
    pub(crate) fn into_machine(self, arch: Arch) -> Result<Machine, Reported> {
        let backing = self.backing?.value;
        let interval = self.metrics_interval?.value;
        let firmware = self.firmware?.value;
        let action = self.on_budget?.value;
        let threshold = threshold(self.corrected_threshold?.value, self.corrected_window?.value);
        let page_size = self.page_size?.map_or(default_page_size(backing), |setting| setting.value);
        Ok(Machine {
            name: self.name?,
            arch,
            vcpus: self.vcpus?.value,
            firmware,
            on_reboot: self.on_reboot?.value,
            memory: Memory {
                size: self.memory?.value,
                backing,
                page_size,
                path: self.memory_path?.map(|setting| setting.value),
            },
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
                corrected: self.corrected?.value.map(|response| Corrected { response, threshold }),
                injection: self.injection?.value,
                boot_record: self.boot_record?.value && firmware == TableSet::Acpi,
                persistent_store: self.persistent_store?.map(|setting| setting.value),
                ledger: self.ledger?.map(|setting| setting.value),
                budget: self.budget?.map(|pages| Budget { pages: pages.value, action }),
            },
            devices: self
                .devices?
                .into_iter()
                .map(DeviceSettings::into_device)
                .collect::<Result<Vec<Device>, Reported>>()?,
            control_socket: self.control_socket?.map(|setting| setting.value),
            metrics: self.metrics_file?.map(|file| Metrics { file: file.value, interval }),
        })
    }
}

impl DeviceSettings {
    fn read(
        reader: SectionReader<'_>,
        kinds: &DeviceKinds,
        context: SectionContext<'_>,
        report: &mut Report,
    ) -> DeviceSettings {
        let place = reader.place().clone();
        let kind = match reader.required_value(&kinds.type_key(), report) {
            Ok(kind) => kind.value,
            Err(reported) => return DeviceSettings { place, device: Err(reported), uses: Uses::default() },
        };
        let known = [TYPE].into_iter().chain(kind.keys().iter().map(|key| key.name()));
        let reader = reader.reject_unknown_keys(&known.collect::<Vec<_>>(), &kinds.key_names(), report);
        let mut section = DeviceSection::new(reader, context, report);
        let config = kind.read(&mut section);
        let uses = section.into_uses();
        DeviceSettings { place, device: config.map(|config| (kind.name(), config)), uses }
    }

    fn into_device(self) -> Result<Device, Reported> {
        let (kind, config) = self.device?;
        let files = self.uses.files.into_iter().map(|file| DeviceFile {
            key: file.path.key,
            path: file.path.value,
            writes: file.writes,
        });
        Ok(Device { kind, config, files: files.collect() })
    }
}

/// The threshold of corrected errors. `None` if it is zero.
fn threshold(errors: u32, window: Duration) -> Option<Threshold> {
    let errors = NonZeroU32::new(errors)?;
    // The longest window has 32 bits.
    let window_ms = u32::try_from(window.as_millis()).ok().and_then(NonZeroU32::new)?;
    Some(Threshold { errors, window_ms })
}

/// The page size of a profile that sets none.
pub(crate) fn default_page_size(backing: MemoryBacking) -> PageSize {
    match backing {
        MemoryBacking::Anonymous | MemoryBacking::Memfd => PageSize::Small,
        MemoryBacking::Hugetlbfs => PageSize::Large,
    }
}
