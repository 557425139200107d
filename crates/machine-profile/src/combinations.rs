//! What each key may say by itself, but not beside what another key or the architecture says.

use platform::{Arch, x86_64};
use ras_core::Response;
use ras_core::plan::decision::{ErrorClass, Unsupported, describes, rows, support};

use crate::answers::{Answers, DeviceKind, default_page_size};
use crate::diagnostic::{Diagnostic, Report};
use crate::forms::listed;
use crate::machine::{Backing, BootProtocol, Kernel, PageSize, TableSet};
use crate::reader::{Answer, Setting};
use crate::units;

/// The longest path of a socket: `sun_path` of `struct sockaddr_un` has 108 bytes, the last one a NUL (unix(7)).
const LONGEST_SOCKET: usize = 107;
/// Processors that an MP table can name: an APIC id has eight bits, 255 addresses all of them (Intel MultiProcessor
/// Specification 1.4, 4.3.1), and the I/O APIC needs one too.
const MOST_MPTABLE_VCPUS: u32 = 254;

/// Reports every impossible combination.
pub(crate) fn check(answers: &Answers, arch: Arch, report: &mut Report) {
    let problems = [
        firmware(answers, arch),
        mptable_vcpus(answers),
        page_size(answers),
        memory(answers),
        protocol(answers, arch),
        initrd(answers),
        response(answers, ErrorClass::Consumed, &answers.synchronous, arch),
        response(answers, ErrorClass::Detected, &answers.asynchronous, arch),
        poll_interval(answers),
        socket(answers),
        too_many_devices(answers, arch),
    ];
    for problem in problems.into_iter().flatten().chain(shared_disks(answers)) {
        report.push(problem);
    }
}

fn firmware(answers: &Answers, arch: Arch) -> Option<Diagnostic> {
    let firmware = answers.firmware.as_ref().ok()?;
    (!describes(firmware.value, arch)).then(|| {
        let others = TableSet::ALL.into_iter().filter(|tables| describes(*tables, arch));
        firmware.refused(
            Unsupported::Tables { arch, tables: firmware.value },
            format!("write {}", quoted_names(others.map(TableSet::name), "or")),
        )
    })
}

fn mptable_vcpus(answers: &Answers) -> Option<Diagnostic> {
    let (vcpus, firmware) = (answers.vcpus.as_ref().ok()?, answers.firmware.as_ref().ok()?);
    let fits = firmware.value != TableSet::MpTable || vcpus.value <= MOST_MPTABLE_VCPUS;
    (!fits).then(|| {
        vcpus
            .refused(
                format!("an MP table names at most {MOST_MPTABLE_VCPUS} processors, by ids of eight bits"),
                format!("write `{MOST_MPTABLE_VCPUS}` or less, or choose the firmware `\"acpi\"`"),
            )
            .beside(&firmware.place, "the MP table is chosen here")
    })
}

fn page_size(answers: &Answers) -> Option<Diagnostic> {
    let backing = answers.backing.as_ref().ok()?;
    let page_size = answers.page_size.as_ref().ok()?.as_ref()?;
    let refused = match (backing.value, page_size.value) {
        (Backing::Hugetlbfs, PageSize::Large | PageSize::Giant)
        | (Backing::Anonymous | Backing::Memfd, PageSize::Small) => return None,
        (Backing::Hugetlbfs, PageSize::Small) => page_size.refused(
            "the host's pool of huge pages has none that small",
            "write `\"2MiB\"` or `\"1GiB\"`, or choose the backing `\"anonymous\"` or `\"memfd\"`",
        ),
        (Backing::Anonymous | Backing::Memfd, PageSize::Large | PageSize::Giant) => page_size.refused(
            "only the backing `\"hugetlbfs\"` has pages that big",
            "add `backing = \"hugetlbfs\"` to `[memory]`, or write `\"4KiB\"`",
        ),
    };
    Some(beside_given(refused, backing, "the backing is chosen here"))
}

fn memory(answers: &Answers) -> Option<Diagnostic> {
    let (memory, backing) = (answers.memory.as_ref().ok()?, answers.backing.as_ref().ok()?);
    let page_size = answers.page_size.as_ref().ok()?.as_ref();
    let page = page_size.map_or(default_page_size(backing.value), |setting| setting.value).bytes();
    if memory.value.is_multiple_of(page) {
        return None;
    }
    let shown = |bytes| units::format(bytes, units::SIZES);
    let below = memory.value / page * page;
    let fitting = if below == 0 { page } else { below };
    match page_size {
        Some(page_size) if !memory.given => Some(page_size.refused(
            format!("the machine has {}, which is no multiple of it", shown(memory.value)),
            format!("add `memory = \"{}\"` to `[machine]`, or choose smaller pages", shown(fitting)),
        )),
        _ => {
            let refused = memory.refused(
                format!("it is no multiple of the page size, {}", shown(page)),
                format!("write `\"{}\"`", shown(fitting)),
            );
            Some(match page_size {
                Some(page_size) => refused.beside(&page_size.place, "the page size is chosen here"),
                None => beside_given(refused, backing, "the page size follows from the backing"),
            })
        }
    }
}

