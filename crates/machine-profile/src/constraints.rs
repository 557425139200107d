//! Constraints between keys, and between a key and the architecture.
//!
//! Every value is valid by itself here; each function checks one rule about several.

use std::collections::HashMap;
use std::collections::hash_map::Entry::{Occupied, Vacant};
use std::hash::Hash;

use platform::{Arch, x86_64};
use ras_core::Response;
use ras_core::plan::decision::{ErrorClass, Unsupported, describes, rows, support};

use crate::device_kind::FileUse;
use crate::diagnostic::{Diagnostic, Report};
use crate::forms::listed;
use crate::machine::{BootProtocol, Kernel, MemoryBacking, OnBudget, PageSize, TableSet};
use crate::reader::{Setting, SettingResult};
use crate::settings::{ProfileSettings, default_page_size};
use crate::socket_path;
use crate::source::Place;
use crate::units;

/// The maximum number of processors in an MP table: an APIC id has eight bits, 255 is the broadcast id (Intel
/// MultiProcessor Specification 1.4, 4.3.1), and the I/O APIC needs an id too.
const MAX_MPTABLE_VCPUS: u32 = 254;

/// Reports every violation.
pub(crate) fn check(settings: &ProfileSettings, arch: Arch, report: &mut Report) {
    let problems = [
        firmware(settings, arch),
        mptable_vcpus(settings),
        page_size(settings),
        memory(settings),
        memory_path(settings),
        protocol(settings, arch),
        initrd(settings),
        response(settings, ErrorClass::Consumed, &settings.synchronous, arch),
        response(settings, ErrorClass::Detected, &settings.asynchronous, arch),
        poll_interval(settings),
        corrected(settings),
        about_corrected(settings, &settings.corrected_threshold),
        about_corrected(settings, &settings.corrected_window),
        injection(settings),
        boot_record(settings),
        persistent_store(settings),
        on_budget(settings),
        socket(settings),
        private_memory(settings),
        metrics_interval(settings),
        too_many_devices(settings, arch),
    ];
    for problem in
        problems.into_iter().flatten().chain(shared_files(settings)).chain(several_terminals(settings))
    {
        report.push(problem);
    }
}

fn firmware(settings: &ProfileSettings, arch: Arch) -> Option<Diagnostic> {
    let firmware = settings.firmware.as_ref().ok()?;
    (!describes(firmware.value, arch)).then(|| {
        let others = TableSet::ALL.into_iter().filter(|tables| describes(*tables, arch));
        firmware.refused(
            Unsupported::Tables { arch, tables: firmware.value },
            format!("write {}", quoted_names(others.map(TableSet::name), "or")),
        )
    })
}

fn mptable_vcpus(settings: &ProfileSettings) -> Option<Diagnostic> {
    let (vcpus, firmware) = (settings.vcpus.as_ref().ok()?, settings.firmware.as_ref().ok()?);
    let fits = firmware.value != TableSet::MpTable || vcpus.value <= MAX_MPTABLE_VCPUS;
    (!fits).then(|| {
        vcpus
            .refused(
                format!("an MP table describes at most {MAX_MPTABLE_VCPUS} processors, because its APIC ids have eight bits"),
                format!("write `{MAX_MPTABLE_VCPUS}` or less, or choose the firmware `\"acpi\"`"),
            )
            .with_label(&firmware.place, "the MP table is set here")
    })
}

fn page_size(settings: &ProfileSettings) -> Option<Diagnostic> {
    let backing = settings.backing.as_ref().ok()?;
    let page_size = settings.page_size.as_ref().ok()?.as_ref()?;
    let refused = match (backing.value, page_size.value) {
        (MemoryBacking::Hugetlbfs, PageSize::Large | PageSize::Giant)
        | (MemoryBacking::Anonymous | MemoryBacking::Memfd, PageSize::Small) => return None,
        (MemoryBacking::Hugetlbfs, PageSize::Small) => page_size.refused(
            "it is not a size of huge pages",
            "write `\"2MiB\"` or `\"1GiB\"`, or choose the backing `\"anonymous\"` or `\"memfd\"`",
        ),
        (MemoryBacking::Anonymous | MemoryBacking::Memfd, PageSize::Large | PageSize::Giant) => page_size
            .refused(
                "only the backing `\"hugetlbfs\"` has pages of that size",
                "add `backing = \"hugetlbfs\"` to `[memory]`, or write `\"4KiB\"`",
            ),
    };
    Some(with_label_if_given(refused, backing, "the backing is set here"))
}

fn memory(settings: &ProfileSettings) -> Option<Diagnostic> {
    let (memory, backing) = (settings.memory.as_ref().ok()?, settings.backing.as_ref().ok()?);
    let page_size = settings.page_size.as_ref().ok()?.as_ref();
    let page = page_size.map_or(default_page_size(backing.value), |setting| setting.value).bytes();
    if memory.value.is_multiple_of(page) {
        return None;
    }
    let shown = |bytes| units::format(bytes, units::SIZES);
    let below = memory.value / page * page;
    let nearest = if below == 0 { page } else { below };
    match page_size {
        Some(page_size) if !memory.given => Some(page_size.refused(
            format!("the machine's memory, {}, is not a multiple of it", shown(memory.value)),
            format!("add `memory = \"{}\"` to `[machine]`, or choose smaller pages", shown(nearest)),
        )),
        _ => {
            let refused = memory.refused(
                format!("it is not a multiple of the page size, {}", shown(page)),
                format!("write `\"{}\"`", shown(nearest)),
            );
            Some(match page_size {
                Some(page_size) => refused.with_label(&page_size.place, "the page size is set here"),
                None => with_label_if_given(refused, backing, "the page size follows from the backing"),
            })
        }
    }
}

fn memory_path(settings: &ProfileSettings) -> Option<Diagnostic> {
    let path = settings.memory_path.as_ref().ok()?.as_ref()?;
    let backing = settings.backing.as_ref().ok()?;
    (backing.value == MemoryBacking::Anonymous).then(|| {
        let refused = path.refused(
            "anonymous memory is in no file (`memory.backing`)",
            "write `backing = \"memfd\"` or `\"hugetlbfs\"`, or remove the key",
        );
        with_label_if_given(refused, backing, "the backing is set here")
    })
}

fn protocol(settings: &ProfileSettings, arch: Arch) -> Option<Diagnostic> {
    let protocol = settings.protocol.as_ref().ok()?;
    (protocol.value == BootProtocol::Pvh && arch != Arch::X86_64).then(|| {
        protocol.refused(
            format!("PVH exists on x86_64 only, and the guest is {arch}"),
            "write `\"linux\"`, or remove the key",
        )
    })
}

fn initrd(settings: &ProfileSettings) -> Option<Diagnostic> {
    let (kernel, initrd) = (settings.kernel.as_ref().ok()?, settings.initrd.as_ref().ok()?.as_ref()?);
    (kernel.value == Kernel::BuiltinProbe).then(|| {
        let refused = initrd.refused(
            "the built-in guest has no use for an initial RAM disk",
            "set the kernel that it belongs to, `kernel = \"...\"`, or remove the key",
        );
        with_label_if_given(refused, kernel, "the built-in guest is set here")
    })
}

fn response(
    settings: &ProfileSettings,
    class: ErrorClass,
    requested: &SettingResult<Option<Response>>,
    arch: Arch,
) -> Option<Diagnostic> {
    let (setting, firmware) = (requested.as_ref().ok()?, settings.firmware.as_ref().ok()?);
    let tables = firmware.value;
    let unsupported = support(class, arch, tables, setting.value?).err()?;
    let offered = rows(class, arch, tables).map(|row| row.response.name()).chain(["auto"]);
    let help = format!("write {}", quoted_names(offered, "or"));
    match &unsupported {
        // It is reported at the tables.
        Unsupported::Tables { .. } => None,
        Unsupported::TablesOfArch { available, .. } => {
            let others = quoted_names(available.iter().map(|tables| tables.name()), "or");
            let refused = setting.refused(&unsupported, format!("{help}, or choose the firmware {others}"));
            Some(with_label_if_given(refused, firmware, "the tables are chosen here"))
        }
        _ => Some(setting.refused(&unsupported, help)),
    }
}