fn protocol(answers: &Answers, arch: Arch) -> Option<Diagnostic> {
    let protocol = answers.protocol.as_ref().ok()?;
    (protocol.value == BootProtocol::Pvh && arch != Arch::X86_64).then(|| {
        protocol.refused(
            format!("PVH is of x86_64, and the guest is {arch}"),
            "write `\"linux\"`, or leave the key out",
        )
    })
}

fn initrd(answers: &Answers) -> Option<Diagnostic> {
    let (kernel, initrd) = (answers.kernel.as_ref().ok()?, answers.initrd.as_ref().ok()?.as_ref()?);
    (kernel.value == Kernel::BuiltinProbe).then(|| {
        let refused = initrd.refused(
            "the built-in guest takes no initial RAM disk",
            "name the kernel it belongs to, `kernel = \"...\"`, or leave the key out",
        );
        beside_given(refused, kernel, "the built-in guest is chosen here")
    })
}

fn response(
    answers: &Answers,
    class: ErrorClass,
    setting: &Answer<Option<Response>>,
    arch: Arch,
) -> Option<Diagnostic> {
    let (setting, firmware) = (setting.as_ref().ok()?, answers.firmware.as_ref().ok()?);
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
            Some(beside_given(refused, firmware, "the tables are chosen here"))
        }
        _ => Some(setting.refused(&unsupported, help)),
    }
}

/// `` `"a"`, `"b"` or `"c"` ``.
fn quoted_names(names: impl Iterator<Item = &'static str>, joint: &str) -> String {
    listed(names.map(|name| format!("`\"{name}\"`")), joint)
}

fn poll_interval(answers: &Answers) -> Option<Diagnostic> {
    let interval = answers.poll_interval.as_ref().ok()?;
    let asynchronous = answers.asynchronous.as_ref().ok()?;
    let used = asynchronous.value.is_none_or(|response| response == Response::Polled);
    (interval.given && !used).then(|| {
        interval
            .refused("nothing is polled", "leave the key out, or write `asynchronous = \"polled\"`")
            .beside(&asynchronous.place, "another response is chosen here")
    })
}

fn socket(answers: &Answers) -> Option<Diagnostic> {
    let socket = answers.control_socket.as_ref().ok()?.as_ref()?;
    let len = socket.value.as_os_str().len();
    (len > LONGEST_SOCKET).then(|| {
        socket.refused(
            format!(
                "with the profile's directory it is {len} bytes long; the most for a socket is {LONGEST_SOCKET}"
            ),
            "choose a shorter path, for example below `/run`",
        )
    })
}

fn too_many_devices(answers: &Answers, arch: Arch) -> Option<Diagnostic> {
    let most = match arch {
        Arch::X86_64 => x86_64::VIRTIO_GSIS.len(),
        Arch::Aarch64 => return None,
    };
    let devices = answers.devices.as_ref().ok()?;
    let first_beyond = devices.get(most)?;
    Some(Diagnostic::new(
        first_beyond.place.clone(),
        format!("device.{most}"),
        format!("`device` has {} entries; an {arch} machine has interrupts for {most}", devices.len()),
        format!("remove {}", devices.len() - most),
    ))
}

/// Disks that two devices share though one of them writes.
fn shared_disks(answers: &Answers) -> Vec<Diagnostic> {
    let disks: Vec<_> = answers
        .devices
        .iter()
        .flatten()
        .filter_map(|device| match &device.kind {
            Ok(DeviceKind::VirtioBlock { path: Ok(path), read_only: Ok(read_only) }) => {
                Some((path, read_only.value))
            }
            _ => None,
        })
        .collect();
    let clash = |(index, &(path, read_only)): (usize, &(&Setting<_>, bool))| {
        let (first, _) = disks
            .iter()
            .take(index)
            .find(|(other, other_read_only)| other.value == path.value && !(read_only && *other_read_only))?;
        let refused = path.refused(
            "the machine has that disk already, and one of the two may write",
            "name another image, or write `read-only = true` for both",
        );
        Some(refused.beside(&first.place, "the same disk"))
    };
    disks.iter().enumerate().filter_map(clash).collect()
}

/// Adds the place of a setting that has one of its own.
fn beside_given<T>(diagnostic: Diagnostic, setting: &Setting<T>, message: &str) -> Diagnostic {
    if setting.given { diagnostic.beside(&setting.place, message) } else { diagnostic }
}