/// `` `"a"`, `"b"` or `"c"` ``.
fn quoted_names(names: impl Iterator<Item = &'static str>, joint: &str) -> String {
    listed(names.map(|name| format!("`\"{name}\"`")), joint)
}

fn poll_interval(settings: &ProfileSettings) -> Option<Diagnostic> {
    let interval = settings.poll_interval.as_ref().ok()?;
    let asynchronous = settings.asynchronous.as_ref().ok()?;
    let corrected = settings.corrected.as_ref().ok()?;
    let used = asynchronous.value.is_none_or(|response| response == Response::Polled)
        || corrected.value == Some(Response::Polled);
    (interval.given && !used).then(|| {
        interval
            .refused(
                "nothing is polled",
                "remove the key, or write `asynchronous = \"polled\"` or `corrected = \"polled\"`",
            )
            .with_label(&asynchronous.place, "another response is chosen here")
    })
}

fn corrected(settings: &ProfileSettings) -> Option<Diagnostic> {
    let corrected = settings.corrected.as_ref().ok()?;
    corrected.value.and_then(|_| only_acpi(settings, corrected, "a source of corrected errors"))
}

/// A key about corrected errors in a profile that does not mention their source. One that is `off` explicitly may be switched on.
fn about_corrected<T>(settings: &ProfileSettings, key: &SettingResult<T>) -> Option<Diagnostic> {
    let (key, corrected) = (key.as_ref().ok()?, settings.corrected.as_ref().ok()?);
    (key.given && !corrected.given).then(|| {
        key.refused("the guest has no source of corrected errors", "remove the key, or add `corrected`")
    })
}

fn injection(settings: &ProfileSettings) -> Option<Diagnostic> {
    let injection = settings.injection.as_ref().ok()?;
    if injection.value { only_acpi(settings, injection, "error injection (EINJ)") } else { None }
}

fn boot_record(settings: &ProfileSettings) -> Option<Diagnostic> {
    let record = settings.boot_record.as_ref().ok()?;
    if record.given && record.value { only_acpi(settings, record, "boot error records (BERT)") } else { None }
}

fn persistent_store(settings: &ProfileSettings) -> Option<Diagnostic> {
    only_acpi(
        settings,
        settings.persistent_store.as_ref().ok()?.as_ref()?,
        "a store for error records (ERST)",
    )
}

/// A setting of something that only ACPI describes.
fn only_acpi<T>(settings: &ProfileSettings, setting: &Setting<T>, what: &str) -> Option<Diagnostic> {
    let firmware = settings.firmware.as_ref().ok()?;
    (firmware.value != TableSet::Acpi).then(|| {
        setting
            .refused(
                format!(
                    "only ACPI describes {what}, and the machine has the tables `\"{}\"`",
                    firmware.value
                ),
                "remove the key, or choose the firmware `\"acpi\"`",
            )
            .with_label(&firmware.place, "the tables are chosen here")
    })
}

fn on_budget(settings: &ProfileSettings) -> Option<Diagnostic> {
    let (action, firmware) = (settings.on_budget.as_ref().ok()?, settings.firmware.as_ref().ok()?);
    if action.given && matches!(settings.budget, Ok(None)) {
        return Some(action.refused("there is no budget to spend", "remove the key, or add `budget`"));
    }
    (action.value == OnBudget::PowerButton && firmware.value == TableSet::MpTable).then(|| {
        action
            .refused(
                "an MP table has no power button",
                "write `\"report\"` or `\"stop\"`, or choose the firmware `\"acpi\"`",
            )
            .with_label(&firmware.place, "the MP table is set here")
    })
}

fn socket(settings: &ProfileSettings) -> Option<Diagnostic> {
    socket_path::too_long(settings.control_socket.as_ref().ok()?.as_ref()?)
}

/// A device whose memory another process maps, in a machine whose memory is private to the VMM.
fn private_memory(settings: &ProfileSettings) -> Option<Diagnostic> {
    let backing = settings.backing.as_ref().ok()?;
    let mut devices = settings.devices.iter().flatten();
    let (key, place) = devices.find_map(|device| device.uses.shared_memory.as_ref())?;
    (backing.value == MemoryBacking::Anonymous).then(|| {
        let help = "write `backing = \"memfd\"` or `\"hugetlbfs\"` in `[memory]`";
        if backing.given {
            let reason = format!("another process maps the guest's memory for the sake of `{key}`");
            return backing.refused(reason, help).with_label(place, "the device of the other process");
        }
        let reason =
            "its process cannot map the guest's memory, which is private to this process (`memory.backing`)";
        Diagnostic::refused(place, key, reason, help)
    })
}

fn metrics_interval(settings: &ProfileSettings) -> Option<Diagnostic> {
    let interval = settings.metrics_interval.as_ref().ok()?;
    let is_unused = matches!(settings.metrics_file, Ok(None));
    (interval.given && is_unused)
        .then(|| interval.refused("no file of metrics is written", "remove the key, or add `file`"))
}

fn too_many_devices(settings: &ProfileSettings, arch: Arch) -> Option<Diagnostic> {
    let max = match arch {
        Arch::X86_64 => x86_64::VIRTIO_GSIS.len(),
        Arch::Aarch64 => return None,
    };
    let devices = settings.devices.as_ref().ok()?;
    let first_beyond = devices.get(max)?;
    Some(Diagnostic::new(
        first_beyond.place.clone(),
        format!("device.{max}"),
        format!("`device` has {} entries; an {arch} machine has interrupts for {max}", devices.len()),
        format!("remove {}", devices.len() - max),
    ))
}

/// Devices beyond the first one that are on the VMM's standard input and output.
fn several_terminals(settings: &ProfileSettings) -> Vec<Diagnostic> {
    let mut terminals = settings.devices.iter().flatten().filter_map(|device| device.uses.terminal.as_ref());
    let Some((_, first)) = terminals.next() else { return Vec::new() };
    let diagnostic = |(key, place): &(String, Place)| {
        let help = "remove it, or give the device a `socket`";
        Diagnostic::refused(place, key, "another device is on the terminal already", help)
            .with_label(first, "the first one")
    };
    terminals.map(diagnostic).collect()
}

/// Files that two devices open by one path, at least one of them with write access.
fn shared_files(settings: &ProfileSettings) -> Vec<Diagnostic> {
    let files: Vec<&FileUse> =
        settings.devices.iter().flatten().flat_map(|device| &device.uses.files).collect();
    let pairs = shared(files.iter().map(|file| Some((&file.path.value, file.writes))));
    let diagnostic = |(first, second): (usize, usize)| {
        let (first, second) = (&files[first].path, &files[second].path);
        shared_file(&second.place, &second.key, &first.place)
    };
    pairs.into_iter().map(diagnostic).collect()
}

/// The pairs of uses of one file that are refused: each use that conflicts with an earlier one, after the first such. A use
/// is the file, and whether it is written.
pub(crate) fn shared<F: Eq + Hash>(uses: impl Iterator<Item = Option<(F, bool)>>) -> Vec<(usize, usize)> {
    // The first use of each file, and the first one that writes.
    let mut known: HashMap<F, (usize, Option<usize>)> = HashMap::new();
    let mut pairs = Vec::new();
    for (at, one) in uses.enumerate() {
        let Some((file, writes)) = one else { continue };
        match known.entry(file) {
            Vacant(entry) => {
                entry.insert((at, writes.then_some(at)));
            }
            Occupied(mut entry) => {
                let (first, writer) = entry.get_mut();
                pairs.extend(if writes { Some(*first) } else { *writer }.map(|earlier| (earlier, at)));
                if writes {
                    writer.get_or_insert(at);
                }
            }
        }
    }
    pairs
}

/// A file that two devices open, at least one of them with write access.
pub(crate) fn shared_file(place: &Place, key: &str, first: &Place) -> Diagnostic {
    let reason = "another device uses that file, and at least one of the two can write to it";
    let help = "choose another file; only files that both devices read can be shared (`read-only = true`)";
    Diagnostic::refused(place, key, reason, help).with_label(first, "the same file")
}

/// Adds the place of a setting that the profile gives.
fn with_label_if_given<T>(diagnostic: Diagnostic, setting: &Setting<T>, message: &str) -> Diagnostic {
    if setting.given { diagnostic.with_label(&setting.place, message) } else { diagnostic }
}
